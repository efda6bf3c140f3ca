"""`video-knet eval`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import TrackingConfig
from .arguments import add_association, add_model, positive, runtime_of
from .errors import UsageError

if TYPE_CHECKING:
    from ..data.video import VideoDataset
    from ..evaluate.scores import Scores


def add_evaluate(commands: argparse._SubParsersAction) -> None:
    """Add `eval` of synthetic streets, CamVid and data sets."""
    evaluate = commands.add_parser("eval", help="measure a model on labelled data")
    data = evaluate.add_subparsers(dest="data", required=True, metavar="DATA")
    synthetic = data.add_parser("synthetic", help="held-out synthetic streets: STQ and id switches")
    synthetic.add_argument("--clips", type=positive, default=10, metavar="N")
    synthetic.add_argument("--frames", type=positive, default=60, metavar="T")
    add_model(synthetic)
    add_association(synthetic)
    synthetic.set_defaults(run=_eval_synthetic)
    camvid = data.add_parser("camvid", help="a CamVid clip with 11 classes: mIoU")
    camvid.add_argument(
        "--root", type=Path, required=True, metavar="DIR", help="holds images/ and labels/"
    )
    add_model(camvid)
    camvid.set_defaults(run=_eval_camvid)
    _add_eval_dataset(data)


def _add_eval_dataset(data: argparse._SubParsersAction) -> None:
    dataset = data.add_parser(
        "dataset",
        help="a benchmark or your own data (docs/data.md), by the numbers it is known for",
        description="STQ and VPQ of kitti_step, cityscapes_vps, vipseg and own; mIoU and mVC of "
        "vspw; AP of youtube_vis_2019. Of a model, or with --predictions of files in the form in "
        "which --save writes them, that of the data set's evaluation server or program.",
    )
    dataset.add_argument(
        "name", help="kitti_step, cityscapes_vps, vipseg, vspw, youtube_vis_2019 or own"
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
    from ..evaluate.street import evaluate_synthetic

    tracking = TrackingConfig(association=arguments.association)
    scores = evaluate_synthetic(runtime_of(arguments), arguments.clips, arguments.frames, tracking)
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
    from ..evaluate.street import evaluate_camvid

    runtime = runtime_of(arguments)
    scores = evaluate_camvid(runtime, arguments.root)
    for info, iou in zip(runtime.info.classes, scores.per_class, strict=True):
        print(f"  {info.name:<12} {iou:.3f}")
    print(f"mIoU {scores.miou:.3f}")


def _eval_dataset(arguments: argparse.Namespace) -> None:
    from ..data.datasets import layout_of, open_dataset

    if arguments.predictions and arguments.save:
        raise UsageError("--save writes what a model predicts, so it cannot be with --predictions")
    split = arguments.split or layout_of(arguments.name).validation
    scores = _scores(arguments, open_dataset(arguments.name, arguments.root, split))
    if scores is None:
        print(f"{split} has no labels to score with; the predictions are in {arguments.save}")
        return
    print("\n".join(scores.table()))
    if arguments.json:
        arguments.json.write_text(scores.to_json())


def _scores(arguments: argparse.Namespace, dataset: VideoDataset) -> Scores | None:
    from ..evaluate.tasks import evaluate_model, evaluate_predictions

    if arguments.predictions:
        return evaluate_predictions(dataset, arguments.predictions)
    tracking = TrackingConfig(association=arguments.association)
    return evaluate_model(dataset, runtime_of(arguments), tracking, arguments.save)
