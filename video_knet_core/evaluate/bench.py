"""How fast engines are here, measured side by side: every frame by each of them in turn.

So a machine that is busy, or hot, is so for all of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from .energy import EnergyMeter, NoMeter, open_meter
from .machine import machine_facts, peak_resident_bytes, resident_bytes

FORMAT = 1
"""Version of the JSON."""
WARM_UP = 5
"""Frames of each run that are not counted."""
CLIP_FRAMES = 40
"""Different frames; a longer measurement plays them forth and back."""
FRAME_NS = 100_000_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds of one stage over all frames."""

    mean: float
    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Percentiles:
        """Of at least one value; between two values the percentiles are interpolated."""
        p50, p99 = np.percentile(values, (50, 99)).tolist()
        return cls(float(np.mean(values)), p50, p99, float(np.max(values)))


@dataclass
class Engine:
    """An open runtime and what it took to open it."""

    model: Path
    runtime: Runtime
    open_s: float
    open_bytes: int | None
    """Growth of the resident memory."""


Stages = dict[str, float]
"""Milliseconds by the name of the stage, in order."""
Step = Callable[[NDArray[np.uint8], int], tuple[PanopticFrame, Stages]]
"""Takes an image [H, W, 3] and its stamp."""


@dataclass
class Run:
    """One engine on images of one size."""

    engine: Engine
    size: tuple[int, int]
    """Height and width."""
    step: Step
    times: list[Stages] = field(default_factory=list)
    joules: float = 0.0
    different_class: list[float] = field(default_factory=list)
    different_track: list[float] = field(default_factory=list)
    """Share of the pixels of each frame that differ from the first run at this size."""

    def stages(self) -> dict[str, Percentiles]:
        """By the name of the stage; their sum is the "total"."""
        found = {
            stage: Percentiles.of([times[stage] for times in self.times]) for stage in self.times[0]
        }
        return found | {"total": Percentiles.of([sum(times.values()) for times in self.times])}

    def compare(self, frame: PanopticFrame, other: PanopticFrame) -> None:
        """Note how many pixels are not those of the first run."""
        for found, maps in (
            (self.different_class, (frame.semantic_map(), other.semantic_map())),
            (self.different_track, (frame.track_id_map(), other.track_id_map())),
        ):
            found.append(float((maps[0] != maps[1]).mean()))

    def row(self) -> dict[str, Any]:
        """Plain values for JSON; times in milliseconds, memory in MB (1e6 bytes)."""
        stages = self.stages()
        return {
            "model": self.engine.model.name,
            "backend": self.engine.runtime.name,
            "image": list(self.size),
            "frames": len(self.times),
            "fps": 1e3 / stages["total"].mean,
            "stages_ms": {stage: asdict(values) for stage, values in stages.items()},
            "open_s": self.engine.open_s,
            "open_memory_mb": _megabytes(self.engine.open_bytes),
            "joules_per_frame": self.joules / len(self.times) if self.joules else None,
            "different_class": float(np.mean(self.different_class)),
            "different_track": float(np.mean(self.different_track)),
        }


@dataclass(frozen=True)
class Report:
    """What a measurement came to."""

    rows: tuple[dict[str, Any], ...]
    """`Run.row` of each run."""
    skipped: tuple[str, ...]
    """Backends that do not run here, with the reason."""
    threads: int
    energy_meter: str | None
    energy_note: str
    """Why there is no meter."""
    memory_growth: int | None
    """Bytes by which the process grew during the frames that count, with all the engines."""

    def to_json(self) -> dict[str, Any]:
        """Everything, with what it was measured on."""
        return {
            "format": FORMAT,
            "machine": machine_facts(),
            "threads": self.threads,
            "energy_meter": self.energy_meter,
            "energy_note": self.energy_note,
            "peak_memory_mb": _megabytes(peak_resident_bytes()),
            "memory_growth_mb": _megabytes(self.memory_growth),
            "runs": list(self.rows),
            "skipped": list(self.skipped),
        }

    def table(self) -> list[str]:
        """Lines for people."""
        names = [f"{row['model']} {row['backend']}" for row in self.rows]
        width = max(map(len, names))
        *stages, _ = self.rows[0]["stages_ms"]
        head = "".join(f"{stage:>12}" for stage in (*stages, "total", "p99", "max"))
        growth = _megabytes(self.memory_growth)
        return [
            f"{'model and backend':<{width}}     image{head}    fps      J  differs",
            *(f"{name:<{width}}{_cells(row)}" for name, row in zip(names, self.rows, strict=True)),
            "milliseconds, medians; p99 and max are of the total; differs: share of pixels with "
            "another class than in the first row of this size",
            f"memory: peak {_megabytes(peak_resident_bytes()):.0f} MB"
            + ("" if growth is None else f", growth while measuring {growth:.1f} MB"),
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
) -> Report:
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
        engines = []
        for engine in open_engines(models, backends, threads, skipped):
            stack.callback(engine.runtime.close)
            engines.append(engine)
        if not engines:
            raise BackendError("no backend works here: " + "; ".join(skipped))
        runs = _runs(engines, sizes, step_of)
        growth = measure(runs, frames, meter)
        rows = tuple(run.row() for run in runs)
    name = meter.name if meter else None
    return Report(rows, tuple(skipped), threads, name, no_meter, growth)


