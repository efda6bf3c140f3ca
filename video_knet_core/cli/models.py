"""`video-knet info`, `export` and `import-checkpoint`."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..config import STRIDE, ModelConfig
from ..config_io import load_yaml
from ..engine.selector import default_model_path
from ..installation import config_file
from ..output_files import check_output_file
from ..tasks import TASKS
from .arguments import size
from .errors import UsageError, needs_torch


def add_info(commands: argparse._SubParsersAction) -> None:
    """Add `info`."""
    info = commands.add_parser(
        "info",
        help="say what a model file holds and what it costs",
        description="Of a configuration or a checkpoint also the parameters and the floating point "
        "operations of each part (needs torch).",
    )
    info.add_argument(
        "model",
        type=Path,
        nargs="?",
        metavar="FILE",
        help="configuration (.yaml), checkpoint (.safetensors) or exported model (.onnx); "
        "default: the shipped model",
    )
    info.add_argument(
        "--size",
        type=size,
        metavar="HxW",
        help="image size to count operations at; default: the native size",
    )
    info.set_defaults(run=_info)


def add_export(commands: argparse._SubParsersAction) -> None:
    """Add `export`."""
    export = commands.add_parser("export", help="write a checkpoint as ONNX (needs torch)")
    export.add_argument("checkpoint", type=Path, help="*.safetensors")
    export.add_argument("out", type=Path, help="*.onnx")
    export.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        default="fp32",
        help="fp16: half precision for maps, for GPUs; kernels stay float32. Default: fp32",
    )
    export.add_argument(
        "--raw",
        action="store_true",
        help="put out mask logits and kernels and, but for task semantic, class logits and "
        "embeddings, for evaluation; such a file cannot track",
    )
    export.set_defaults(run=_export)


def add_import(commands: argparse._SubParsersAction) -> None:
    """Add `import-checkpoint`."""
    importer = commands.add_parser(
        "import-checkpoint",
        help="turn the authors' weights into a checkpoint (needs torch)",
        description="Reads plain tensors only; a file that would run code is refused.",
    )
    importer.add_argument("source", type=Path, help="*.pth of the authors")
    importer.add_argument("out", type=Path, help="*.safetensors")
    importer.add_argument(
        "--config",
        type=Path,
        required=True,
        metavar="YAML",
        help="what the weights are of: a file, or a shipped one, as kitti_step_r50",
    )
    importer.set_defaults(run=_import_checkpoint)


def _info(arguments: argparse.Namespace) -> None:
    path = arguments.model or default_model_path()
    if path.suffix == ".onnx" and arguments.size:
        raise UsageError(f"--size is for .yaml and .safetensors, found {path}")
    config = _config_of(path)
    cost = [] if path.suffix == ".onnx" else _cost_table(config, arguments.size)
    print("\n".join([str(path), *_description(config), *cost, *_class_rows(config)]))


def _config_of(path: Path) -> ModelConfig:
    """The model configuration that is, or is inside, a file of any of the three kinds."""
    if path.suffix == ".onnx":
        from ..engine.model_file import ModelFile

        return ModelFile.read(path).config
    if path.suffix == ".yaml":
        return load_yaml(ModelConfig, config_file(path, "models"))
    if path.suffix == ".safetensors":
        with needs_torch("train"):
            from ..model.checkpoint import checkpoint_config

            return checkpoint_config(path)
    raise UsageError(f"a model file ends in .yaml, .safetensors or .onnx, found {path}")


def _description(config: ModelConfig) -> list[str]:
    kernels = config.kernels
    switches = ", ".join(
        f"{name} {_switch(getattr(kernels, name))}" for name in ("fusion", "linking", "embedding")
    )
    task = TASKS[config.task]
    kind, count = ("things", kernels.things) if task.has_things else ("classes", config.slots)
    merge = [f"merge      {config.panoptic.merge}"] if len(task.merges) > 1 else []
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


def _cost_table(config: ModelConfig, size: tuple[int, int] | None) -> list[str]:
    """Parameters and operations of each part at `size`, or else the native size."""
    height, width = size or (config.height, config.width)
    with needs_torch("train"):
        from ..model.cost import model_cost

        rows = model_cost(config, height, width)
    padded = " x ".join(str(n + -n % STRIDE) for n in (height, width))
    return [
        f"cost       of one step with previous kernels at {height} x {width} (padded to {padded});",
        "           1 GFLOP = 1e9 floating point operations, a multiply-add counts as 2",
        *(f"  {r.part:<24}{r.parameters / 1e6:>9.3f} M{r.gflops:>11,.2f} GFLOP" for r in rows),
    ]


def _class_rows(config: ModelConfig) -> Iterator[str]:
    for info in config.classes:
        kind = "thing" if info.is_thing else "stuff"
        color = ", ".join(map(str, info.color))
        yield f"class {info.id:>4} {kind} {info.name} (RGB {color})"


def _export(arguments: argparse.Namespace) -> None:
    check_output_file(arguments.out, [arguments.checkpoint], ".onnx")
    with needs_torch("export"):
        from ..engine.export import export_checkpoint

        form = "raw" if arguments.raw else "deploy"
        export_checkpoint(arguments.checkpoint, arguments.out, arguments.precision, form)
    print(arguments.out)


def _import_checkpoint(arguments: argparse.Namespace) -> None:
    config = load_yaml(ModelConfig, config_file(arguments.config, "models"))
    check_output_file(arguments.out, [arguments.source, arguments.config], ".safetensors")
    with needs_torch("train"):
        from ..model.checkpoint import save_model, sha256
        from ..model.official import (
            import_official,
            official_difference,
            read_official,
            translate,
        )

        if difference := official_difference(arguments.source, config.classes):
            raise UsageError(
                f"the classes of {arguments.source} are not those of {arguments.config}: "
                f"{difference}"
            )
        state = read_official(arguments.source)
        unused = translate(state)[1]
        facts = {"source": arguments.source.name, "source_sha256": sha256(arguments.source)}
        save_model(import_official(state, config), arguments.out, **facts)
    print(f"{len(state)} keys read, {len(state) - len(unused)} used")
    print(f"{len(unused)} that the authors' network never uses" + (":" if unused else ""))
    for pattern, count in _patterns(unused).items():
        print(f"{count:>5} {pattern}")
    print(arguments.out)


def _patterns(keys: Iterable[str]) -> Counter[str]:
    """How many of the names begin alike: their first four words, with * for the numbers."""
    starts = (".".join(key.split(".")[:4]) for key in keys)
    return Counter(re.sub(r"\b\d+\b", "*", start) for start in starts)
