"""`video-knet build-engine`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..output_files import check_output_file
from .arguments import positive
from .errors import UsageError

if TYPE_CHECKING:
    from ..engine.tensorrt.build import Library
    from ..engine.tensorrt.plan_cache import PlanKey

FLAVOURS = ("tensorrt", "tensorrt-rtx")


def add_build_engine(commands: argparse._SubParsersAction) -> None:
    """Add `build-engine`."""
    build = commands.add_parser(
        "build-engine",
        help="build the TensorRT engine of a model ahead of time",
        description="Puts the engine into the cache, where the node and the other commands find "
        "it; else they build it when they first open the model. With --target no GPU is needed, "
        "and the engine runs on every GPU of those compute capabilities (TensorRT-RTX).",
    )
    build.add_argument("model", type=Path, metavar="MODEL.onnx", help="an exported model")
    build.add_argument(
        "--target",
        type=_targets,
        default=(),
        metavar="SM,SM,...",
        help="compute capabilities to build for, as sm86,sm89,sm120; default: the GPU here",
    )
    build.add_argument(
        "--flavour",
        choices=FLAVOURS,
        help="default: tensorrt-rtx with --target, else the first of them that is installed",
    )
    build.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the engine there, to be copied into the cache folder of a robot",
    )
    build.add_argument(
        "--workspace",
        type=positive,
        metavar="MIB",
        help="most scratch memory of a layer; default: TensorRT's own limit",
    )
    build.set_defaults(run=_build_engine)


def _targets(text: str) -> tuple[str, ...]:
    """Names of compute capabilities, each once; TensorRT says which there are."""
    names = [name.strip().lower() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"must be names as sm86,sm89, found {text!r}")
    return tuple(sorted(set(names)))


def _build_engine(arguments: argparse.Namespace) -> None:
    from ..engine.model_file import ModelFile
    from ..engine.tensorrt.build import build_from_bytes
    from ..engine.tensorrt.plan_cache import EngineCache, read_plan, write_plan
    from ..engine.tensorrt.runtime import plan_key

    model = ModelFile.read(arguments.model)
    if arguments.out:
        check_output_file(arguments.out, [arguments.model], ".plan")
    library = _library(arguments)
    gpu, targets = _gpu_of(library, arguments.target)
    onnx = model.path.read_bytes()
    key = plan_key(model, onnx, library, gpu, targets)
    started = time.monotonic()

    def build() -> bytes:
        progress = _ProgressLine()
        try:
            return build_from_bytes(
                library, model.name, onnx, arguments.target, progress, arguments.workspace
            )
        finally:
            progress.end()

    if arguments.out:
        plan = build()
        write_plan(arguments.out, key, plan)
        print(_summary(arguments.out, key, len(plan), time.monotonic() - started))
        return
    cache = EngineCache()
    size, path = cache.obtain(key, build, len)
    if path is None:
        raise UsageError(f"the engine could not be kept in {cache.folder}")
    built_for = read_plan(path)[0]
    print(_summary(path, built_for, size, time.monotonic() - started))


def _library(arguments: argparse.Namespace) -> Library:
    """The flavour asked for, else one that can do it."""
    from ..engine.base import BackendError
    from ..engine.tensorrt.build import load_library

    if arguments.flavour or arguments.target:
        return load_library(arguments.flavour or "tensorrt-rtx")
    reasons = []
    for flavour in FLAVOURS:
        try:
            return load_library(flavour)
        except BackendError as error:
            reasons.append(str(error))
    raise BackendError("; ".join(reasons))


def _gpu_of(library: Library, targets: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Name of the GPU that is built for, empty with targets, and what it must be able to run."""
    from ..engine.base import BackendError
    from ..engine.tensorrt import cuda

    if targets:
        return "", targets
    try:
        gpu = cuda.find_gpu()
    except BackendError as error:
        known = ",".join(library.known_targets)
        hint = f"; without a GPU name --target, of {known}" if known else ""
        raise BackendError(f"{error}{hint}") from None
    library.check_gpu(gpu)
    return gpu.name, (gpu.target,)


def _summary(path: Path, key: PlanKey, size: int, seconds: float) -> str:
    where = ", ".join(key.targets) + (f" ({key.gpu})" if key.gpu else "")
    return (
        f"{path}\n{key.model} {key.precision} {key.shape[0]} x {key.shape[1]}, {key.flavour} "
        f"{key.version}, for {where}: {size / 1e6:.1f} MB in {seconds:.1f} s"
    )


class _ProgressLine:
    """The progress of a build in one line of a terminal; silent elsewhere, where there is a log."""

    def __init__(self) -> None:
        self._shown = False

    def __call__(self, phase: str, fraction: float) -> None:
        if sys.stderr.isatty():
            self._shown = True
            print(f"\r\x1b[K{phase[:60]} {fraction:.0%}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Make room for the next line."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
