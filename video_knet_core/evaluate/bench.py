"""How fast engines are here, measured side by side: every frame by each of them in turn.

So a machine that is busy, or hot, is so for all of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from synthetic_street import SyntheticStreet

from ..data.pasted_clips import ping_pong_index
from ..engine.base import BackendError, Runtime
from ..engine.selector import backends_for, open_runtime
from ..machine import EnergyMeter, machine_facts, open_meter, peak_resident_bytes, resident_bytes
from ..predictor import VideoPredictor
from ..progress import progress_bar
from ..types import PanopticFrame

_FORMAT = 1
"""Version of the JSON."""
_WARM_UP = 5
"""Frames of each run that are not counted."""
_CLIP_FRAMES = 40
"""Different frames; a longer measurement plays them forward and backward."""
_FRAME_NS = 100_000_000

_log = logging.getLogger(__name__)


Stages = dict[str, float]
"""Milliseconds by the name of the stage, in order."""
Step = Callable[[NDArray[np.uint8], int], tuple[PanopticFrame, Stages]]
"""Takes an image [H, W, 3] and its stamp."""


def _predictor_step(predictor: VideoPredictor) -> Step:
    """A frame through the predictor alone."""

    def step(image: NDArray[np.uint8], stamp: int) -> tuple[PanopticFrame, Stages]:
        frame = predictor.step(image, stamp)
        return frame, asdict(frame.times)

    return step


def bench(
    models: Sequence[Path],
    backends: Sequence[str] = ("auto",),
    frames: int = 100,
    sizes: Sequence[tuple[int, int]] = (),
    threads: int = 2,
    step_of: Callable[[VideoPredictor], Step] = _predictor_step,
) -> dict[str, Any]:
    """Measure every model with every backend at every image size, all in turn, frame by frame.

    Args:
        models: exported models or checkpoints.
        backends: names, or "all" for each that works here ("auto" takes the fastest).
        frames: that count, of each run.
        sizes: height and width of the images; none is each model's own sizes.
        threads: CPU threads of the engines and of OpenCV.
        step_of: what is done with a frame, around the predictor.

    Returns:
        Plain values for JSON: the machine and its memory (MB are 1e6 bytes; the growth is that of
        the process during the frames that count), `skipped` backends with the reason, and `runs`,
        with times in milliseconds and the fractions of pixels that differ from the first run at
        the same size.

    Raises:
        ModelError, BackendError: a model is bad, or a backend that was named cannot run here.
    """
    cv2.setNumThreads(threads)
    meter, no_meter = open_meter()
    skipped: list[str] = []
    with ExitStack() as stack:
        runs: list[_Run] = []
        for opened in _open_engines(models, backends, threads, skipped):
            stack.callback(opened.runtime.close)
            for size in sizes or opened.runtime.info.sizes:
                runs.append(_Run(opened, size, step_of(VideoPredictor(opened.runtime))))
        if not runs:
            raise BackendError("no backend works here: " + "; ".join(skipped))
        growth = _measure(runs, frames, meter)
        rows = [run.row() for run in runs]
    return {
        "format": _FORMAT,
        "machine": machine_facts(),
        "threads": threads,
        "energy_meter": meter.name if meter else None,
        "energy_note": no_meter,
        "peak_memory_mb": peak_resident_bytes() / 1e6,
        "memory_growth_mb": growth / 1e6,
        "runs": rows,
        "skipped": skipped,
    }


@dataclass(frozen=True)
class _Engine:
    """An open engine, and the seconds and bytes of memory that opening it took."""

    model: Path
    runtime: Runtime
    seconds: float
    bytes: int


@dataclass
class _Run:
    """One engine on images of one size (height, width)."""

    engine: _Engine
    size: tuple[int, int]
    step: Step
    backend: str = ""
    """That of the last frame: an engine may be replaced, and each native size has its own."""
    times: list[Stages] = field(default_factory=list)
    joules: float = 0.0
    different: list[tuple[float, float]] = field(default_factory=list)
    """Fraction of the pixels of each frame that are not those of the first run at this size: in
    class, and in track."""

    def compare(self, frame: PanopticFrame, first: PanopticFrame) -> None:
        """Count what differs from the frame of the first run."""
        classes = (frame.semantic_map() != first.semantic_map()).mean()
        tracks = (frame.track_id_map() != first.track_id_map()).mean()
        self.different.append((float(classes), float(tracks)))

    def row(self) -> dict[str, Any]:
        """Plain values for JSON."""
        stages = {stage: _percentiles([t[stage] for t in self.times]) for stage in self.times[0]}
        stages["total"] = _percentiles([sum(t.values()) for t in self.times])
        different_class, different_track = np.mean(self.different, axis=0).tolist()
        return {
            "model": self.engine.model.name,
            "backend": self.backend,
            "image": list(self.size),
            "frames": len(self.times),
            "fps": 1e3 / stages["total"]["mean"],
            "stages_ms": stages,
            "open_s": self.engine.seconds,
            "open_memory_mb": self.engine.bytes / 1e6,
            "joules_per_frame": self.joules / len(self.times) if self.joules else None,
            "different_class": different_class,
            "different_track": different_track,
        }


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    """Mean, p50, p99 and max; between two values the percentiles are interpolated."""
    p50, p99 = np.percentile(values, (50, 99)).tolist()
    return {"mean": float(np.mean(values)), "p50": p50, "p99": p99, "max": float(np.max(values))}


def _open_engines(
    models: Sequence[Path], backends: Sequence[str], threads: int, skipped: list[str]
) -> Iterator[_Engine]:
    """Every model with every backend; of "all", those that do not work are added to `skipped`."""
    for model in models:
        for backend in backends_for(model) if "all" in backends else backends:
            before, start = resident_bytes(), time.perf_counter()
            try:
                runtime = open_runtime(model, backend, threads, progress=_log_progress)
            except BackendError as error:
                if "all" not in backends:
                    raise
                skipped.append(str(error))
                continue
            seconds = time.perf_counter() - start
            yield _Engine(model, runtime, seconds, resident_bytes() - before)


def _log_progress(what: str, fraction: float) -> None:
    _log.debug("%s %.0f %%", what, 100 * fraction)


def _measure(runs: Sequence[_Run], frames: int, meter: EnergyMeter | None) -> int:
    """Play the same clip to all runs, a frame to each in turn; returns the growth in bytes."""
    street = SyntheticStreet(7, 288, 480)
    clip = [street.frame(t).image for t in range(min(_CLIP_FRAMES, frames + _WARM_UP))]
    memory = resident_bytes()
    for t in progress_bar(range(frames + _WARM_UP), unit="frame"):
        if t == _WARM_UP:
            memory = resident_bytes()
        picture = clip[ping_pong_index(t, len(clip))]
        first: dict[tuple[int, int], PanopticFrame] = {}
        for run in runs:
            image = np.asarray(cv2.resize(picture, run.size[::-1]), np.uint8)
            before = meter.joules() if meter else 0.0
            frame, stages = run.step(image, t * _FRAME_NS)
            run.backend = run.engine.runtime.name
            joules = (meter.joules() if meter else 0.0) - before
            reference = first.setdefault(run.size, frame)
            if t >= _WARM_UP:
                run.times.append(stages)
                run.joules += joules
                run.compare(frame, reference)
    return resident_bytes() - memory


def bench_table(report: Mapping[str, Any]) -> list[str]:
    """Lines for people of what `bench` returns."""
    rows = report["runs"]
    names = [f"{row['model']} {row['backend']}" for row in rows]
    width = max(map(len, names))
    *stages, _ = rows[0]["stages_ms"]
    head = "".join(f"{stage:>12}" for stage in (*stages, "total", "p99", "max"))
    return [
        f"{'model and backend':<{width}}     image{head}    fps      J  differs",
        *(f"{name:<{width}}{_cells(row)}" for name, row in zip(names, rows, strict=True)),
        "milliseconds, medians; p99 and max are of the total; differs: fraction of pixels with "
        "another class than in the first row of this size",
        f"memory: peak {report['peak_memory_mb']:.0f} MB, "
        f"growth while measuring {report['memory_growth_mb']:.1f} MB",
        f"energy: {report['energy_meter'] or report['energy_note']}",
        *(f"not measured: {reason}" for reason in report["skipped"]),
    ]


def _cells(row: Mapping[str, Any]) -> str:
    """A row of the table behind its name."""
    height, width = row["image"]
    values = [stage["p50"] for stage in row["stages_ms"].values()]
    total, joules = row["stages_ms"]["total"], row["joules_per_frame"]
    milliseconds = "".join(f"{value:12.2f}" for value in (*values, total["p99"], total["max"]))
    energy = "-" if joules is None else f"{joules:.2f}"
    size = f"{height}x{width}"
    return f"{size:>10}{milliseconds}{row['fps']:7.1f}{energy:>7}{row['different_class']:9.3%}"
