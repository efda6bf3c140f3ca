"""`video-knet eval`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ..config import ASSOCIATIONS, TrackingConfig
from ..data.sprites import SpriteSplit
from ..output_files import check_output_file, write_text
from ..tasks import TASKS
from .arguments import add_association, add_model, positive, runtime_of
from .errors import NothingError, UsageError

if TYPE_CHECKING:
    from ..data.street_frame import StreetClip
    from ..data.video import VideoDataset
    from ..evaluate.scores import Scores
    from ..evaluate.street import StreetScores
    from ..evaluate.street_instances import InstanceScores


def add_evaluate(commands: argparse._SubParsersAction) -> None:
    """Add `eval` of synthetic streets, pasted clips, CamVid and data sets."""
    evaluate = commands.add_parser("eval", help="measure a model on labelled data")
    data = evaluate.add_subparsers(dest="data", required=True, metavar="DATA")
    synthetic = data.add_parser(
        "synthetic", help="held-out synthetic streets: STQ, VPQ and id switches, or AP"
    )
    _add_clips(synthetic)
    synthetic.set_defaults(run=_eval_synthetic)
    pasted = data.add_parser(
        "pasted",
        help="a real clip with moving objects pasted on it: the same",
    )
    pasted.add_argument(
        "--root",
        type=Path,
        required=True,
        metavar="DATA",
        help="the data root of training; holds camvid/val_clip/ and sprites/",
    )
    pasted.add_argument(
        "--sprites",
        choices=get_args(SpriteSplit),
        default="held_out",
        help="which objects are pasted; default: those that training never sees",
    )
    _add_clips(pasted)
    pasted.set_defaults(run=_eval_pasted)
    camvid = data.add_parser("camvid", help="a CamVid clip with 11 classes: mIoU and mVC8")
    camvid.add_argument(
        "--root", type=Path, required=True, metavar="DIR", help="holds images/ and labels/"
    )
    add_model(camvid)
    camvid.set_defaults(run=_eval_camvid)
    _add_eval_dataset(data)


def _add_clips(command: argparse.ArgumentParser) -> None:
    """How many frames of clips with tracks, and by which trackers."""
    command.add_argument("--clips", type=positive, default=10, metavar="N", help="default: 10")
    command.add_argument("--frames", type=positive, default=60, metavar="T", help="default: 60")
    add_model(command)
    add_association(command)
    command.add_argument(
        "--trackers",
        type=_trackers,
        metavar="NAME,NAME,...|all",
        help="instead of --association: compare several on the same segments; known are "
        + ", ".join(ASSOCIATIONS),
    )


def _trackers(text: str) -> tuple[str, ...]:
    """Names of associations, each once, in the order given."""
    names = ASSOCIATIONS if text == "all" else tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in ASSOCIATIONS:
            known = ", ".join(ASSOCIATIONS)
            raise argparse.ArgumentTypeError(f"must be names of {known} or all, found {name!r}")
    return names


def _add_eval_dataset(data: argparse._SubParsersAction) -> None:
    dataset = data.add_parser(
        "dataset",
        help="a benchmark or custom data (docs/data.md), by the numbers it is known for",
        description="STQ and VPQ of kitti_step, cityscapes_vps, vipseg and custom; mIoU and mVC of "
        "vspw; AP of youtube_vis_2019. Of a model, or with --predictions of files in the form in "
        "which --save writes them, that of the data set's evaluation server or program.",
    )
    dataset.add_argument(
        "name", help="kitti_step, cityscapes_vps, vipseg, vspw, youtube_vis_2019 or custom"
    )
    dataset.add_argument("root", type=Path, metavar="PATH", help="the folder of the data set")
    dataset.add_argument("--split", help="default: val (valid of youtube_vis_2019)")
    dataset.add_argument(
        "--predictions", type=Path, metavar="PATH", help="score these files, run no model"
    )
    dataset.add_argument("--save", type=Path, metavar="DIR", help="also write the predictions")
    dataset.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    add_model(dataset)
    add_association(dataset)
    dataset.set_defaults(run=_eval_dataset)


def _eval_synthetic(arguments: argparse.Namespace) -> None:
    from ..evaluate.street import synthetic_streets

    clips = synthetic_streets(arguments.clips)
    title = f"synthetic street, {arguments.clips} held-out clips of {arguments.frames} frames"
    _eval_clips(arguments, title, clips)


def _eval_pasted(arguments: argparse.Namespace) -> None:
    from ..evaluate.street import pasted_clips
    from ..evaluate.street_instances import STREET_TABLE

    clips = pasted_clips(arguments.root, STREET_TABLE, arguments.clips, arguments.sprites)
    title = (
        f"{arguments.clips} pasted clips of {arguments.frames} frames, "
        f"sprites: {arguments.sprites}; the clip's own things are void"
    )
    _eval_clips(arguments, title, clips)


def _eval_clips(arguments: argparse.Namespace, title: str, clips: Iterable[StreetClip]) -> None:
    """Print the scores of a model on clips with exact tracks, by the numbers of its task."""
    from ..evaluate.street import evaluate_clips
    from ..evaluate.street_instances import evaluate_instances

    trackings = _trackings(arguments)
    with closing(runtime_of(arguments)) as runtime:
        task = TASKS[runtime.info.task]
        if not task.has_things:
            raise UsageError(f"{runtime.info.name} has no tracks to measure: see eval camvid")
        if not task.has_stuff:
            by_tracker = evaluate_instances(runtime, clips, arguments.frames, trackings)
            print("\n".join([title, *_instance_table(by_tracker)]))
            return
        scores = evaluate_clips(runtime, clips, arguments.frames, trackings)
    print(title)
    _print_scores(scores, arguments)


def _instance_table(scores: Mapping[str, InstanceScores]) -> list[str]:
    """A row for each tracker."""
    from ..evaluate.scores import cell

    width = max(len("tracker"), *map(len, scores))
    lines = [f"{'tracker':<{width}}     AP   AP50   AP75   AR10"]
    for name, row in scores.items():
        figures = "".join(map(cell, (row.ap, row.ap50, row.ap75, row.ar10)))
        lines.append(f"{name:<{width}}{figures}")
    return lines


def _trackings(arguments: argparse.Namespace) -> dict[str, TrackingConfig]:
    """The trackers asked for, by their names."""
    names = arguments.trackers or (arguments.association,)
    return {name: TrackingConfig(association=name) for name in names}


def _print_scores(scores: Mapping[str, StreetScores], arguments: argparse.Namespace) -> None:
    if arguments.trackers:
        print("\n".join(_table(scores)))
    else:
        print("\n".join(_report(scores[arguments.association])))


def _report(scores: StreetScores) -> list[str]:
    """Lines about one tracker."""
    from ..evaluate.scores import score

    shown = {"STQ": scores.stq, "AQ": scores.aq, "SQ": scores.sq, "VPQ": scores.vpq}
    lines = [
        "  " + "   ".join(f"{name} {score(value)}" for name, value in shown.items()),
        f"  mIoU {score(scores.miou)}",
    ]
    if not scores.stays:
        return [*lines, "  no object was found in two frames"]
    return [
        *lines,
        f"  {scores.steady:.1%} of {scores.stays} object stays without an id switch "
        f"({scores.switches} switches)",
    ]


def _table(scores: Mapping[str, StreetScores]) -> list[str]:
    """A row for each tracker."""
    from ..evaluate.scores import cell

    width = max(len("tracker"), *map(len, scores))
    lines = [f"{'tracker':<{width}}    STQ     AQ     SQ    VPQ   stays without switch  switches"]
    for name, row in scores.items():
        figures = "".join(map(cell, (row.stq, row.aq, row.sq, row.vpq)))
        stays = f"{row.steady:.1%} of {row.stays}" if row.stays else "none"
        lines.append(f"{name:<{width}}{figures}{stays:>23}{row.switches:>10}")
    return lines


def _eval_camvid(arguments: argparse.Namespace) -> None:
    from ..data.camvid import camvid_clip
    from ..evaluate.scores import score
    from ..evaluate.street import evaluate_camvid

    camvid_clip(arguments.root)  # raises for what is missing, before the engine is opened
    with closing(runtime_of(arguments)) as runtime:
        scores, classes = evaluate_camvid(runtime, arguments.root), runtime.info.classes
    for info, iou in zip(classes, scores.per_class, strict=True):
        print(f"  {info.name:<12} {score(iou)}")
    print(f"mIoU {score(scores.miou)}   mVC8 {score(scores.mvc8)} (as released with VSPW)")


def _eval_dataset(arguments: argparse.Namespace) -> None:
    from ..data.datasets import dataset_format

    if arguments.predictions and arguments.save:
        raise UsageError("--save writes what a model predicts, so it cannot be with --predictions")
    if arguments.json:
        _check_scores(arguments)
    known = dataset_format(arguments.name)
    split = arguments.split or known.validation
    dataset = known.open(arguments.root, split)
    if not any(len(video) for video in dataset):
        raise NothingError(f"{arguments.name}: the split {split} of {arguments.root} has no frames")
    scores = _scores(arguments, dataset)
    if scores is None:
        print(f"{split} has no labels to score with; the predictions are in {arguments.save}")
        return
    print("\n".join(scores.table()))
    if arguments.json:
        write_text(arguments.json, scores.to_json())


def _check_scores(arguments: argparse.Namespace) -> None:
    """OutputError if the file of scores is a file of the data set or of the predictions."""
    path, read = arguments.json, [arguments.root, arguments.predictions]
    inputs = [folder for folder in read if folder is not None]
    if path.exists():
        inputs += [path for folder in inputs if folder.resolve() in path.resolve().parents]
    check_output_file(path, inputs, ".json")


def _scores(arguments: argparse.Namespace, dataset: VideoDataset) -> Scores | None:
    from ..evaluate.tasks import evaluate_model, evaluate_predictions

    if arguments.predictions:
        return evaluate_predictions(dataset, arguments.predictions)
    tracking = TrackingConfig(association=arguments.association)
    with closing(runtime_of(arguments)) as runtime:
        return evaluate_model(dataset, runtime, tracking, arguments.save)
