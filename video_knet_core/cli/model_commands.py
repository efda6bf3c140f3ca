"""`video-knet info`, `train`, `export`, `build-engine` and `import-checkpoint`."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from ..config import STRIDE, ModelConfig
from ..config_io import load_yaml
from ..engine.selector import default_model_path
from ..installation import config_file
from ..output_files import check_output_file
from .console import UsageError
from .options import Names, OutFolder, Size, command, one_of, parse_size, positive, some_of

if TYPE_CHECKING:
    from ..engine.tensorrt.build import TensorRTLibrary
    from ..engine.tensorrt.plan_cache import PlanKey

Checkpoint = Annotated[Path, Argument(metavar="CHECKPOINT", help="*.safetensors")]
FLAVOURS = ("tensorrt", "tensorrt-rtx")


# --- info ----------------------------------------------------------------------------------------


@command()
def info(
    model: Annotated[
        Path | None,
        Argument(
            metavar="FILE",
            help="Configuration (.yaml), checkpoint (.safetensors) or exported model (.onnx).",
            show_default="the shipped model",
        ),
    ] = None,
    size: Annotated[
        Size | None,
        Option(
            metavar="HxW",
            help="Image size to count operations at; default: the native size.",
            parser=parse_size,
        ),
    ] = None,
) -> None:
    """Describe the content of a model file and its cost.

    Of a configuration or a checkpoint also the parameters and the floating point operations of each
    part (needs torch).
    """
    path = model or default_model_path()
    if path.suffix == ".onnx" and size:
        raise UsageError(f"--size: expected a .yaml or .safetensors, got {path}")
    config = _config_of(path)
    cost = [] if path.suffix == ".onnx" else _cost_table(config, size)
    print("\n".join([str(path), *_description(config), *cost, *_class_rows(config)]))


def _config_of(path: Path) -> ModelConfig:
    """The model configuration that is, or is inside, a file of any of the three kinds."""
    if path.suffix == ".onnx":
        from ..engine.model_file import ModelFile

        return ModelFile.read(path).config
    if path.suffix == ".yaml":
        return load_yaml(ModelConfig, config_file(path, "models"))
    if path.suffix == ".safetensors":
        from ..model.checkpoint import checkpoint_config

        return checkpoint_config(path)
    raise UsageError(f"expected a model file .yaml, .safetensors or .onnx, got {path}")


def _description(config: ModelConfig) -> list[str]:
    kernels = config.kernels
    switches = ", ".join(
        f"{name} {_switch(getattr(kernels, name))}" for name in ("fusion", "linking", "embedding")
    )
    kind = "classes" if config.task == "semantic" else "things"
    count = config.slots if config.task == "semantic" else kernels.things
    merge = [f"merge      {config.panoptic.merge}"] if config.task == "panoptic" else []
    return [
        f"task       {config.task}",
        f"input      {config.height} x {config.width} (height x width), RGB",
        f"backbone   {config.backbone.name}, neck {config.neck.name}, "
        f"{config.neck.channels} channels",
        f"kernels    {count} {kind}, {kernels.stages} stages, pooling {kernels.pooling}, "
        f"position {_switch(kernels.position)}, seeds {_switch(kernels.seeds)}",
        f"video      {switches}",
        *merge,
    ]


def _switch(value: bool | str) -> str:
    """On or off, and of things that are done in several ways, which one."""
    if value in (False, "none"):
        return "off"
    return "on" if value is True else f"on ({value})"


def _cost_table(config: ModelConfig, size: Size | None) -> list[str]:
    """Parameters and operations of each part at `size`, or else the native size."""
    from ..model.cost import model_cost

    height, width = size or (config.height, config.width)
    rows = model_cost(config, height, width)
    padded = " x ".join(str(n + -n % STRIDE) for n in (height, width))
    return [
        f"cost       of one step with previous kernels at {height} x {width} (padded to {padded});",
        "           1 GFLOP = 1e9 floating point operations, a multiply-add counts as 2",
        *(f"  {r.part:<24}{r.parameters / 1e6:>9.3f} M{r.gflops:>11,.2f} GFLOP" for r in rows),
    ]


def _class_rows(config: ModelConfig) -> Iterator[str]:
    for row in config.classes:
        kind = "thing" if row.is_thing else "stuff"
        color = ", ".join(map(str, row.color))
        yield f"class {row.id:>4} {kind} {row.name} (RGB {color})"


# --- train, export, import-checkpoint ------------------------------------------------------------


def _kept_of_training(out: Path, **_: object) -> str:
    if not any(out.glob("last.state.*")):  # `RunFiles.state`, which needs torch
        return "no checkpoint was saved yet"
    return f"{out} keeps the last checkpoint, --resume continues from it"


@command(kept=_kept_of_training)
def train(
    config: Annotated[Path, Argument(help="A file, or a shipped one, as street_lite0.")],
    out: OutFolder,
    data: Annotated[Path | None, Option(metavar="DIR", help="Root of the data sets.")] = None,
    resume: Annotated[bool, Option("--resume", help="Continue an interrupted run.")] = False,
    device: Annotated[str, Option(metavar="NAME", help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train a model (needs torch).

    On many GPUs: torchrun --nproc-per-node N -m video_knet_core.cli train ...
    """
    path = config_file(config, "train")
    from ..training.trainer import train_from_config

    train_from_config(path, out, data, resume, device)


