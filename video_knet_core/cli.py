"""The `video-knet` command. Each subcommand imports what it needs when it runs."""

from __future__ import annotations

import argparse
import logging
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .config import ASSOCIATIONS, STRIDE, ConfigError, ModelConfig, TrackingConfig, load_yaml
from .data.frames import FrameError
from .engine.runtime import BackendError, ModelError, default_model_path, open_runtime

if TYPE_CHECKING:
    from .engine.runtime import Runtime

EXIT_FAULTS = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
LONGEST_MESSAGE = 2000
"""Characters. Weights of another network miss every key there is, too many to read."""


class UsageError(Exception):
    """What the user asked for cannot be done; the message says why."""


BAD_INPUT = (
    *(UsageError, ModelError, BackendError, ConfigError, FrameError),
    *(OSError, FloatingPointError),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 1 for faulty data, or 2 for bad usage or input."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return arguments.run(arguments) or 0
    except BAD_INPUT as error:
        print(f"video-knet {arguments.command}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="video-knet", description="Online video panoptic segmentation with ids that stay."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_track(commands)
    _add_eval(commands)
    _add_info(commands)
    _add_train(commands)
    _add_export(commands)
    _add_import(commands)
    _add_validate(commands)
    return parser


def _add_track(commands: argparse._SubParsersAction) -> None:
    track = commands.add_parser(
        "track",
        help="segment and track a video",
        description="Writes DIR/overlay.mp4, DIR/labels/NNNNNN.png (16-bit panoptic labels, 0 = "
        "none) and DIR/tracks.jsonl (one line per frame: what each label is). An earlier result "
        "in DIR is replaced. Ctrl-C ends the video early.",
    )
    track.add_argument(
        "video", help="video file, folder of images, webcam index, or synthetic[:seed]"
    )
    track.add_argument("--out", type=Path, required=True, metavar="DIR")
    track.add_argument("--max-frames", type=_positive, metavar="N", help="stop after N frames")
    _add_model(track)
    _add_association(track)
    track.set_defaults(run=_track)


def _add_eval(commands: argparse._SubParsersAction) -> None:
    evaluate = commands.add_parser("eval", help="measure a model on labelled data")
    data = evaluate.add_subparsers(dest="data", required=True, metavar="DATA")
    synthetic = data.add_parser("synthetic", help="held-out synthetic streets: STQ and id switches")
    synthetic.add_argument("--clips", type=_positive, default=10, metavar="N")
    synthetic.add_argument("--frames", type=_positive, default=60, metavar="T")
    _add_model(synthetic)
    _add_association(synthetic)
    synthetic.set_defaults(run=_eval_synthetic)
    camvid = data.add_parser("camvid", help="a CamVid clip with 11 classes: mIoU")
    camvid.add_argument(
        "--root", type=Path, required=True, metavar="DIR", help="holds images/ and labels/"
    )
    _add_model(camvid)
    camvid.set_defaults(run=_eval_camvid)
    _add_eval_dataset(data)


def _add_eval_dataset(data: argparse._SubParsersAction) -> None:
    dataset = data.add_parser(
        "dataset",
        help="a panoptic data set (docs/data.md): STQ, VPQ and the IoU of the classes",
        description="Of a model, or with --predictions of maps on disk: DIR/VIDEO/FRAME.png with "
        "R = class, G * 256 + B = instance.",
    )
    dataset.add_argument("name", help="kitti_step, cityscapes_vps, vipseg or own")
    dataset.add_argument("root", type=Path, metavar="PATH", help="the folder of the data set")
    dataset.add_argument("--split", default="val", help="default: val")
    dataset.add_argument("--predictions", type=Path, metavar="DIR", help="score maps, run no model")
    dataset.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    _add_model(dataset)
    _add_association(dataset)
    dataset.set_defaults(run=_eval_dataset)


def _add_info(commands: argparse._SubParsersAction) -> None:
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
        type=_size,
        metavar="HxW",
        help="image size to count operations at; default: the native size",
    )
    info.set_defaults(run=_info)


def _add_train(commands: argparse._SubParsersAction) -> None:
    train = commands.add_parser("train", help="train a model (needs torch)")
    train.add_argument("config", type=Path, help="config/train/*.yaml")
    train.add_argument("--out", type=Path, required=True, metavar="DIR")
    train.add_argument("--data", type=Path, metavar="DIR", help="root of the data sets")
    train.add_argument("--resume", action="store_true", help="go on where DIR stopped")
    train.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    train.set_defaults(run=_train)


def _add_export(commands: argparse._SubParsersAction) -> None:
    export = commands.add_parser("export", help="write a checkpoint as ONNX (needs torch)")
    export.add_argument("checkpoint", type=Path, help="*.safetensors")
    export.add_argument("out", type=Path, help="*.onnx")
    export.set_defaults(run=_export)


def _add_import(commands: argparse._SubParsersAction) -> None:
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
        help="what the weights are of: config/models/*.yaml",
    )
    importer.set_defaults(run=_import_checkpoint)


