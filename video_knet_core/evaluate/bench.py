"""How fast engines are here, measured side by side: every frame by each of them in turn.

So a machine that is busy, or hot, is so for all of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from synthetic_street import SyntheticStreet

from ..engine.base import BackendError, Runtime
from ..engine.selector import backends_for, open_runtime
from ..predictor import VideoPredictor
from ..progress import progress_bar
from ..types import PanopticFrame
from .machine import (
    EnergyMeter,
    MeterUnavailableError,
    machine_facts,
    open_meter,
    peak_resident_bytes,
    resident_bytes,
)

FORMAT = 1
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


@dataclass
class BenchRun:
    """One engine on images of one size."""

    model: Path
    runtime: Runtime
    open_s: float
    open_bytes: int
    """Growth of the resident memory while it was opened."""
    size: tuple[int, int]
    """Height and width."""
    step: Step
    times: list[Stages] = field(default_factory=list)
    joules: float = 0.0
    different_class: list[float] = field(default_factory=list)
    different_track: list[float] = field(default_factory=list)
    """Fraction of the pixels of each frame that differ from the first run at this size."""

    def compare(self, frame: PanopticFrame, other: PanopticFrame) -> None:
        """Note how many pixels are not those of the first run."""
        for found, maps in (
            (self.different_class, (frame.semantic_map(), other.semantic_map())),
            (self.different_track, (frame.track_id_map(), other.track_id_map())),
        ):
            found.append(float((maps[0] != maps[1]).mean()))

    def row(self) -> dict[str, Any]:
        """Plain values for JSON; times in milliseconds, memory in MB (1e6 bytes)."""
        stages = {stage: percentiles([t[stage] for t in self.times]) for stage in self.times[0]}
        stages["total"] = percentiles([sum(t.values()) for t in self.times])
        return {
            "model": self.model.name,
            "backend": self.runtime.name,
            "image": list(self.size),
            "frames": len(self.times),
            "fps": 1e3 / stages["total"]["mean"],
            "stages_ms": stages,
            "open_s": self.open_s,
            "open_memory_mb": self.open_bytes / 1e6,
            "joules_per_frame": self.joules / len(self.times) if self.joules else None,
            "different_class": float(np.mean(self.different_class)),
            "different_track": float(np.mean(self.different_track)),
        }


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Mean, p50, p99 and max; between two values the percentiles are interpolated."""
    p50, p99 = np.percentile(values, (50, 99)).tolist()
    return {"mean": float(np.mean(values)), "p50": p50, "p99": p99, "max": float(np.max(values))}


@dataclass(frozen=True)
class BenchReport:
    """Results of a measurement."""

    rows: tuple[dict[str, Any], ...]
    """`BenchRun.row` of each run."""
    skipped: tuple[str, ...]
    """Backends that do not run here, with the reason."""
    threads: int
    energy_meter: str | None
    energy_note: str
    """Why there is no meter."""
    memory_growth: int
    """Bytes by which the process grew during the frames that count, with all the engines."""

    def to_json(self) -> dict[str, Any]:
        """Everything, with what it was measured on."""
        return {
            "format": FORMAT,
            "machine": machine_facts(),
            "threads": self.threads,
            "energy_meter": self.energy_meter,
            "energy_note": self.energy_note,
            "peak_memory_mb": peak_resident_bytes() / 1e6,
            "memory_growth_mb": self.memory_growth / 1e6,
            "runs": list(self.rows),
            "skipped": list(self.skipped),
        }

    def table(self) -> list[str]:
        """Lines for people."""
        names = [f"{row['model']} {row['backend']}" for row in self.rows]
        width = max(map(len, names))
        *stages, _ = self.rows[0]["stages_ms"]
        head = "".join(f"{stage:>12}" for stage in (*stages, "total", "p99", "max"))
        return [
            f"{'model and backend':<{width}}     image{head}    fps      J  differs",
            *(f"{name:<{width}}{_cells(row)}" for name, row in zip(names, self.rows, strict=True)),
            "milliseconds, medians; p99 and max are of the total; differs: fraction of pixels with "
            "another class than in the first row of this size",
            f"memory: peak {peak_resident_bytes() / 1e6:.0f} MB, "
            f"growth while measuring {self.memory_growth / 1e6:.1f} MB",
            f"energy: {self.energy_meter or self.energy_note}",
            *(f"not measured: {reason}" for reason in self.skipped),
        ]