@command()
def export(
    checkpoint: Checkpoint,
    out: Annotated[Path, Argument(metavar="OUT", help="*.onnx")],
    precision: Annotated[
        str,
        Option(
            metavar="NAME",
            help="fp32, or fp16: half precision for maps, for GPUs; kernels stay float32.",
            **one_of("fp32", "fp16"),
        ),
    ] = "fp32",
    raw: Annotated[
        bool,
        Option(
            "--raw",
            help="Outputs are mask logits and kernels and, but for task semantic, class logits and "
            "embeddings, for evaluation; such a file cannot track.",
        ),
    ] = False,
) -> None:
    """Write a checkpoint as ONNX (needs torch)."""
    check_output_file(out, [checkpoint], ".onnx")
    from ..engine.export import export_checkpoint

    export_checkpoint(checkpoint, out, precision, "raw" if raw else "deploy")
    print(out)


@command()
def import_checkpoint(
    source: Annotated[Path, Argument(metavar="SOURCE", help="*.pth of the authors.")],
    out: Annotated[Path, Argument(metavar="OUT", help="*.safetensors")],
    config: Annotated[
        Path,
        Option(
            metavar="YAML",
            help="The network of the weights: a file, or a shipped one, as kitti_step_r50.",
        ),
    ],
) -> None:
    """Convert the authors' weights to a checkpoint (needs torch).

    Reads plain tensors only; a file that would run code is rejected.
    """
    model_config = load_yaml(ModelConfig, config_file(config, "models"))
    check_output_file(out, [source, config], ".safetensors")
    from ..model.checkpoint import save_model, sha256
    from ..model.official import import_official, official_difference, read_official, translate

    if difference := official_difference(source, model_config.classes):
        raise UsageError(f"the classes of {source} are not those of {config}: {difference}")
    state = read_official(source)
    unused = translate(state)[1]
    facts = {"source": source.name, "source_sha256": sha256(source)}
    save_model(import_official(state, model_config), out, **facts)
    print(f"{len(state)} keys read, {len(state) - len(unused)} used")
    print(f"{len(unused)} that the authors' network never uses" + (":" if unused else ""))
    for pattern, count in _patterns(unused).items():
        print(f"{count:>5} {pattern}")
    print(out)


def _patterns(keys: Iterable[str]) -> Counter[str]:
    """How many of the names begin alike: their first four words, with * for the numbers."""
    starts = (".".join(key.split(".")[:4]) for key in keys)
    return Counter(re.sub(r"\b\d+\b", "*", start) for start in starts)


# --- build-engine --------------------------------------------------------------------------------


@command()
def build_engine(
    model: Annotated[Path, Argument(metavar="MODEL.onnx", help="An exported model.")],
    target: Annotated[
        Names | None,
        Option(
            metavar="SM,SM",
            help="Compute capabilities to build for, as sm86,sm89,sm120; default: the GPU here.",
            **some_of(),
        ),
    ] = None,
    flavour: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="tensorrt or tensorrt-rtx; default: tensorrt-rtx with --target, else the first of "
            "them that is installed.",
            **one_of(*FLAVOURS),
        ),
    ] = None,
    out: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Write the engine there, to be copied into the cache folder of a robot.",
        ),
    ] = None,
    workspace: Annotated[
        int | None,
        Option(
            metavar="MIB",
            parser=positive,
            help="Maximum scratch memory of a layer; default: TensorRT's own limit.",
        ),
    ] = None,
) -> None:
    """Build the TensorRT engine of a model ahead of time.

    Puts the engine into the cache, where the node and the other commands find it; else they build
    it when they first open the model. With --target no GPU is needed, and the engine runs on every
    GPU of those compute capabilities (TensorRT-RTX).
    """
    from ..engine.model_file import ModelFile
    from ..engine.tensorrt.build import build_from_bytes
    from ..engine.tensorrt.plan_cache import EngineCache, read_plan, write_plan
    from ..engine.tensorrt.runtime import plan_key

    file = ModelFile.read(model)
    if out:
        check_output_file(out, [model], ".plan")
    targets = tuple(sorted({name.strip().lower() for name in target or ()}))
    library = _library(flavour, targets)
    gpu, gpu_targets = _gpu_of(library, targets)
    onnx = file.path.read_bytes()
    key = plan_key(file, onnx, library, gpu, gpu_targets)
    started = time.monotonic()

    def build() -> bytes:
        progress = _ProgressLine()
        try:
            return build_from_bytes(library, file.name, onnx, targets, progress, workspace)
        finally:
            progress.end()

    if out:
        plan = build()
        write_plan(out, key, plan)
        print(_summary(out, key, len(plan), time.monotonic() - started))
        return
    cache = EngineCache()
    size, path = cache.obtain(key, build, len)
    if path is None:
        raise UsageError(f"the engine could not be cached in {cache.folder}")
    built_for = read_plan(path)[0]
    print(_summary(path, built_for, size, time.monotonic() - started))


def _library(flavour: str | None, targets: tuple[str, ...]) -> TensorRTLibrary:
    """The flavour asked for, else the first that is installed."""
    from ..engine.base import BackendError
    from ..engine.tensorrt.build import load_library

    if flavour or targets:
        return load_library(flavour or "tensorrt-rtx")
    reasons = []
    for name in FLAVOURS:
        try:
            return load_library(name)
        except BackendError as error:
            reasons.append(str(error))
    raise BackendError("; ".join(reasons))


def _gpu_of(library: TensorRTLibrary, targets: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
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
