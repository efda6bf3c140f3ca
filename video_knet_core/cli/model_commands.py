"""`video-knet info`, `train`, `export`, `build-engine` and `import-checkpoint`."""

from __future__ import annotations

import re
import shlex
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ..config import STRIDE, ModelConfig, NetworkConfig
from ..config_io import load_yaml, read_yaml, to_dict
from ..engine.model_index import CHECKPOINT, EXPORTED, find_model
from ..engine.selector import default_model_path
from ..installation import config_file
from ..output_files import check_output_file
from ..progress import progress_bar
from ..tasks import TASKS
from .console import UsageError
from .options import (
    SHIPPED,
    MaxFrames,
    OutFolder,
    Values,
    argument,
    choice,
    choices,
    command,
    count,
    option,
    parse_size,
)

if TYPE_CHECKING:
    from ..engine.tensorrt.build import TensorRTLibrary

FLAVOURS = ("tensorrt", "tensorrt-rtx")
MODEL_FILE = "Name of a model, configuration (.yaml), checkpoint (.safetensors) or .onnx."
PRECISION = "fp32, or fp16: half precision for maps, for GPUs; kernels stay float32."
RAW = (
    "Outputs are mask logits and kernels and, but for task semantic, class logits and embeddings, "
    "for evaluation; such a file cannot track."
)
LIKE = "Classes of the data that begin as one of the model with another name."
TARGET = "Compute capabilities to build for, as sm86,sm89,sm120; default: the GPU here."
FLAVOUR = "Default: tensorrt-rtx with --target, else the first of the two that is installed."
PLAN = "Write the engine there, to be copied into the cache folder of a robot."
BUILD_SIZE = "One of the native sizes of the model; default: the first."
WORKSPACE = "Maximum scratch memory of a layer; default: TensorRT's own limit."


# --- info ----------------------------------------------------------------------------------------


@command()
def info(
    model: Annotated[str | None, argument(MODEL_FILE, "FILE", show_default=SHIPPED)] = None,
    size: Annotated[
        Values | None,
        option("Image size to count at; default: the native size.", "HxW", parser=parse_size),
    ] = None,
) -> None:
    """Describe the content of a model file and its cost.

    Of a configuration or a checkpoint also the parameters and the floating point operations of each
    part (needs torch).
    """
    path = find_model(model) if model else default_model_path()
    if path.suffix == ".onnx" and size:
        raise UsageError(f"--size: expected a .yaml or .safetensors, got {path}")
    config = _config_of(path)
    cost = [] if path.suffix == ".onnx" else _cost_table(config, size)
    classes = [
        f"class {row.id:>4} {'thing' if row.is_thing else 'stuff'} {row.name} "
        f"(RGB {', '.join(map(str, row.color))})"
        for row in config.classes
    ]
    print("\n".join([str(path), *_description(config), *cost, *classes]))


def _config_of(path: Path) -> NetworkConfig:
    """The model configuration that is, or is inside, a file of any of the three kinds."""
    if path.suffix == ".onnx":
        from ..engine.model_file import ModelFile

        return ModelFile.read(path).config
    if path.suffix == ".yaml":
        file = config_file(path, "models")
        data = read_yaml(lambda data: data, file)
        if not (isinstance(data, dict) and "network" in data):
            return load_yaml(ModelConfig, file)  # needs no torch
        from ..model.checkpoint import load_network_config

        return load_network_config(file)
    if path.suffix == ".safetensors":
        from ..model.checkpoint import checkpoint_config

        return checkpoint_config(path)
    raise UsageError(f"expected a model file .yaml, .safetensors or .onnx, got {path}")


def _description(config: NetworkConfig) -> list[str]:
    sizes = " or ".join("{} x {}".format(*size) for size in config.sizes)
    facts = [f"task       {config.task}", f"input      {sizes} (height x width), RGB"]
    if isinstance(config, ModelConfig):
        return [*facts, *_parts_of(config)]
    return [*facts, f"network    {to_dict(config)['network']}"]


def _parts_of(config: ModelConfig) -> list[str]:
    """What a Video K-Net is made of."""
    kernels, task = config.kernels, TASKS[config.task]
    slots = f"{kernels.things} things" if task.has_things else f"{config.slots} classes"
    merge = [f"merge      {config.panoptic.merge}"] if len(task.merges) > 1 else []
    return [
        f"backbone   {config.backbone.name}, neck {config.neck.name}, "
        f"{config.neck.channels} channels",
        f"kernels    {slots}, {kernels.stages} stages, pooling {kernels.pooling}, "
        f"position {_switch(kernels.position)}, seeds {_switch(kernels.seeds)}",
        f"video      fusion {_switch(kernels.fusion)}, linking {_switch(kernels.linking)}, "
        f"embedding {_switch(kernels.embedding)}{', sticky slots' * kernels.sticky}",
        *merge,
    ]


def _switch(value: bool | str) -> str:
    """On or off, and of things that are done in several ways, which one."""
    if value in (False, "none"):
        return "off"
    return "on" if value is True else f"on ({value})"


def _cost_table(config: NetworkConfig, size: tuple[int, int] | None) -> list[str]:
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


