"""`video-knet eval`, `bench` and `validate-data`: measurements, and checks of data."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from ..engine.model_index import find_model
from ..engine.selector import BACKENDS, default_model_path
from ..output_files import check_output_file, write_text
from ..tasks import TASKS
from ..tracking import TRACKERS
from .console import EXIT_FAULTS, NothingError, UsageError, printable
from .options import (
    MODEL,
    SHIPPED,
    EngineOptions,
    Json,
    JsonFile,
    Threads,
    TrackingOptions,
    Values,
    argument,
    choice,
    choices,
    command,
    completion,
    count,
    option,
    parse_sizes,
    parse_trackers,
)

if TYPE_CHECKING:
    from ..data.street_frame import StreetClip
    from ..evaluate.conditions import Condition
    from ..evaluate.scores import Scores

BENCH_BACKENDS = f"Of {', '.join(BACKENDS)}; auto is the fastest, all are those that work here."
LABELLED = "kitti_step, cityscapes_vps, vipseg, vspw, youtube_vis_2019 or custom."
VALIDATED = (
    "kitti_step, cityscapes_vps, vipseg, vspw, youtube_vis_2019, coco_panoptic, coco_instances, "
    "camvid, custom or custom_coco."
)
COMPARED = (
    "In place of --tracker: compare several on the same segments, each NAME or NAME:KEY=VALUE with "
    f"a setting of its own; known are {', '.join(TRACKERS)}."
)
SPOILT = "Spoil 35 % of the frames: blur, darkness, an occluder, glare, lost blocks."
NO_MEMORY = "Give the network each frame as a first one; the tracker continues."
SPRITES = "Objects to paste: train, held_out (never used in training) or all."
JUDGE_SETS = "synthetic,pasted,kitti_0002,davis_objects"
JUDGED = (
    "Sets to measure: synthetic, pasted, or a folder of DATA that has the split val of custom data."
)
JUDGES_ROOT = "Data root of training; holds the folders of the sets, and what eval pasted needs."
DEFAULT_COMPARED = (
    "embedding,embedding:overlap_weight=0,quasi_dense,kernels,iou,sort,mask_propagation"
)
DatasetRoot = Annotated[Path, argument("Folder of the data set.", "PATH")]


_compared = option(
    COMPARED, "NAME,NAME|all", parser=parse_trackers, autocompletion=completion((*TRACKERS, "all"))
)


@dataclass(frozen=True)
class _ConditionOptions:
    """How clips are shown to a model."""

    spoilt: Annotated[bool, option(SPOILT, None, "--spoilt")] = False
    no_memory: Annotated[bool, option(NO_MEMORY, None, "--no-memory")] = False

    @property
    def condition(self) -> Condition:
        """The same for an evaluation."""
        from ..evaluate.conditions import Condition

        return Condition(self.spoilt, not self.no_memory)


@dataclass(frozen=True)
class _ClipOptions(_ConditionOptions):
    """What is measured of clips with exact tracks."""

    clips: Annotated[int, count("Clips to measure.")] = 10
    frames: Annotated[int, count("Frames of each.")] = 60
    trackers: Annotated[Values | None, _compared] = None


@command()
def validate_data(
    dataset: Annotated[str, argument(VALIDATED, "DATASET")],
    root: DatasetRoot,
    split: Annotated[str | None, option("train, val or test; default: all.", "NAME")] = None,
    as_json: Json = False,
) -> int:
    """Read a labelled data set and report its faults.

    Finds missing frames, sizes that differ, ids out of range and empty masks. The exit code is 0 if
    there is no fault, 1 if there are some.
    """
    from ..data.dataset_validation import validate
    from ..data.datasets import dataset_format

    known = dataset_format(dataset)
    present = known.available_splits(root)
    splits = [name for name in present if split in (None, name)]
    if not splits:
        expected = ", ".join([split] if split else known.splits)
        raise UsageError(
            f"expected a split of {expected} in {root}, in the layout of {dataset}, got "
            f"{', '.join(present) or 'none'}"
        )
    faults = []
    for name in splits:
        for where, what in validate(dataset, root, name):
            faults.append({"split": name, "where": where, "what": what})
            if not as_json:
                print(printable(f"{name}: {where}: {what}"), flush=True)
    if as_json:
        print(json.dumps({"splits": splits, "faults": faults}, indent=2))
    else:
        print(f"{', '.join(splits)}: {len(faults)} faults")
    return EXIT_FAULTS if faults else 0


@command(reasons=True)
def bench(
    models: Annotated[list[str] | None, argument(MODEL, "MODEL", show_default=SHIPPED)] = None,
    backend: Annotated[Any, choices(BENCH_BACKENDS, "auto", "all", *BACKENDS)] = "auto",
    frames: Annotated[int, count("Frames to measure.")] = 100,
    size: Annotated[
        Values | None,
        option(
            "Sizes of the images; default: the model's native ones.", "HxW,HxW", parser=parse_sizes
        ),
    ] = None,
    threads: Threads = 2,
    path: JsonFile = None,
) -> None:
    """Measure speed, memory and energy of engines here, side by side.

    Every model with every backend takes each frame of a synthetic street in turn. Reports the
    milliseconds of each stage (preprocess: resize; step: the engine; merge: regions and label map;
    track), frames per second, memory, energy where there is an energy meter, and the fraction of
    pixels that differ from the first row.
    """
    from ..evaluate.bench import bench as measure
    from ..evaluate.bench import bench_table

    paths = [find_model(model) for model in models or ()] or [default_model_path()]
    if path:
        check_output_file(path, paths, ".json")
    report = measure(paths, list(backend), frames, list(size or ()), threads)
    print("\n".join(bench_table(report)))
    if path:
        write_text(path, json.dumps(report, indent=2) + "\n")


# --- eval ----------------------------------------------------------------------------------------


METRES = (
    "Measure ranges and velocities instead, with exact depth, with the noise of a stereo camera, "
    "and from the ground plane."
)


@command()
def synthetic(
    options: _ClipOptions,
    engine: EngineOptions,
    tracking: TrackingOptions,
    metres: Annotated[bool, option(METRES, None, "--metres")] = False,
    path: JsonFile = None,
) -> None:
    """Held-out synthetic streets: STQ, VPQ and id switches, or AP; or errors in metres."""
    from ..evaluate.clips import synthetic_streets

    title = f"synthetic street, {options.clips} held-out clips of {options.frames} frames"
    if metres:
        from ..evaluate.metres import evaluate_metres

        if options.trackers or options.spoilt or options.no_memory:
            raise UsageError("--metres is of one tracker on clean frames with memory")
        streets = (street.seed for street in synthetic_streets(options.clips))
        with closing(engine.open()) as runtime:
            if not TASKS[runtime.info.task].has_things:
                raise UsageError(f"{runtime.info.name} has no tracks to measure")
            scores = evaluate_metres(runtime, streets, options.frames, tracking.config)
        print("\n".join([title, *scores.table()]))
        if path:
            write_text(path, scores.to_json() + "\n")
        return
    if path:
        raise UsageError("--json is of --metres")
    _eval_clips(title, synthetic_streets(options.clips), options, engine, tracking)


@command()
def pasted(
    *,
    root: Annotated[
        Path, option("Data root of training; holds camvid/val_clip/ and sprites/.", "DATA")
    ],
    sprites: Annotated[str, choice(SPRITES, "train", "held_out", "all")] = "held_out",
    options: _ClipOptions,
    engine: EngineOptions,
    tracking: TrackingOptions,
) -> None:
    """A real clip with moving objects pasted on it: the same."""
    from ..evaluate.clips import pasted_clips

    clips = pasted_clips(root, options.clips, cast(Any, sprites))
    title = (
        f"{options.clips} pasted clips of {options.frames} frames, sprites: {sprites}; the clip's "
        "own things are void"
    )
    _eval_clips(title, clips, options, engine, tracking)


def _eval_clips(
    title: str,
    clips: Iterable[StreetClip],
    options: _ClipOptions,
    engine: EngineOptions,
    tracking: TrackingOptions,
) -> None:
    """Print the scores of a model on clips with exact tracks, by the numbers of its task."""
    from ..evaluate.clips import clip_table, evaluate_clips

    configs = dict(options.trackers or ()) or {tracking.tracker: tracking.config}
    with closing(engine.open()) as runtime:
        if not TASKS[runtime.info.task].has_things:
            raise UsageError(f"{runtime.info.name} has no tracks to measure: see eval camvid")
        scores = evaluate_clips(runtime, clips, options.frames, configs, options.condition)
    print("\n".join([title, *clip_table(scores).table()]))


@command()
def camvid(
    root: Annotated[Path, option("Holds images/ and labels/.", "DIR")], engine: EngineOptions
) -> None:
    """A CamVid clip with 11 classes: mIoU and mVC8."""
    from ..data.camvid import camvid_clip
    from ..evaluate.clips import evaluate_camvid
    from ..evaluate.scores import score

    camvid_clip(root)  # raises for what is missing, before the engine is opened
    with closing(engine.open()) as runtime:
        scores, classes = evaluate_camvid(runtime, root), runtime.info.classes
    for info, iou in zip(classes, scores.per_class, strict=True):
        print(f"  {info.name:<12} {score(iou)}")
    print(f"mIoU {score(scores.miou)}   mVC8 {score(scores.mvc[8])} (as released with VSPW)")


@command()
def dataset(
    *,
    name: Annotated[str, argument(LABELLED, "NAME")],
    root: DatasetRoot,
    split: Annotated[
        str | None, option("Default: val (valid of youtube_vis_2019).", "NAME")
    ] = None,
    predictions: Annotated[Path | None, option("Score these files, run no model.", "PATH")] = None,
    save: Annotated[Path | None, option("Also write the predictions.", "DIR")] = None,
    path: JsonFile = None,
    shown: _ConditionOptions,
    engine: EngineOptions,
    tracking: TrackingOptions,
) -> None:
    """A benchmark or custom data (docs/reference/data.md), by the numbers it is known for.

    STQ, VPQ and the tracking of boxes (MOTA, IDF1, HOTA) of kitti_step, cityscapes_vps, vipseg and
    custom; mIoU and mVC of vspw; AP of youtube_vis_2019. Of a model, or with --predictions of files
    in the form in which --save writes them, that of the data set's evaluation server or program.
    """
    from ..data.datasets import dataset_format
    from ..evaluate.dataset_evaluation import evaluate_model, evaluate_predictions

    if predictions and save:
        raise UsageError("--save writes what a model predicts, so it cannot be with --predictions")
    if predictions and (shown.spoilt or shown.no_memory):
        raise UsageError(
            "--spoilt and --no-memory change what a model sees, so they cannot be "
            "with --predictions"
        )
    _check_scores_file(path, [folder for folder in (root, predictions) if folder])
    known = dataset_format(name)
    split = split or known.validation
    data = known.open(root, split)
    if not any(len(video) for video in data):
        raise NothingError(f"{name}: the split {split} of {root} has no frames")
    scores: Scores | None
    if predictions:
        scores = evaluate_predictions(data, predictions)
    else:
        with closing(engine.open()) as runtime:
            scores = evaluate_model(data, runtime, tracking.config, save, shown.condition)
    if scores is None:
        print(f"{split} has no labels to score with; the predictions are in {save}")
        return
    print("\n".join(scores.table()))
    if path:
        write_text(path, scores.to_json())


def _check_scores_file(path: Path | None, read: list[Path]) -> None:
    """No file is written over one of the folders that are read."""
    if path:
        inside = any(folder.resolve() in path.resolve().parents for folder in read)
        check_output_file(path, [path, *read] if inside else read, ".json")


@command()
def judges(
    *,
    root: Annotated[Path, option(JUDGES_ROOT, "DATA")],
    sets: Annotated[Any, choices(JUDGED, metavar="NAME,NAME")] = JUDGE_SETS,
    clips: Annotated[int, count("Clips of each set; videos are taken in order.")] = 4,
    frames: Annotated[int, count("Frames of each.")] = 100,
    trackers: Annotated[Any, _compared] = DEFAULT_COMPARED,
    path: JsonFile = None,
    engine: EngineOptions,
) -> None:
    """All sets of clips, clean and corrupted, with and without temporal state: one table.

    The network runs once for each frame, set and condition, so all trackers get the same segments.
    """
    from ..evaluate.judges import judge, open_sets

    _check_scores_file(path, [root])
    opened = open_sets(root, sets, clips)
    with closing(engine.open()) as runtime:
        scores = judge(runtime, opened, clips, frames, dict(trackers))
    print("\n".join(scores.table()))
    if path:
        write_text(path, scores.to_json())
