"""`video-knet replay` and `video-knet make-bag`."""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import TrackingConfig
from ..engine.selector import default_model_path
from ..messages.topics import ALL_OUTPUTS
from .arguments import add_association, add_json, add_model, positive, runtime_of
from .errors import EXIT_FAULTS, NothingError, UsageError

if TYPE_CHECKING:
    from ..replay.bag_replay import ReplaySummary
    from ..replay.fleet import JobResult
    from ..replay.replay_settings import ReplaySettings

MOST_SECONDS = 1e9
"""Stamps are nanoseconds in 64 bits."""

_log = logging.getLogger(__name__)


def add_replay(commands: argparse._SubParsersAction) -> None:
    """Add `replay`."""
    replay = commands.add_parser(
        "replay",
        help="process every image of a recorded bag",
        description="Writes the messages of the live node into OUT/bag, the same every time, and "
        "needs no ROS. The exit code is 1 if the bag is damaged or some images cannot be used; the "
        "others are processed all the same.",
    )
    replay.add_argument(
        "bag",
        type=Path,
        metavar="IN",
        nargs="?",
        help=".bag, .mcap, .db3, or the folder of a recording",
    )
    replay.add_argument("--out", type=Path, required=True, metavar="DIR")
    _add_fleet(replay)
    replay.add_argument(
        "--topic",
        action="append",
        default=[],
        metavar="T",
        help="image topic, once for each camera; default: the only one there is",
    )
    replay.add_argument("--start", type=_seconds, default=0.0, metavar="S", help="begin S s later")
    replay.add_argument("--duration", type=_seconds, metavar="S", help="end after S seconds")
    replay.add_argument("--every", type=positive, default=1, metavar="N", help="every N-th image")
    replay.add_argument(
        "--outputs",
        nargs="+",
        choices=ALL_OUTPUTS,
        default=[],
        help="topics of the new bag; default: instances panoptic, of a semantic model semantic",
    )
    _add_products(replay)
    replay.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap")
    replay.add_argument(
        "--split-frames",
        type=positive,
        default=1000,
        metavar="N",
        help="frames in a file of the new bag; default: 1000",
    )
    replay.add_argument(
        "--resume", action="store_true", help="redo an interrupted replay, skip a complete one"
    )
    add_model(replay)
    add_association(replay)
    add_json(replay)
    replay.set_defaults(run=_replay, kept=_kept)


def _add_products(replay: argparse.ArgumentParser) -> None:
    """What else the result holds."""
    replay.add_argument("--rle", action="store_true", help="masks in the table, as run lengths")
    replay.add_argument(
        "--include-input-topics", action="store_true", help="copy what was read into the new bag"
    )
    replay.add_argument("--overlay", action="store_true", help="videos: OUT/overlay/CAMERA")
    replay.add_argument(
        "--labels", action="store_true", help="label images as of STEP: OUT/labels/CAMERA"
    )
    replay.add_argument(
        "--tracks", action="store_true", help="tables as JSON lines: OUT/tracks/CAMERA.jsonl"
    )
    replay.add_argument(
        "--no-report", dest="report", action="store_false", help="no OUT/report.html"
    )
    replay.add_argument(
        "--rerun", action="store_true", help="recording for the Rerun viewer: OUT/rerun"
    )


def _add_fleet(replay: argparse.ArgumentParser) -> None:
    """What only many bags have."""
    replay.add_argument(
        "--glob",
        metavar="PATTERN",
        help="in place of IN, all bags of this name: 'bags/*.mcap', in quotes. Each has a folder "
        "in DIR, called after it. --resume goes on with those that are not complete",
    )
    replay.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="with --glob: several bags at a time, by the Ray cluster at this address; 'local' = "
        "by the GPUs or cores of this machine (extra `fleet`)",
    )
    replay.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="with --ray: bags at a time, at most; default: the GPUs of the cluster if the engine "
        "uses them, else its cores by --threads",
    )


def _replay(arguments: argparse.Namespace) -> int:
    _check_fleet(arguments)
    with _needs("rosbags", "replay"):
        from ..replay.bag_replay import replay
        from ..replay.replay_settings import EmptyReplayError
    settings, tracking = _settings(arguments), TrackingConfig(association=arguments.association)
    if arguments.glob is not None:
        return _replay_fleet(arguments, settings, tracking)
    with ExitStack() as opened:
        try:
            summary = replay(
                arguments.bag,
                lambda: opened.enter_context(closing(runtime_of(arguments))),
                arguments.out,
                settings,
                tracking,
                arguments.resume,
            )
        except EmptyReplayError as error:
            raise NothingError(str(error)) from None
    _print_result(arguments, str(summary), _as_json(summary))
    if not summary.frames:
        raise NothingError(f"{arguments.bag} has no images that can be used")
    return EXIT_FAULTS if summary.damage or summary.failed else 0


def _print_result(arguments: argparse.Namespace, words: str, values: dict[str, Any]) -> None:
    print(json.dumps(values, indent=2) if arguments.json else words)


def _as_json(summary: ReplaySummary) -> dict[str, Any]:
    return {**asdict(summary), "out": str(summary.out)}


def _kept(arguments: argparse.Namespace) -> str:
    """What an interruption leaves."""
    if arguments.glob is not None:
        return f"{arguments.out} keeps what is complete, --resume continues with the rest"
    return f"{arguments.out} holds an incomplete replay, --resume does it again"


