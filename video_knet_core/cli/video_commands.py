"""`video-knet track`, `replay` and `make-bag`: videos and bags in, results out."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

from ..replay.replay_settings import EmptyReplayError, ReplaySettings
from .console import EXIT_FAULTS, NothingError, UsageError, printable
from .options import (
    SOURCES,
    EngineOptions,
    Json,
    MaxFrames,
    OutFolder,
    TrackingOptions,
    Video,
    argument,
    choice,
    command,
    count,
    option,
)

if TYPE_CHECKING:
    from ..replay.fleet import JobResult
    from ..replay.job_record import JobRecord

_log = logging.getLogger(__name__)


@command()
def track(
    *,
    video: Video,
    out: OutFolder,
    max_frames: MaxFrames = None,
    engine: EngineOptions,
    tracking: TrackingOptions,
    as_json: Json = False,
) -> None:
    """Segment and track a video.

    Writes DIR/overlay.mp4, DIR/labels/NNNNNN.png (16-bit labels, 0 = none; of overlapping masks the
    frontmost) and DIR/tracks.jsonl (one line per frame: what each label is). An earlier result in
    DIR is replaced. Ctrl-C ends the video early and keeps the frames so far.
    """
    from ..data.frames import open_frames
    from ..epochs import facts_of
    from ..recording import track_video

    source, facts = open_frames(video), facts_of(video)
    with closing(engine.open()) as runtime:
        summary = track_video(source, runtime, out, max_frames, tracking.config, facts)
    frames, seconds = len(summary.inference_ms), summary.seconds
    figures = {
        "out": str(summary.out),
        "backend": summary.backend,
        "frames": frames,
        "seconds": seconds,
        "fps": frames / seconds if frames else None,
        "step_ms_median": median(summary.inference_ms) if frames else None,
        "tracks": dict(Counter(summary.confirmed.values())) if summary.tracks_things else None,
    }
    print(json.dumps(figures, indent=2) if as_json else summary)
    if not frames:
        raise NothingError(f"{video} has no frames")


# --- bags ----------------------------------------------------------------------------------------


def _kept_of_replay(out: Path, glob: str | None, **_: Any) -> str:
    if glob is not None:
        return f"{out} keeps what is complete, --resume continues with the rest"
    return f"{out} holds an incomplete replay, --resume does it again"


GLOB = (
    "In place of IN, all bags of this name: 'bags/*.mcap', in quotes. Each has a folder in DIR, "
    "called after it. --resume continues with those that are incomplete."
)
RAY = (
    "With --glob: several bags at a time, by the Ray cluster at this address; 'local' = by the "
    "GPUs or cores of this machine (extra `fleet`)."
)
WORKERS = (
    "With --ray: maximum number of bags at a time; default: the GPUs of the cluster if the engine "
    "uses them, else its cores by --threads."
)


@command(kept=_kept_of_replay)
def replay(
    *,
    bag: Annotated[
        Path | None, argument(".bag, .mcap, .db3, or the folder of a recording.", "IN")
    ] = None,
    out: OutFolder,
    glob: Annotated[str | None, option(GLOB, "PATTERN")] = None,
    ray: Annotated[str | None, option(RAY, "ADDRESS")] = None,
    workers: Annotated[int | None, count(WORKERS)] = None,
    settings: ReplaySettings,
    resume: Annotated[
        bool, option("Redo an interrupted replay, skip a complete one.", None, "--resume")
    ] = False,
    engine: EngineOptions,
    tracking: TrackingOptions,
    as_json: Json = False,
) -> int:
    """Process every image of a recorded bag.

    Writes the messages of the live node into DIR/bag, the same every time, and needs no ROS. The
    exit code is 1 if the bag is damaged or some images cannot be used; the others are processed all
    the same.
    """
    if (bag is None) == (glob is None):
        raise UsageError(
            f"expected either a bag IN or --glob 'PATTERN' in quotes, got IN {bag}, --glob {glob}"
        )
    if ray is not None and glob is None:
        raise UsageError("--ray is for many bags: give --glob 'PATTERN'")
    if workers is not None and ray is None:
        raise UsageError("--workers is for --ray ADDRESS")
    if glob is not None:
        from ..replay.fleet import FleetPlan, find_jobs, fixed_folder, replay_serially

        path = engine.path.absolute()
        plan = FleetPlan(path, engine.threads, settings, tracking.config, engine.backend)
        jobs = find_jobs(glob, out, resume)
        if ray is None:
            results = replay_serially(jobs, plan)
        else:
            from ..replay.ray_fleet import replay_on_ray

            results = replay_on_ray(jobs, plan, out, fixed_folder(glob), ray, workers)
        return _report_fleet(results, len(jobs), glob, as_json)
    assert bag is not None
    from ..replay.bag_replay import replay as replay_bag
    from ..replay.job_record import FinishedError

    with ExitStack() as opened:

        def open_engine() -> Any:
            return opened.enter_context(closing(engine.open()))

        try:
            summary = replay_bag(bag, open_engine, out, settings, tracking.config, resume)
        except EmptyReplayError as error:
            raise NothingError(str(error)) from None
        except FinishedError as error:
            if not resume:
                raise
            return _report_finished(error.record, out, as_json)
    figures = {**asdict(summary), "out": str(summary.out)}
    print(json.dumps(figures, indent=2) if as_json else printable(str(summary)))
    if not summary.frames:
        raise NothingError(f"{bag} has no images that can be used")
    return EXIT_FAULTS if summary.damage or summary.failed else 0


def _report_finished(record: JobRecord, out: Path, as_json: bool) -> int:
    """Print what a replay that was complete before came to, and return the exit code."""
    facts = {
        "out": str(out),
        "frames": record.frames,
        "failed": record.failed,
        "damage": record.damage,
    }
    words = f"{out} is complete: {record.frames} frames"
    words += f", {record.failed} images could not be used" if record.failed else ""
    words += f"; the bag is damaged: {record.damage}" if record.damage else ""
    print(json.dumps(facts, indent=2) if as_json else printable(words))
    return EXIT_FAULTS if record.damage or record.failed else 0


def _report_fleet(coming: Iterator[JobResult], bags: int, glob: str, as_json: bool) -> int:
    """Log each result as it comes, print all of them, and return the exit code."""
    from ..replay.fleet import table

    results: list[JobResult] = []
    try:
        for result in coming:
            results.append(result)
            line = f"{result.frames} frames in {result.seconds:.1f} s, {result.state.value}"
            _log.info("%d of %d, %s: %s", len(results), bags, result.job.name, line)
    finally:  # also what was done before Ctrl-C
        if results:
            figures = {"bags": [result.to_json() for result in results]}
            print(json.dumps(figures, indent=2) if as_json else printable(table(results)))
    if not any(result.frames for result in results):
        raise NothingError(f"no bag of {glob} has images that can be used")
    return 0 if all(result.is_clean for result in results) else EXIT_FAULTS


COMPRESSION = "none; chunk, for mcap and ros1; message or file, for mcap and sqlite3."


KITTI_RAW = "In place of VIDEO: a drive of KITTI raw; the folder above it has the calibration."


@command()
def make_bag(
    video: Annotated[str | None, argument(SOURCES, "VIDEO")] = None,
    *,
    out: Annotated[Path, option("A folder; of ros1, a .bag file.", "BAG")],
    format: Annotated[str, choice("mcap, sqlite3 or ros1.", "mcap", "sqlite3", "ros1")] = "mcap",
    compression: Annotated[str, choice(COMPRESSION, "none", "chunk", "message", "file")] = "none",
    jpeg: Annotated[
        int | None, option("JPEG images of this quality, not raw ones.", "Q", min=1, max=100)
    ] = None,
    topic: Annotated[str, option("Topic of the images.", "TOPIC")] = "/camera/image_raw",
    depth: Annotated[
        bool, option("Also depth, camera_info and odometry of the VIDEO.", None, "--depth")
    ] = False,
    kitti_raw: Annotated[Path | None, option(KITTI_RAW, "DIR")] = None,
    max_frames: MaxFrames = None,
) -> None:
    """Make a bag of a video, of images with depth, or of a drive of KITTI raw."""
    from ..bags import making
    from ..bags.kitti_raw import make_kitti_bag
    from ..data.frames import open_frames

    if (video is None) == (kitti_raw is None):
        raise UsageError(
            f"expected either VIDEO or --kitti-raw DIR, got VIDEO {video}, --kitti-raw {kitti_raw}"
        )
    if depth and video is None:
        raise UsageError("--depth is for VIDEO; of KITTI raw there are point clouds")
    if format == "ros1" and (depth or video is None):
        other = "--depth" if depth else "--kitti-raw"
        raise UsageError(f"--format: expected mcap or sqlite3 with {other}, got ros1")
    if format == "ros1" and out.suffix != ".bag":
        raise UsageError(f"--out: expected NAME.bag for ros1, got {out.name}")
    form = making.BagFormat(format, compression, jpeg)
    if kitti_raw is not None:
        images = make_kitti_bag(kitti_raw, topic, out, form, max_frames)
    else:
        frames = open_frames(str(video))
        if frames.endless and max_frames is None:
            raise UsageError(f"{video} never ends: give --max-frames")
        if depth:
            images = making.make_depth_bag(frames, topic, out, form, max_frames)
        else:
            images = making.make_bag({topic: frames}, out, form, max_frames)
    if not images:
        raise NothingError(f"{video or kitti_raw} has no frames")
    print(f"{out}: {images} images on {topic}")