# --- train, export, import-checkpoint ------------------------------------------------------------


def _kept_of_training(out: Path, **_: object) -> str:
    if not any(out.glob("last.state.*")):  # `RunFiles.state`, which needs torch
        return "no checkpoint was saved yet"
    return f"{out} keeps the last checkpoint, --resume continues from it"


@command(kept=_kept_of_training)
def train(
    config: Annotated[Path, argument("A file, or a shipped one, as street_lite0.", "CONFIG")],
    out: OutFolder,
    data: Annotated[Path | None, option("Root of the data sets.", "DIR")] = None,
    resume: Annotated[bool, option("Continue an interrupted run.", None, "--resume")] = False,
    device: Annotated[str, option("auto, cpu or cuda.", "NAME")] = "auto",
) -> None:
    """Train a model (needs torch).

    On many GPUs: torchrun --nproc-per-node N -m video_knet_core.cli train ...
    """
    path = config_file(config, "train")
    from ..training.trainer import train_from_config

    train_from_config(path, out, data, resume, device)


def _kept_of_finetuning(data: Path, out: Path, **_: object) -> str:
    if not any(out.glob("last.state.*")):
        return "no checkpoint was saved yet"
    best = "best" if (out / "best.safetensors").is_file() else "last"
    again = shlex.join(["video-knet", "finetune", str(data), "--out", str(out), "--resume"])
    use = shlex.join(["video-knet", "export", f"{out}/{best}.safetensors", f"{out}/model.onnx"])
    return f"{out} keeps what was trained; continue: {again}; use it as it is: {use}"


@command(kept=_kept_of_finetuning)
def finetune(
    data: Annotated[
        Path, argument("Folder with classes.yaml or a COCO export, or a COCO index.", "DATA")
    ],
    out: OutFolder,
    steps: Annotated[
        int | None, count("Steps of training; default: by the amount of data.")
    ] = None,
    size: Annotated[
        Values | None,
        option("Input of the model; default: of the images' shape.", "HxW", parser=parse_size),
    ] = None,
    init: Annotated[
        str | None, option("Checkpoint to start from.", "NAME|FILE", show_default=SHIPPED)
    ] = None,
    like: Annotated[Values | None, choices(LIKE, metavar="CLASS=KNOWN,...")] = None,
    threads: Annotated[int | None, count("CPU threads; default: all, at most 8.")] = None,
    skip_empty: Annotated[
        bool, option("Leave out images without an object, of COCO.", None, "--skip-empty")
    ] = False,
    resume: Annotated[
        bool, option("Continue the run in DIR, with --steps for longer.", None, "--resume")
    ] = False,
    device: Annotated[str, option("auto, cpu or cuda.", "NAME")] = "auto",
) -> None:
    """Train the shipped model on data of your own, and export it for the node (needs torch).

    Checks the data, writes model.yaml and train.yaml into DIR, trains, and leaves model.onnx there.
    """
    from ..training import finetune as finetuning

    pairs = [text.partition("=") for text in like or ()]
    for name, mark, known in pairs:
        if not (name and known):
            raise UsageError(f"--like: expected CLASS=KNOWN, got {name + mark + known!r}")
    options = finetuning.FinetuneOptions(
        steps=steps,
        size=(size[0], size[1]) if size else None,
        init=find_model(init, CHECKPOINT) if init else None,
        like={name: known for name, _, known in pairs},
        threads=threads,
        skip_empty=skip_empty,
    )
    if resume:
        finetuning.resume(data, out, options)
    else:
        print("\n".join(finetuning.prepare(data, out, options, device)), flush=True)
    finetuning.train(data, out, device)
    print("\n".join(finetuning.summary(out, data)))


@command()
def self_label(
    data: Annotated[Path, argument("Folder of custom data: classes.yaml, SPLIT/...", "DATA")],
    model: Annotated[str, option("A checkpoint: its name, or *.safetensors.", "NAME|FILE")],
    out: Annotated[Path, option("New folder of the data set that is written.", "DIR")],
    split: Annotated[str, option("Part of the data set.", "NAME")] = "train",
    confidence: Annotated[
        float, option("Probability from which on a pixel is labelled.", "P", min=0.0, max=1.0)
    ] = 0.9,
    things_only: Annotated[
        bool, option("Keep labels of things alone, and make all of stuff.", None, "--things-only")
    ] = False,
    by_colour: Annotated[
        bool, option("Green pixels are vegetation, the bright top is sky.", None, "--by-colour")
    ] = False,
    max_frames: MaxFrames = None,
) -> None:
    """Label unlabelled stuff with a trained network of your own (needs torch).

    Writes a copy of the data set. Things that are not labelled stay so.
    """
    from ..training.self_label import self_label as write_labels

    path = find_model(model, CHECKPOINT)
    counts = write_labels(data, split, path, out, confidence, things_only, by_colour, max_frames)
    print(f"{out}: {counts.frames} frames; of all pixels, labelled as")
    rows = zip(_config_of(path).classes, counts.kept, counts.added, strict=True)
    for info, kept, added in rows:
        before, new = (number / max(counts.pixels, 1) for number in (kept, added))
        print(f"  {info.name:<16} {before:>6.1%} before, {new:>6.1%} added")