def _add_validate(commands: argparse._SubParsersAction) -> None:
    validate = commands.add_parser(
        "validate-data",
        help="read a labelled data set and name what is wrong with it",
        description="Finds missing frames, sizes that differ, ids out of range and empty masks. "
        "The exit code is 0 if there is no fault, 1 if there are some.",
    )
    validate.add_argument(
        "dataset", help="kitti_step, cityscapes_vps, vipseg, vspw, youtube_vis_2019 or own"
    )
    validate.add_argument("root", type=Path, metavar="PATH", help="the folder of the data set")
    validate.add_argument("--split", help="train, val (valid) or test; default: all there are")
    validate.set_defaults(run=_validate)


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model", type=Path, metavar="FILE", help=".onnx or .safetensors; default: the shipped one"
    )
    command.add_argument("--threads", type=_positive, default=2, metavar="N", help="default: 2")


def _add_association(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--association",
        choices=ASSOCIATIONS,
        default=TrackingConfig.association,
        help="the tracker: ours (default), or the authors' (quasi_dense)",
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {value}")
    return value


def _size(text: str) -> tuple[int, int]:
    """Height and width of HxW, at most five digits each: larger ones overflow a count."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"must be height x width in pixels, as 384x1248, found {text!r}"
        )
    return int(match[1]), int(match[2])


def _runtime(arguments: argparse.Namespace) -> Runtime:
    return open_runtime(arguments.model or default_model_path(), threads=arguments.threads)


def _track(arguments: argparse.Namespace) -> None:
    from .data.frames import open_frames
    from .recording import track_video

    source = open_frames(arguments.video)
    tracking = TrackingConfig(association=arguments.association)
    summary = track_video(
        source, _runtime(arguments), arguments.out, arguments.max_frames, tracking
    )
    print(summary)


def _eval_synthetic(arguments: argparse.Namespace) -> None:
    from .evaluation import evaluate_synthetic

    tracking = TrackingConfig(association=arguments.association)
    scores = evaluate_synthetic(_runtime(arguments), arguments.clips, arguments.frames, tracking)
    print(f"synthetic street, {arguments.clips} held-out clips of {arguments.frames} frames")
    print(f"  STQ {scores.stq:.3f}   AQ {scores.aq:.3f}   SQ {scores.sq:.3f}")
    print(f"  mIoU {scores.miou:.3f}")
    if not scores.stays:
        print("  no object was found in two frames")
        return
    print(
        f"  {scores.steady:.1%} of {scores.stays} object stays without an id switch "
        f"({scores.switches} switches)"
    )


def _eval_camvid(arguments: argparse.Namespace) -> None:
    from .evaluation import evaluate_camvid

    runtime = _runtime(arguments)
    scores = evaluate_camvid(runtime, arguments.root)
    for info, iou in zip(runtime.info.classes, scores.per_class, strict=True):
        print(f"  {info.name:<12} {iou:.3f}")
    print(f"mIoU {scores.miou:.3f}")


def _eval_dataset(arguments: argparse.Namespace) -> None:
    from .data.datasets import open_dataset
    from .dataset_evaluation import PANOPTIC, by_files, by_model, evaluate_dataset

    if arguments.name not in PANOPTIC:
        raise UsageError(f"the data set must be one of {list(PANOPTIC)}, found {arguments.name!r}")
    dataset = open_dataset(arguments.name, arguments.root, arguments.split)
    if arguments.predictions:
        predictor = by_files(arguments.predictions)
    else:
        tracking = TrackingConfig(association=arguments.association)
        predictor = by_model(_runtime(arguments), dataset, tracking)
    scores = evaluate_dataset(dataset, predictor)
    print("\n".join(scores.table()))
    if arguments.json:
        arguments.json.write_text(scores.to_json())


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
        from .engine.onnx_runtime import OnnxRuntime

        return OnnxRuntime(path).config
    if path.suffix == ".yaml":
        return load_yaml(ModelConfig, path)
    if path.suffix == ".safetensors":
        with _needs_torch("train"):
            from .model.checkpoint import checkpoint_config

            return checkpoint_config(path)
    raise UsageError(f"a model file ends in .yaml, .safetensors or .onnx, found {path}")


def _description(config: ModelConfig) -> list[str]:
    kernels = config.kernels
    switches = ", ".join(
        f"{name} {_switch(getattr(kernels, name))}" for name in ("fusion", "linking", "embedding")
    )
    return [
        f"input      {config.height} x {config.width} (height x width), RGB",
        f"backbone   {config.backbone.name}, neck {config.neck.name}, "
        f"{config.neck.channels} channels",
        f"kernels    {kernels.things} things, {kernels.stages} stages, pooling {kernels.pooling}, "
        f"position {_switch(kernels.position)}",
        f"video      {switches}",
        f"merge      {config.panoptic.merge}",
    ]


def _switch(value: bool | str) -> str:
    """On or off, and of things that are done in several ways, which one."""
    if value in (False, "none"):
        return "off"
    return "on" if value is True else f"on ({value})"


def _cost_table(config: ModelConfig, size: tuple[int, int] | None) -> list[str]:
    """Parameters and operations of each part at `size`, or else the native size."""
    height, width = size or (config.height, config.width)
    with _needs_torch("train"):
        from .model.cost import model_cost

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


def _train(arguments: argparse.Namespace) -> None:
    with _needs_torch("train"):
        from .training.trainer import train_from_config

        train_from_config(
            arguments.config, arguments.out, arguments.data, arguments.resume, arguments.device
        )


def _export(arguments: argparse.Namespace) -> None:
    with _needs_torch("export"):
        from .engine.export import export_checkpoint

        export_checkpoint(arguments.checkpoint, arguments.out)
    print(arguments.out)


def _import_checkpoint(arguments: argparse.Namespace) -> None:
    config = load_yaml(ModelConfig, arguments.config)
    with _needs_torch("train"):
        from .model.checkpoint import save_model, sha256
        from .model.official import import_official, read_official, translate

        state = read_official(arguments.source)
        unused = translate(state)[1]
        facts = {"source": arguments.source.name, "source_sha256": sha256(arguments.source)}
        save_model(import_official(state, config), arguments.out, **facts)
    print(f"{len(state)} keys read, {len(state) - len(unused)} used")
    print(f"{len(unused)} that the authors' network never uses" + (":" if unused else ""))
    for pattern, count in _patterns(unused).items():
        print(f"{count:>5} {pattern}")
    print(arguments.out)


def _validate(arguments: argparse.Namespace) -> int:
    from .data.datasets import layout_of, splits_of
    from .data.validation import validate

    found = splits_of(arguments.dataset, arguments.root)
    splits = [split for split in found if arguments.split in (None, split)]
    if not splits:
        wanted = [arguments.split] if arguments.split else layout_of(arguments.dataset).splits
        raise UsageError(
            f"{arguments.root} must have a split of {', '.join(wanted)} in the layout of "
            f"{arguments.dataset}, found {', '.join(found) or 'none'}"
        )
    count = 0
    for split in splits:
        for fault in validate(arguments.dataset, arguments.root, split):
            count += 1
            print(f"{split}: {fault}", flush=True)
    print(f"{', '.join(splits)}: {count} faults")
    return EXIT_FAULTS if count else 0


def _patterns(keys: Iterable[str]) -> Counter[str]:
    """How many of the names begin alike: their first four words, with * for the numbers."""
    starts = (".".join(key.split(".")[:4]) for key in keys)
    return Counter(re.sub(r"\b\d+\b", "*", start) for start in starts)


@contextmanager
def _needs_torch(extra: str) -> Iterator[None]:
    """Turn a missing package and an unusable checkpoint into a UsageError."""
    try:
        from .model.checkpoint import CheckpointError
    except ModuleNotFoundError as error:
        raise _lacks(error, extra) from None
    try:
        yield
    except ModuleNotFoundError as error:
        raise _lacks(error, extra) from None
    except CheckpointError as error:
        message = textwrap.shorten(str(error), LONGEST_MESSAGE, placeholder=" ...")
        raise UsageError(message) from None


def _lacks(error: ModuleNotFoundError, extra: str) -> UsageError:
    return UsageError(f"needs {error.name}: pip install 'video_knet_ros[{extra}]'")


if __name__ == "__main__":
    sys.exit(main())
