#!/usr/bin/env python3
"""What each addition of Video K-Net brings, and what other design choices would.

    python benchmarks/ablation.py --data DATA [--size minutes|hour|hours] [--out runs/ablation]

As the authors do, an image network (K-Net, no tracking) is trained first, for each seed, and every
variant continues from it as long. All are scored on held-out synthetic streets and on real
clips with pasted objects that are not in training, the baseline also with other trackers on the
same masks. It can be stopped and started again: finished parts are kept. `table.md` and
`plot.png` (needs matplotlib) are written at the end, and with --report from what there is.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml

from video_knet_core.config import ModelConfig
from video_knet_core.config_io import load_yaml, to_dict
from video_knet_core.data.street_frame import StreetClip, StreetFrame
from video_knet_core.engine.torch_runtime import TorchRuntime
from video_knet_core.evaluate.clips import evaluate_clips, pasted_clips, synthetic_streets
from video_knet_core.model.checkpoint import read_metadata
from video_knet_core.tracking import tracker_settings
from video_knet_core.training.checkpoints import RunFiles
from video_knet_core.training.trainer import Trainer

STREET = Path(__file__).parents[1] / "config" / "models" / "street_lite0.yaml"
SCORES = ("stq", "aq", "sq", "vpq")
SETS = ("synthetic", "pasted")


@dataclass(frozen=True)
class Variant:
    """What differs from the full model, as keys of the model and training configuration."""

    kernels: Mapping[str, Any] = field(default_factory=dict)
    """Of the video step alone; these layers start from nothing."""
    model: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of both steps: such a variant has an image network of its own."""
    train: Mapping[str, Any] = field(default_factory=dict)
    trackers: Sequence[str] = ("embedding",)


FULL = {"embedding": True, "linking": "ffn", "fusion": "update_dynamic_cov"}
NO_TRACKING = {"embedding": False, "linking": "none", "fusion": "none"}
NO_TRACK_LOSS = {"track": 0.0, "track_aux": 0.0}
OTHER_TRACKERS = ("unitrack", "iou", "sort", "mask_propagation")
SEEDED = {"seeds": True, "centers": True}

PAPER = {
    "K-Net": Variant(
        NO_TRACKING, train={"losses": NO_TRACK_LOSS}, trackers=("kernels", *OTHER_TRACKERS)
    ),
    "+ KAE": Variant(NO_TRACKING | {"embedding": True}),
    "+ KL": Variant(FULL | {"fusion": "none"}),
    "+ KF": Variant(FULL),
}
DESIGN = {
    "causal pairs": Variant(FULL, train={"data": {"causal": True}}),
    "one kernel set": Variant(FULL | {"linking": "none"}),
    "stride 8": Variant(FULL, {"neck": {"stride": 8}, "panoptic": {"upsample": 4}}),
    "twice the kernels": Variant(FULL, {"kernels": {"things": 80}}),
    "learned + centres": Variant(FULL, {"kernels": {"centers": True}}),
    "seeded": Variant(FULL | {"fusion": "link_atten"}, {"kernels": SEEDED}),
}


@dataclass(frozen=True)
class Size:
    """How much is done."""

    image_steps: int
    video_steps: int
    seeds: int
    clips: int
    frames: int


SIZES = {
    "minutes": Size(40, 20, seeds=2, clips=2, frames=20),
    "hour": Size(300, 150, seeds=3, clips=5, frames=30),
    "hours": Size(3000, 1500, seeds=3, clips=10, frames=60),
}