def open_engines(
    models: Sequence[Path], backends: Sequence[str], threads: int, skipped: list[str]
) -> Iterator[Engine]:
    """Every model with every backend; of "all", those that do not work are added to `skipped`."""
    for model in models:
        for backend in backends_for(model) if "all" in backends else backends:
            try:
                yield _open_engine(model, backend, threads)
            except BackendError as error:
                if "all" not in backends:
                    raise
                skipped.append(str(error))


def _open_engine(model: Path, backend: str, threads: int) -> Engine:
    before, start = resident_bytes(), time.perf_counter()
    runtime = open_runtime(model, backend, threads, progress=_log_progress)
    seconds = time.perf_counter() - start
    return Engine(model, runtime, seconds, _difference(resident_bytes(), before))


def _log_progress(what: str, share: float) -> None:
    _log.debug("%s %.0f %%", what, 100 * share)


def _runs(
    engines: Iterable[Engine],
    sizes: Sequence[tuple[int, int]],
    step_of: Callable[[VideoPredictor], Step],
) -> list[Run]:
    runs = []
    for engine in engines:
        info = engine.runtime.info
        for size in sizes or [(info.height, info.width)]:
            runs.append(Run(engine, size, step_of(VideoPredictor(engine.runtime))))
    return runs


def measure(runs: Sequence[Run], frames: int, meter: EnergyMeter | None) -> int | None:
    """Play the same clip to all runs, a frame to each in turn; returns the growth in bytes."""
    street = SyntheticStreet(7, 288, 480)
    clip = [street.frame(t).image for t in range(min(CLIP_FRAMES, frames + WARM_UP))]
    before = None
    for t in progress_bar(range(frames + WARM_UP), unit="frame"):
        if t == WARM_UP:
            before = resident_bytes()
        picture = clip[forth_and_back(t, len(clip))]
        first: dict[tuple[int, int], PanopticFrame] = {}
        for run in runs:
            image = np.asarray(cv2.resize(picture, run.size[::-1]), np.uint8)
            frame, stages, joules = _step(run, image, t * FRAME_NS, meter)
            reference = first.setdefault(run.size, frame)
            if t >= WARM_UP:
                run.times.append(stages)
                run.joules += joules
                run.compare(frame, reference)
    return _difference(resident_bytes(), before)


def _step(
    run: Run, image: NDArray[np.uint8], stamp: int, meter: EnergyMeter | None
) -> tuple[PanopticFrame, Stages, float]:
    """One frame, its times and its joules."""
    before = meter.joules() if meter else 0.0
    frame, stages = run.step(image, stamp)
    return frame, stages, (meter.joules() if meter else 0.0) - before


def forth_and_back(t: int, count: int) -> int:
    """Number 0..count-1 of the frame to show at time t: the clip never jumps."""
    period = max(2 * count - 2, 1)
    return min(t % period, period - t % period)


def _open_meter() -> tuple[EnergyMeter | None, str]:
    try:
        return open_meter(), ""
    except NoMeter as reason:
        return None, f"not measured: {reason}"


def _difference(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before


def _megabytes(count: int | None) -> float | None:
    return None if count is None else count / 1e6