def _cells(row: dict[str, Any]) -> str:
    """A row of the table behind its name."""
    height, width = row["image"]
    values = [stage["p50"] for stage in row["stages_ms"].values()]
    total, joules = row["stages_ms"]["total"], row["joules_per_frame"]
    milliseconds = "".join(f"{value:12.2f}" for value in (*values, total["p99"], total["max"]))
    energy = "-" if joules is None else f"{joules:.2f}"
    size = f"{height}x{width}"
    return f"{size:>10}{milliseconds}{row['fps']:7.1f}{energy:>7}{row['different_class']:9.3%}"


def predictor_step(predictor: VideoPredictor) -> Step:
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
    step_of: Callable[[VideoPredictor], Step] = predictor_step,
) -> BenchReport:
    """Measure every model with every backend at every image size, all in turn, frame by frame.

    Args:
        models: exported models or checkpoints.
        backends: names, or "all" for each that works here ("auto" takes the best).
        frames: that count, of each run.
        sizes: height and width of the images; none is each model's own size.
        threads: CPU threads of the engines and of OpenCV.
        step_of: what is done with a frame, around the predictor.

    Raises:
        ModelError, BackendError: a model is bad, or a backend that was named cannot run here.
    """
    cv2.setNumThreads(threads)
    meter, no_meter = _open_meter()
    skipped: list[str] = []
    with ExitStack() as stack:
        runs: list[BenchRun] = []
        for opened in _open_engines(models, backends, threads, skipped):
            runtime = opened[1]
            stack.callback(runtime.close)
            for size in sizes or [(runtime.info.height, runtime.info.width)]:
                runs.append(BenchRun(*opened, size, step_of(VideoPredictor(runtime))))
        if not runs:
            raise BackendError("no backend works here: " + "; ".join(skipped))
        growth = _measure(runs, frames, meter)
        rows = tuple(run.row() for run in runs)
    meter_name = meter.name if meter else None
    return BenchReport(rows, tuple(skipped), threads, meter_name, no_meter, growth)


def _open_engines(
    models: Sequence[Path], backends: Sequence[str], threads: int, skipped: list[str]
) -> Iterator[tuple[Path, Runtime, float, int]]:
    """Every model with every backend, and the seconds and bytes that opening it takes; of "all",
    those that do not work are added to `skipped`."""
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
            yield model, runtime, seconds, resident_bytes() - before


def _log_progress(what: str, fraction: float) -> None:
    _log.debug("%s %.0f %%", what, 100 * fraction)


def _measure(runs: Sequence[BenchRun], frames: int, meter: EnergyMeter | None) -> int:
    """Play the same clip to all runs, a frame to each in turn; returns the growth in bytes."""
    street = SyntheticStreet(7, 288, 480)
    clip = [street.frame(t).image for t in range(min(_CLIP_FRAMES, frames + _WARM_UP))]
    before = resident_bytes()
    for t in progress_bar(range(frames + _WARM_UP), unit="frame"):
        if t == _WARM_UP:
            before = resident_bytes()
        picture = clip[ping_pong_index(t, len(clip))]
        first: dict[tuple[int, int], PanopticFrame] = {}
        for run in runs:
            image = np.asarray(cv2.resize(picture, run.size[::-1]), np.uint8)
            frame, stages, joules = _step(run, image, t * _FRAME_NS, meter)
            reference = first.setdefault(run.size, frame)
            if t >= _WARM_UP:
                run.times.append(stages)
                run.joules += joules
                run.compare(frame, reference)
    return resident_bytes() - before


def _step(
    run: BenchRun, image: NDArray[np.uint8], stamp: int, meter: EnergyMeter | None
) -> tuple[PanopticFrame, Stages, float]:
    """One frame, its times and its joules."""
    before = meter.joules() if meter else 0.0
    frame, stages = run.step(image, stamp)
    return frame, stages, (meter.joules() if meter else 0.0) - before


def ping_pong_index(t: int, count: int) -> int:
    """Number 0..count-1 of the frame to show at time t: the clip never jumps."""
    period = max(2 * count - 2, 1)
    return min(t % period, period - t % period)


def _open_meter() -> tuple[EnergyMeter | None, str]:
    try:
        return open_meter(), ""
    except MeterUnavailableError as reason:
        return None, str(reason)