@dataclass(frozen=True)
class Job:
    """One variant with one seed."""

    name: str
    variant: Variant
    seed: int
    size: Size
    data: Path
    out: Path

    @property
    def result(self) -> Path:
        return self.out / f"{slug(self.name)}_{self.seed}" / "result.json"

    def run(self) -> None:
        """Train what is not trained yet, then score it."""
        if self.result.exists():
            return
        self.train(self.result.parent, self.size.video_steps, self.variant.kernels, self.image())
        partial = self.result.with_suffix(".partial")
        partial.write_text(json.dumps(self.scores(self.result.parent / "last.safetensors")))
        partial.replace(self.result)

    def image(self) -> Path:
        """The image network that the variant starts from, trained if it is not yet."""
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        own = "_" + slug(self.name) if self.variant.model else ""
        folder = self.out / f"image{own}_{self.seed}"
        self.train(folder, self.size.image_steps, NO_TRACKING, None)
        return folder / "last.safetensors"

    def train(
        self, folder: Path, steps: int, kernels: Mapping[str, Any], init: Path | None
    ) -> None:
        """A run in `folder`, begun, continued, or done already."""
        last = RunFiles(folder).last
        if last.exists() and read_metadata(last)["step"] == steps:
            return
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.yaml").write_text(yaml.safe_dump(to_dict(self.model(kernels))))
        settings = self.settings(steps, init)
        (folder / "run.yaml").write_text(yaml.safe_dump(settings))
        trainer = Trainer(folder / "run.yaml", folder, self.data)
        if trainer.files.state.exists():
            trainer.resume()
        trainer.run()

    def model(self, kernels: Mapping[str, Any]) -> ModelConfig:
        """The street model, smaller, with the paper's learned kernels."""
        config = load_yaml(ModelConfig, STREET)
        changes = self.variant.model
        ours = {"things": 40, "feedforward": 256, "seeds": False, "centers": False}
        return replace(
            config,
            height=192,
            width=320,
            neck=replace(config.neck, channels=64, **changes.get("neck", {})),
            kernels=replace(config.kernels, **ours | changes.get("kernels", {}) | dict(kernels)),
            panoptic=replace(config.panoptic, **changes.get("panoptic", {})),
        )

    def settings(self, steps: int, init: Path | None) -> dict[str, Any]:
        """Training on images with pasted objects and synthetic streets, half and half."""
        losses = {"rank": 0.3, "stage_rank": 0.5, "balance": 0.5, "track": 0.5, "track_aux": 2.0}
        streets = str((self.out.parent / "streets").resolve())
        data = {"copy_paste_weight": 0.5, "synthetic_seeds": 60, "street_cache": streets}
        changes = self.variant.train if init else {"losses": NO_TRACK_LOSS}
        return {
            **{"model": "model.yaml", "steps": steps, "seed": self.seed, "threads": 1},
            **{"init": str(init.resolve()) if init else None, "workers": 0},
            **{"height": 160, "width": 224, "batch": 4, "warmup_steps": steps // 20},
            **{"learning_rate": 7e-4, "clip_norm": 2.0, "checkpoint_every": 50},
            "losses": losses | dict(changes.get("losses", {})),
            "data": data | dict(changes.get("data", {})),
        }

    def scores(self, checkpoint: Path) -> dict[str, dict[str, dict[str, float]]]:
        """By set of clips, then by tracker."""
        runtime = TorchRuntime.open(checkpoint, threads=1)
        trackings = {name: tracker_settings(name) for name in self.variant.trackers}
        found = {}
        for name in SETS:
            clips = cached_clips(name, self.data, self.size.clips)
            found[name] = evaluate_clips(runtime, clips, self.size.frames, trackings)
        return found


class CachedClip:
    """A clip that draws each frame once."""

    def __init__(self, clip: StreetClip) -> None:
        self.fps, self._clip = clip.fps, clip
        self._frames: dict[int, StreetFrame] = {}

    def frame(self, t: int) -> StreetFrame:
        """Frame number t."""
        if t not in self._frames:
            self._frames[t] = self._clip.frame(t)
        return self._frames[t]


@cache
def cached_clips(name: str, data: Path, count: int) -> list[CachedClip]:
    """The held-out clips; drawing them costs more than segmenting them."""
    if name == "synthetic":
        return [CachedClip(clip) for clip in synthetic_streets(count)]
    return [CachedClip(clip) for clip in pasted_clips(data, count)]


@dataclass(frozen=True)
class Row:
    """One variant with one tracker: the scores of each seed."""

    name: str
    values: Mapping[str, Mapping[int, Mapping[str, float]]]
    """By set, seed, score."""

    def cell(self, where: str, score: str) -> str:
        """Mean and standard deviation over the seeds, in hundredths."""
        found = [100 * v[score] for v in self.values[where].values()]
        return f"{np.mean(found):.1f} ± {np.std(found, ddof=min(1, len(found) - 1)):.1f}"

    def gain(self, other: Row, where: str) -> str:
        """STQ over that of another row, seed by seed."""
        mine, theirs = self.values[where], other.values[where]
        found = [100 * (mine[n]["stq"] - theirs[n]["stq"]) for n in mine.keys() & theirs.keys()]
        if not found:
            return ""
        return f"{np.mean(found):+.1f} ± {np.std(found, ddof=min(1, len(found) - 1)):.1f}"


def rows(variants: Mapping[str, Variant], jobs: Sequence[Job]) -> Iterator[Row]:
    """What is finished of `variants`; the first tracker of each first."""
    for name, variant in variants.items():
        done = [job for job in jobs if job.name == name and job.result.exists()]
        results = {job.seed: json.loads(job.result.read_text()) for job in done}
        for tracker in variant.trackers if results else ():
            label = name if tracker in ("embedding", "kernels") else f"{name}, {tracker}"
            yield Row(label, {s: {n: r[s][tracker] for n, r in results.items()} for s in SETS})


def table(title: str, found: Sequence[Row], against: Row) -> list[str]:
    """A Markdown table of each set; STQ is also compared with the row `against`."""
    lines = []
    for where in SETS:
        lines += [f"**{title}, {where} clips** (mean ± standard deviation over the seeds)", ""]
        lines += [f"| | STQ | AQ | SQ | VPQ | STQ over {against.name}, per seed |"]
        lines += ["|---|---|---|---|---|---|"]
        for row in found:
            cells = [row.cell(where, score) for score in SCORES]
            lines.append(f"| {' | '.join([row.name, *cells, row.gain(against, where)])} |")
        lines.append("")
    return lines


def report(jobs: Sequence[Job], out: Path) -> None:
    """Write the table, and the plot if matplotlib is here."""
    paper, design = (list(rows(part, jobs)) for part in (PAPER, DESIGN))
    by_name = {row.name: row for row in paper}
    lines = table("The paper's additions", paper, by_name["K-Net"]) if "K-Net" in by_name else []
    if design and "+ KF" in by_name:
        lines += table("Other choices", [by_name["+ KF"], *design], by_name["+ KF"])
    (out / "table.md").write_text("\n".join(lines))
    print("\n".join(lines))
    plot([*paper, *design], out / "plot.png")


def plot(found: Sequence[Row], path: Path) -> None:
    """A point for every seed, a bar for the mean."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no plot: pip install matplotlib")
        return
    figure, axes = pyplot.subplots(1, len(SETS), figsize=(11, 1 + 0.4 * len(found)), sharey=True)
    for axis, where in zip(axes, SETS, strict=True):
        for y, row in enumerate(reversed(found)):
            values = [100 * v["stq"] for v in row.values[where].values()]
            axis.barh(y, np.mean(values), color="#9ecae1")
            axis.plot(values, [y] * len(values), "k.", markersize=5)
        axis.set(title=f"{where} clips", xlabel="STQ")
        axis.set_yticks(range(len(found)), [row.name for row in reversed(found)])
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def slug(name: str) -> str:
    """A name as that of a folder."""
    return "_".join(name.replace("+", "with").split()).lower()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the data root of training")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--size", choices=SIZES, default="hour", help="default: hour")
    parser.add_argument("--only", nargs="+", choices=[*PAPER, *DESIGN], metavar="NAME")
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each; default 2")
    parser.add_argument("--report", action="store_true", help="train nothing")
    args = parser.parse_args()
    size, folder = SIZES[args.size], args.out / args.size
    folder.mkdir(parents=True, exist_ok=True)
    variants = PAPER | DESIGN
    every = [
        Job(name, variant, seed, size, args.data, folder)
        for seed in range(size.seeds)
        for name, variant in variants.items()
    ]
    if not args.report:
        jobs = [job for job in every if not args.only or job.name in args.only]
        shared = {job.seed: job for job in jobs if not job.variant.model}
        with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:
            # the image networks that several start from first, or two would train the same
            list(pool.map(Job.image, shared.values()))
            list(pool.map(Job.run, jobs))
    report(every, folder)


if __name__ == "__main__":
    main()
