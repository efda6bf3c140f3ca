"""From an exported model to a TensorRT plan, with TensorRT 10, TensorRT 11 or TensorRT-RTX.

Precision is that of the ONNX file and nothing else: every network is strongly typed. TensorRT 10
has a flag for that, and rejects the builder's FP16 flag then; TensorRT 11 and TensorRT-RTX have
neither flag and are always so. A version before 10 would choose the precision of each layer by
itself, also of those that the exporter keeps in float32 for accuracy, and has no int64 tensors,
so that it is rejected. TF32 is off: a float32 layer computes in float32.
"""

from __future__ import annotations

import importlib
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import cache
from typing import Any

from ..base import BackendError, ModelError, ProgressCallback
from .cuda import Gpu

_MODULES = {
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
"""Flavour -> names under which its Python package is found."""
_OLDEST = 10
"""Major version of TensorRT that keeps the precision of the model."""
_LOG_PERIOD_S = 5.0
"""Between two log lines about the progress of a build."""

_log = logging.getLogger(__name__)


class _UnsupportedModelError(ModelError, BackendError):
    """TensorRT cannot build this model. Both a model's fault and a backend's: others may run it."""


class TensorRTLibrary:
    """One TensorRT, loaded: "tensorrt" or "tensorrt-rtx".

    Raises:
        BackendError: it is not installed, cannot be loaded or is too old.
        ValueError: there is no such flavour.
    """

    def __init__(self, flavour: str) -> None:
        if flavour not in _MODULES:
            raise ValueError(f"flavour: expected one of {list(_MODULES)}, got {flavour!r}")
        self.flavour = flavour
        self.trt = _import(flavour)
        self.version = str(self.trt.__version__)
        self.title = f"TensorRT{'-RTX' if flavour == 'tensorrt-rtx' else ''} {self.version}"
        """Name and version for a person."""
        if flavour == "tensorrt" and int(self.version.split(".")[0]) < _OLDEST:
            raise BackendError(
                f"expected TensorRT {_OLDEST} or newer, got {self.version}, which would not keep "
                "the precision of the model"
            )
        self.logger = _logger(self.trt)
        """Every object of TensorRT is created with it."""
        names = getattr(getattr(self.trt, "ComputeCapability", None), "__members__", {})
        self.known_targets = [name.lower() for name in names if re.fullmatch(r"SM\d+", name)]
        """Compute capabilities that it builds for ahead of time, as "sm86"."""

    def check_gpu(self, gpu: Gpu) -> None:
        """BackendError if its plans do not run on the GPU; it would report that after the build.

        TensorRT-RTX runs on the GPUs that it can build for ahead of time, and on newer ones.
        """
        known = self.known_targets
        newest = max((int(target[2:]) for target in known), default=0)
        if self.flavour == "tensorrt-rtx" and not (
            gpu.target in known or int(gpu.target[2:]) >= newest
        ):
            raise BackendError(
                f"{self.title} runs on {', '.join(known)} and newer GPUs, "
                f"got {gpu.name} ({gpu.target})"
            )

    def last_errors(self) -> str:
        """The errors since the last call."""
        errors = dict.fromkeys(self.logger.errors)
        self.logger.errors.clear()
        return "; ".join(errors) or "no reason was reported"

    def build_plan(
        self,
        name: str,
        onnx: bytes,
        targets: Sequence[str] = (),
        progress: ProgressCallback | None = None,
        workspace_mib: int | None = None,
    ) -> bytes:
        """Build a plan, which takes seconds to minutes.

        Args:
            name: of the model, for messages.
            onnx: content of the model file.
            targets: compute capabilities, as ("sm86", "sm89"), that TensorRT-RTX builds for, with
                no need of a GPU. With none: for the GPU of this machine.
            progress: called from any thread; an exception from it stops the build and is raised
                here.
            workspace_mib: maximum scratch memory of a layer in MiB; default: TensorRT's own.

        Raises:
            BackendError: the GPU is missing, a target is unknown, or the build failed.
            ModelError: TensorRT lacks an operator of the model; a BackendError too.
        """
        capabilities = [self._capability(target) for target in targets]
        self.last_errors()
        try:
            builder = self.trt.Builder(self.logger)
        except (TypeError, RuntimeError):  # how pybind reports a null pointer
            raise BackendError(f"{self.title} does not start: {self.last_errors()}") from None
        strong = getattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        network = builder.create_network(0 if strong is None else 1 << int(strong))
        parser = self.trt.OnnxParser(network, self.logger)
        if not parser.parse(onnx):
            errors = [parser.get_error(i) for i in range(parser.num_errors)]
            reasons = "; ".join(dict.fromkeys(_reason(error) for error in errors))
            raise _UnsupportedModelError(
                f"{self.title} cannot read the model {name}: {reasons or self.last_errors()}"
            )
        config = builder.create_builder_config()
        config.clear_flag(self.trt.BuilderFlag.TF32)
        if workspace_mib is not None:
            config.set_memory_pool_limit(self.trt.MemoryPoolType.WORKSPACE, workspace_mib << 20)
        if capabilities:
            config.num_compute_capabilities = len(capabilities)
            for index, capability in enumerate(capabilities):
                config.set_compute_capability(capability, index)
        monitor = _progress_monitor(self.trt, f"building {name} with {self.title}", progress)
        config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
        del parser  # it owns weights that the network points to
        if monitor.failure is not None:
            raise monitor.failure
        if plan is None:
            raise BackendError(f"{self.title} cannot build {name}: {self.last_errors()}")
        return bytes(plan)

    def _capability(self, target: str) -> Any:
        known = self.known_targets
        if not known:
            raise BackendError(
                f"{self.title} builds only for the GPU of this machine, got target {target!r}; "
                "tensorrt-rtx builds ahead of time"
            )
        if target not in known:
            raise BackendError(f"{self.title} builds for {', '.join(known)}, got {target!r}")
        return getattr(self.trt.ComputeCapability, target.upper())


def _import(flavour: str) -> Any:
    reasons = []
    for name in _MODULES[flavour]:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:  # not there, or its libraries are not
            reasons.append(f"{name} cannot be imported: {error}")
    raise BackendError(f"{'; '.join(reasons)} (docs/how-to/engine.md: how to install it)")


@cache
def _logger(trt: Any) -> Any:
    """One logger a process and library: TensorRT keeps the first one."""
    levels = {
        trt.ILogger.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.ERROR: logging.ERROR,
        trt.ILogger.WARNING: logging.INFO,  # about what we mean to do, as int64 outputs
    }

    class Logger(trt.ILogger):
        """To our log; errors are stored too, because TensorRT's calls only return None or False."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=5)

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity, logging.DEBUG)
            if level == logging.ERROR:
                self.errors.append(message)
            _log.log(level, "%s: %s", trt.__name__, message)

    return Logger()


def _reason(error: Any) -> str:
    """Operator, node and text of an error of the parser."""
    operator, node = error.node_operator(), error.node_name()
    where = f"{operator or 'graph'} {node!r}" if node else operator or "graph"
    return f"{where}: {error.desc()}"


def _progress_monitor(trt: Any, title: str, progress: ProgressCallback | None) -> Any:
    """Passes the progress of a build on, to the caller and at intervals to the log.

    TensorRT calls it from several threads, and an exception must not reach TensorRT: it is stored
    in `failure`, and the build stops.
    """

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.failure: BaseException | None = None
            self._lock = threading.Lock()
            self._steps: dict[str, int] = {}
            self._logged = time.monotonic()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = max(num_steps, 1)
            self._report(phase_name, 0.0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._report(phase_name, min(1.0, (step + 1) / self._steps.get(phase_name, 1)))
            return self.failure is None

        def phase_finish(self, phase_name: str) -> None:
            self._report(phase_name, 1.0)

        def _report(self, phase: str, fraction: float) -> None:
            with self._lock:
                if self.failure is not None:
                    return
                try:
                    now = time.monotonic()
                    if now - self._logged >= _LOG_PERIOD_S:
                        self._logged = now
                        _log.info("%s: %s %.0f %%", title, phase, 100 * fraction)
                    if progress is not None:
                        progress(phase, fraction)
                except BaseException as error:  # Ctrl-C too
                    self.failure = error

    return Monitor()
