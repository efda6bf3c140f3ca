"""The `video-knet` command. Each subcommand imports what it needs when it runs."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .config import ConfigError
from .data.frames import FrameError
from .engine.runtime import BackendError, ModelError, default_model_path, open_runtime

if TYPE_CHECKING:
    from .engine.runtime import Runtime

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class UsageError(Exception):
    """What the user asked for cannot be done; the message says why."""


BAD_INPUT = (
    *(UsageError, ModelError, BackendError, ConfigError, FrameError),
    *(OSError, FloatingPointError),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 2 for bad usage or input."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        arguments.run(arguments)
    except BAD_INPUT as error:
        print(f"video-knet {arguments.command}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


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
    track.set_defaults(run=_track)


def _add_eval(commands: argparse._SubParsersAction) -> None:
    evaluate = commands.add_parser("eval", help="measure a model on labelled data")
    data = evaluate.add_subparsers(dest="data", required=True, metavar="DATA")
    synthetic = data.add_parser("synthetic", help="held-out synthetic streets: STQ and id switches")
    synthetic.add_argument("--clips", type=_positive, default=10, metavar="N")
    synthetic.add_argument("--frames", type=_positive, default=60, metavar="T")
    _add_model(synthetic)
    synthetic.set_defaults(run=_eval_synthetic)
    camvid = data.add_parser("camvid", help="a CamVid clip with 11 classes: mIoU")
    camvid.add_argument(
        "--root", type=Path, required=True, metavar="DIR", help="holds images/ and labels/"
    )
    _add_model(camvid)
    camvid.set_defaults(run=_eval_camvid)


def _add_info(commands: argparse._SubParsersAction) -> None:
    info = commands.add_parser("info", help="say what a model file holds")
    info.add_argument("model", type=Path, nargs="?", help="default: the shipped model")
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


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", type=Path, metavar="ONNX", help="default: the shipped model")
    command.add_argument("--threads", type=_positive, default=2, metavar="N", help="default: 2")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {value}")
    return value


def _runtime(arguments: argparse.Namespace) -> Runtime:
    return open_runtime(arguments.model or default_model_path(), threads=arguments.threads)


def _track(arguments: argparse.Namespace) -> None:
    from .data.frames import open_frames
    from .recording import track_video

    source = open_frames(arguments.video)
    summary = track_video(source, _runtime(arguments), arguments.out, arguments.max_frames)
    print(summary)


def _eval_synthetic(arguments: argparse.Namespace) -> None:
    from .evaluation import evaluate_synthetic

    scores = evaluate_synthetic(_runtime(arguments), arguments.clips, arguments.frames)
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


def _info(arguments: argparse.Namespace) -> None:
    from .engine.onnx_runtime import OnnxRuntime

    path = arguments.model or default_model_path()
    config = OnnxRuntime(path).config
    kernels = config.kernels
    switches = {name: getattr(kernels, name) for name in ("fusion", "linking", "embedding")}
    print(f"{path}")
    print(f"input      {config.height} x {config.width} (height x width), RGB")
    print(f"backbone   {config.backbone.name}, neck {config.neck.channels} channels")
    print(f"kernels    {kernels.things} things, {kernels.stages} stages, pooling {kernels.pooling}")
    print("video      " + ", ".join(f"{k} {'on' if v else 'off'}" for k, v in switches.items()))
    for info in config.classes:
        kind = "thing" if info.is_thing else "stuff"
        print(f"class {info.id:>4} {kind} {info.name} (RGB {', '.join(map(str, info.color))})")


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
        raise UsageError(str(error)) from None


def _lacks(error: ModuleNotFoundError, extra: str) -> UsageError:
    return UsageError(f"needs {error.name}: pip install 'video_knet_ros[{extra}]'")


if __name__ == "__main__":
    sys.exit(main())