@command()
def export(
    checkpoint: Annotated[str, argument("Its name, or *.safetensors.", "CHECKPOINT")],
    out: Annotated[Path, argument("*.onnx", "OUT")],
    precision: Annotated[str, choice(PRECISION, "fp32", "fp16")] = "fp32",
    raw: Annotated[bool, option(RAW, None, "--raw")] = False,
) -> None:
    """Write a checkpoint as ONNX (needs torch)."""
    path = find_model(checkpoint, CHECKPOINT)
    check_output_file(out, [path], ".onnx")
    from ..engine.export import export_checkpoint

    export_checkpoint(path, out, precision, "raw" if raw else "deploy")
    print(out)


@command()
def import_checkpoint(
    source: Annotated[Path, argument("*.pth of the authors.", "SOURCE")],
    out: Annotated[Path, argument("*.safetensors", "OUT")],
    config: Annotated[
        Path, option("Their network: a file, or a shipped one, as kitti_step_r50.", "YAML")
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
    starts = (".".join(key.split(".")[:4]) for key in unused)
    patterns = Counter(re.sub(r"\b\d+\b", "*", start) for start in starts)
    for pattern, number in patterns.items():
        print(f"{number:>5} {pattern}")
    print(out)


# --- build-engine --------------------------------------------------------------------------------


@command()
def build_engine(
    model: Annotated[str, argument("An exported model: its name, or *.onnx.", "MODEL")],
    size: Annotated[Values | None, option(BUILD_SIZE, "HxW", parser=parse_size)] = None,
    target: Annotated[Values | None, choices(TARGET, metavar="SM,SM")] = None,
    flavour: Annotated[str | None, choice(FLAVOUR, *FLAVOURS)] = None,
    out: Annotated[Path | None, option(PLAN, "FILE")] = None,
    workspace: Annotated[int | None, count(WORKSPACE, "MIB")] = None,
) -> None:
    """Build the TensorRT engine of a model ahead of time.

    Puts the engine into the cache, where the node and the other commands find it; else they build
    it when they first open the model. With --target no GPU is needed, and the engine runs on every
    GPU of those compute capabilities (TensorRT-RTX).
    """
    from ..engine.model_file import ModelFile
    from ..engine.tensorrt.plan_cache import PlanCache, read_plan, write_plan
    from ..engine.tensorrt.runtime import plan_key

    source = find_model(model, EXPORTED)
    file = ModelFile.read(source, size=size and (size[0], size[1]))
    if out:
        check_output_file(out, [source], ".plan")
    targets = tuple(sorted({name.strip().lower() for name in target or ()}))
    library = _library(flavour, targets)
    gpu, gpu_targets = ("", targets) if targets else _gpu_of(library)
    onnx = file.content or file.path.read_bytes()
    key = plan_key(file, onnx, library, gpu, gpu_targets)
    started = time.monotonic()

    def build() -> bytes:
        with progress_bar(total=1.0, leave=False, bar_format="{desc} {percentage:.0f}%") as bar:

            def report(phase: str, fraction: float) -> None:
                bar.set_description_str(phase[:60], refresh=False)
                bar.update(fraction - bar.n)

            return library.build_plan(file.name, onnx, targets, report, workspace)

    if path := out:
        plan = build()
        write_plan(path, key, plan)  # not read again: some file systems have no permissions
    elif path := PlanCache().get_or_build(key, build, lambda plan, file: file):
        key, plan = read_plan(path)
    else:
        raise UsageError(f"the engine could not be cached in {PlanCache().folder}")
    where = ", ".join(key.targets) + (f" ({key.gpu})" if key.gpu else "")
    print(
        f"{path}\n{key.model} {key.precision} {key.shape[0]} x {key.shape[1]}, {key.flavour} "
        f"{key.version}, for {where}: {len(plan) / 1e6:.1f} MB in "
        f"{time.monotonic() - started:.1f} s"
    )


def _library(flavour: str | None, targets: tuple[str, ...]) -> TensorRTLibrary:
    """The requested flavour, else the first that is installed."""
    from ..engine.base import BackendError
    from ..engine.tensorrt.build import TensorRTLibrary

    if flavour or targets:
        return TensorRTLibrary(flavour or "tensorrt-rtx")
    reasons = []
    for name in FLAVOURS:
        try:
            return TensorRTLibrary(name)
        except BackendError as error:
            reasons.append(str(error))
    raise BackendError("; ".join(reasons))


def _gpu_of(library: TensorRTLibrary) -> tuple[str, tuple[str, ...]]:
    """Name and target of the GPU here."""
    from ..engine.base import BackendError
    from ..engine.tensorrt import cuda

    try:
        gpu = cuda.find_gpu()
    except BackendError as error:
        known = ",".join(library.known_targets)
        hint = f"; without a GPU name --target, of {known}" if known else ""
        raise BackendError(f"{error}{hint}") from None
    library.check_gpu(gpu)
    return gpu.name, (gpu.target,)
