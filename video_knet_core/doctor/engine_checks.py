"""The model, the engines that run it, and a step. An engine is tried in a process of its own."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..installation import pip_install
from .host_checks import gpu_facts
from .lines import ABSENT, DOCS, FAULT, OK, WARNING, Lines

if TYPE_CHECKING:
    from ..engine.selector import Backend

ENGINES_S, MIN_ENGINE_S = 8.0, 1.0
"""For all engines together, and the least of that for one."""
MAX_STEPS, STEPS_S = 5, 0.5
"""That are timed of an engine, after one that warms up; no further one begins after that time."""


@dataclass(frozen=True)
class _Trial:
    """What came of an engine."""

    status: str
    text: str
    remedy: str = ""
    step_ms: float | None = None
    """Median, of `VideoPredictor.step`; None if it was not measured."""
    segments: int = 0
    """In the last frame."""
    agrees: bool = True
    """With the engine that others are compared with; `auto` uses no other."""
    is_late: bool = False
    """It was given up after some time."""


class ExaminedModel:
    """The model that is examined, and what the checks found out about it."""

    def __init__(self, model: str | None) -> None:
        self._given = model
        self._path: Path | None = None
        """Once the file was read."""
        self._trials: dict[str, _Trial] = {}

    def lines(self) -> Lines:
        from ..engine.base import ModelError
        from ..engine.model_index import model_index

        remedy = "video-knet models get street, or name another model with --model"
        try:
            path = self._find()
            names = {model.name for model in model_index().models}
            if self._given in (None, path.stem) and path.stem in names:
                remedy = f"delete {path}, then video-knet models get {path.stem}"
            else:
                remedy = "take another copy of it, or a model of `video-knet models list`"
            if path.suffix in (".pth", ".pt"):
                remedy = (
                    "video-knet import-checkpoint converts weights of the authors, and no other"
                )
            description = _described(path)
            self._path = path
            yield OK, f"{path}: {description}"
            yield _content_line(path)
        except (ModelError, OSError) as error:
            yield FAULT, str(error), remedy

    def _find(self) -> Path:
        """The file; ModelError if there is none."""
        from ..engine.base import ModelError
        from ..engine.model_index import find_model
        from ..engine.selector import default_model_path

        path = find_model(self._given) if self._given else default_model_path()
        if not path.is_file():
            raise ModelError(f"no model file {path}")
        return path

    def engine_lines(self) -> Lines:
        from ..engine.selector import BACKENDS, REFERENCE, backends_for

        suitable = backends_for(self._path) if self._path else []
        end = time.monotonic() + ENGINES_S
        for name in sorted(BACKENDS, key=lambda name: name != REFERENCE):
            if self._path and name not in suitable:
                kind = ".safetensors" if name == "torch" else ".onnx"
                yield ABSENT, f"{name}: runs {kind} only"
                continue
            trial = _try_apart(name, BACKENDS[name], self._path, end - time.monotonic())
            self._trials[name] = trial
            yield trial.status, f"{name}: {trial.text}", trial.remedy
        yield from self._idle_gpu()

    def _idle_gpu(self) -> Lines:
        """A GPU that no engine uses."""
        from ..engine.selector import GPU_BACKENDS

        tried = [trial for name, trial in self._trials.items() if name in GPU_BACKENDS]
        gpus, _ = gpu_facts()
        if self._path and gpus and tried and not any(trial.status == OK for trial in tried):
            yield WARNING, f"no engine uses the GPU ({gpus[0]})", f"{DOCS}/how-to/engine/"

    def step_lines(self) -> Lines:
        if self._path is None:
            yield ABSENT, "not tried without a model"
            return
        running = {n: t for n, t in self._trials.items() if t.step_ms is not None and t.agrees}
        if not running:
            if any(trial.is_late for trial in self._trials.values()):
                yield WARNING, "no engine has run in time", "run this again on an idle machine"
                return
            remedy = "see Engines, above"
            if all(trial.status == ABSENT for trial in self._trials.values()):
                packages = "'video_knet_ros[export]'" if "torch" in self._trials else "onnxruntime"
                remedy = pip_install(packages)
            yield FAULT, f"no engine runs {self._path}", remedy
            return
        name, best = min(running.items(), key=lambda item: item[1].step_ms or 0.0)
        text = f"{best.step_ms:.1f} ms with {name}, {best.segments} segments on a synthetic street"
        if best.segments:
            yield OK, text
        else:
            yield WARNING, text, "expected some, unless the model is for other scenes"


def _described(path: Path) -> str:
    """What a model file has; ModelError or OSError if it cannot be read."""
    if path.suffix == ".safetensors":
        return _described_checkpoint(path)
    from ..engine.model_file import ModelFile

    file = ModelFile.read(path, form="deploy")
    sizes = " or ".join(f"{width} x {height}" for height, width in file.config.sizes)
    classes = len(file.config.classes)
    return f"{file.name}, {file.config.task}, {sizes}, {classes} classes, {file.precision}"


def _described_checkpoint(path: Path) -> str:
    """The same of a checkpoint, by its header alone, without torch."""
    from ..engine.base import ModelError

    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if length > size:
                raise ValueError(f"a header of {length} bytes in {size}")
            header = json.loads(file.read(length))
        facts = json.loads(header.pop("__metadata__")["video_knet"])
        end = max(tensor["data_offsets"][1] for tensor in header.values())
        if 8 + length + end != size:
            raise ValueError(f"expected {8 + length + end} bytes, got {size}")
        config = facts["config"]
        rows = f"{config['width']} x {config['height']}" if "width" in config else "no size"
        return f"checkpoint, {rows}, {len(config['classes'])} classes, {len(header)} tensors"
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(f"{path} is not a checkpoint, or cut short ({error})") from None


def _content_line(path: Path) -> tuple[str, ...]:
    """Whether a file is one of the release, if it is where those are."""
    from ..engine.model_index import FOLDER, download_folder, model_index
    from ..installation import shared_folders
    from ..model_download import sha256_of

    index, content = model_index(), sha256_of(path)
    known = {file.name: file.sha256 for model in index.models for file in model.files}
    for name, expected in known.items():
        if content == expected:
            return OK, f"SHA-256 is that of {name} of {index.release}"
    shipped = (download_folder(index), *(folder / FOLDER for folder in shared_folders()))
    if path.name in known and path.resolve().parent in {folder.resolve() for folder in shipped}:
        text = f"{path} is not the file of {index.release}: SHA-256 {content}"
        return FAULT, text, f"delete it, then video-knet models get {path.stem}"
    return OK, f"a model of your own, SHA-256 {content}"


def _try_apart(name: str, backend: Backend, path: Path | None, limit_s: float) -> _Trial:
    """`_try` in a process of its own, which may crash, or hang and be ended after `limit_s`."""
    import multiprocessing
    import signal

    if limit_s < MIN_ENGINE_S:
        return _Trial(ABSENT, "not tried, as the others took too long: `video-knet bench` does")
    context = multiprocessing.get_context("fork")  # what is imported here needs not be again
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_send_trial, args=(sending, name, backend, path), daemon=True)
    process.start()
    sending.close()
    try:
        if not receiving.poll(limit_s):
            text = f"no result in {limit_s:.1f} s: it hangs, or the machine is busy"
            return _Trial(WARNING, text, f"video-knet bench --backend {name}", is_late=True)
        trial: _Trial = receiving.recv()
        return trial
    except EOFError:
        process.join()
        code = -(process.exitcode or 0)
        reason = signal.Signals(code).name if code > 0 else f"exit code {-code}"
        return _Trial(WARNING, f"it crashed ({reason})", backend.requires)
    finally:
        process.kill()
        process.join()


def _send_trial(sending: Any, name: str, backend: Backend, path: Path | None) -> None:
    """The process of a trial; what libraries print goes nowhere, and a crash leaves no file."""
    import resource

    from ..engine.base import ModelError

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    try:
        trial = _try(name, backend, path)
    except (FloatingPointError, ModelError) as error:
        trial = _Trial(WARNING, str(error), "take another copy of the model, or train it again")
    except Exception as error:  # of many libraries
        trial = _Trial(WARNING, f"{type(error).__name__}: {error}", backend.requires)
    sending.send(trial)


def _try(name: str, backend: Backend, path: Path | None) -> _Trial:
    """Open a model with a backend, compare it with the CPU, and step it."""
    from ..engine.base import BackendError, ModelError
    from ..engine.selector import REFERENCE
    from ..engine.self_test import MAX_DIFFERENCE, SAME_SEGMENTS, check_agreement

    is_compared = name not in (REFERENCE, "torch")
    limit = SAME_SEGMENTS if backend.bfloat16 else MAX_DIFFERENCE
    try:
        module = backend.load()
        if path is None:
            return _Trial(ABSENT, "not tried without a model")
        if backend.builds and not module.engine_is_cached(path, name, None):
            how = f"`video-knet build-engine {path}` does it ahead of time"
            return _Trial(OK, f"usable; its engine is built at the first start ({how})")
        runtime = module.open_model(name, path, 2, _no_build, None)
    except BackendError as error:
        return _Trial(ABSENT, str(error))
    except ModelError as error:
        return _Trial(WARNING, str(error), "export the model again")
    self_test, agrees = "self-test not needed", True
    if is_compared:
        try:
            expected = _expected_classes(path, untested=not (backend.on_gpu or backend.bfloat16))
            if expected is None:
                self_test = "not compared, as there is no ONNX Runtime"
            else:
                check_agreement(runtime, expected, limit)
                self_test = "self-test passed"
        except BackendError as error:
            if backend.on_gpu:
                return _Trial(WARNING, f"self-test failed: {error}", f"{DOCS}/how-to/engine/")
            self_test, agrees = f"not used by auto: self-test failed: {error}", False
    step_ms, segments = _timed_steps(runtime)
    text = f"{step_ms:.1f} ms a step; {self_test}"
    return _Trial(OK, text, step_ms=step_ms, segments=segments, agrees=agrees)


def _expected_classes(path: Path, untested: bool) -> Any:
    """See `self_test`; with `untested`, None where there is no engine to compare with."""
    from ..engine.base import BackendError
    from ..engine.self_test import expected_classes

    try:
        return expected_classes(path, 2)
    except BackendError:
        if untested:  # `auto` takes such an engine all the same
            return None
        raise


def _no_build(what: str, done: float) -> None:
    """A progress callback that stops a build."""
    from ..engine.base import BackendError

    raise BackendError("its cached engine cannot be used; it is built again at the next start")


def _timed_steps(runtime: Any) -> tuple[float, int]:
    """Median milliseconds of a frame, and the segments of the last one."""
    from statistics import median

    import numpy as np

    from ..engine.self_test import synthetic_frames
    from ..predictor import VideoPredictor

    predictor, times, begun = VideoPredictor(runtime), [], time.perf_counter()
    frames = synthetic_frames(runtime.info.height, runtime.info.width, 1 + MAX_STEPS)
    for number, image in enumerate(frames):
        start = time.perf_counter()
        frame = predictor.step(image, number * 100_000_000)
        times.append(1e3 * (time.perf_counter() - start))
        if number and time.perf_counter() - begun > STEPS_S:
            break
    return median(times[1:]), len(np.unique(frame.labels[frame.labels > 0]))