def _check_fleet(arguments: argparse.Namespace) -> None:
    """UsageError for arguments that do not go together."""
    if arguments.bag is None and arguments.glob is None:
        raise UsageError("give a bag IN, or --glob 'PATTERN' for many")
    if arguments.bag is not None and arguments.glob is not None:
        raise UsageError(
            f"give either a bag, found {arguments.bag}, or --glob, found {arguments.glob}; "
            "a pattern must be in quotes"
        )
    if arguments.ray is not None and arguments.glob is None:
        raise UsageError("--ray is for many bags: give --glob 'PATTERN'")
    if arguments.workers is not None and arguments.ray is None:
        raise UsageError("--workers is for --ray ADDRESS")


def _replay_fleet(
    arguments: argparse.Namespace, settings: ReplaySettings, tracking: TrackingConfig
) -> int:
    from ..replay.fleet import FleetPlan, find_jobs, fixed_folder, replay_serially, table
    from ..replay.ray_fleet import replay_on_ray

    jobs = find_jobs(arguments.glob, arguments.out, arguments.resume)
    model = (arguments.model or default_model_path()).absolute()
    plan = FleetPlan(model, arguments.threads, settings, tracking, arguments.backend)
    if arguments.ray is None:
        coming = replay_serially(jobs, plan)
    else:
        folder = fixed_folder(arguments.glob)
        coming = replay_on_ray(jobs, plan, arguments.out, folder, arguments.ray, arguments.workers)
    results: list[JobResult] = []
    try:
        with _needs("ray", "fleet"):
            for result in coming:
                results.append(result)
                _tell(result, len(results), len(jobs))
    finally:  # also what was done before Ctrl-C
        if results:
            _print_result(arguments, table(results), {"bags": [o.to_json() for o in results]})
    if not any(result.frames for result in results):
        raise NothingError(f"no bag of {arguments.glob} has images that can be used")
    return 0 if all(result.is_clean for result in results) else EXIT_FAULTS


def _tell(result: JobResult, number: int, count: int) -> None:
    line = f"{result.frames} frames in {result.seconds:.1f} s, {result.state.value}"
    _log.info("%d of %d, %s: %s", number, count, result.job.name, line)


def _settings(arguments: argparse.Namespace) -> ReplaySettings:
    from ..replay.replay_settings import ReplaySettings

    return ReplaySettings(
        topics=tuple(arguments.topic),
        start=arguments.start,
        duration=arguments.duration,
        every=arguments.every,
        outputs=tuple(arguments.outputs),
        rle=arguments.rle,
        include_input_topics=arguments.include_input_topics,
        overlay=arguments.overlay,
        labels=arguments.labels,
        tracks=arguments.tracks,
        report=arguments.report,
        rerun=arguments.rerun,
        storage=arguments.storage,
        split_frames=arguments.split_frames,
    )


def add_make_bag(commands: argparse._SubParsersAction) -> None:
    """Add `make-bag`."""
    make = commands.add_parser("make-bag", help="make a bag of a video")
    make.add_argument(
        "video", help="video file, folder of images, webcam index, or synthetic[:seed]"
    )
    make.add_argument(
        "--out", type=Path, required=True, metavar="BAG", help="a folder; of ros1, a .bag file"
    )
    make.add_argument("--format", choices=("mcap", "sqlite3", "ros1"), default="mcap")
    make.add_argument(
        "--compression",
        choices=("none", "chunk", "message", "file"),
        default="none",
        help="chunk is for mcap and ros1, message and file for mcap and sqlite3; default: none",
    )
    make.add_argument(
        "--jpeg", type=_quality, metavar="Q", help="JPEG images of quality 1..100, not raw ones"
    )
    make.add_argument("--topic", default="/camera/image_raw", metavar="T")
    make.add_argument("--max-frames", type=positive, metavar="N", help="stop after N frames")
    make.set_defaults(run=_make_bag)


def _make_bag(arguments: argparse.Namespace) -> None:
    from ..data.frames import open_frames

    with _needs("rosbags", "replay"):
        from ..bags.making import BagFormat, make_bag
    frames = open_frames(arguments.video)
    if frames.endless and arguments.max_frames is None:
        raise UsageError(f"{arguments.video} never ends: give --max-frames")
    if arguments.format == "ros1" and arguments.out.suffix != ".bag":
        raise UsageError(f"a bag of ros1 must be called NAME.bag, found {arguments.out.name}")
    form = BagFormat(arguments.format, arguments.compression, arguments.jpeg)
    count = make_bag({arguments.topic: frames}, arguments.out, form, arguments.max_frames)
    if not count:
        raise NothingError(f"{arguments.video} has no frames")
    print(f"{arguments.out}: {count} images on {arguments.topic}")


@contextmanager
def _needs(package: str, extra: str) -> Iterator[None]:
    """Turn a missing package, by itself `package`, into a UsageError that names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or package).partition(".")[0]
        raise UsageError(f"needs {package}: pip install 'video_knet_ros[{extra}]'") from None


def _seconds(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and 0 <= value <= MOST_SECONDS):
        raise argparse.ArgumentTypeError(
            f"expected seconds from 0 to {MOST_SECONDS:.0e}, got {text!r}"
        )
    return value


def _quality(text: str) -> int:
    value = positive(text)
    if value > 100:
        raise argparse.ArgumentTypeError(f"must be at most 100, found {value}")
    return value
