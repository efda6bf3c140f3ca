#!/usr/bin/env python3
"""All systems of Video K-Net's poster on the same data: its tables 2 and 4.

    python benchmarks/poster.py --data DATA [--size minutes|hour|hours] [--only NAME ...]

Every system has the backbone of the shipped street model, whose weights stay as they are, and
learns what comes after it from the same pairs, encoded once, with as many steps and as large
batches, for each of three seeds. Scored are held-out synthetic streets and real clips with pasted
objects that no training has seen. It can be stopped and started again: finished parts are kept.
`table.md` is written from what there is, and with matplotlib `plot.png`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from ablation import FULL, NO_TRACK_LOSS, NO_TRACKING, SETS, cached_clips, slug

from video_knet_core.config import ModelConfig, NetworkConfig
from video_knet_core.config_io import load_yaml, to_dict
from video_knet_core.data.camvid import street_ids
from video_knet_core.data.street_frame import StreetClip
from video_knet_core.engine.export import export_checkpoint, export_onnx
from video_knet_core.engine.onnx_runtime import OnnxRuntime
from video_knet_core.evaluate.clips import HELD_OUT_SEED, compare, evaluate_clips
from video_knet_core.evaluate.conditions import CLEAN
from video_knet_core.evaluate.depth import evaluate_depth
from video_knet_core.evaluate.judges import open_sets, true_clips
from video_knet_core.metrics.vss import VideoSemanticConsistency
from video_knet_core.model.checkpoint import load_model, load_network_config, read_metadata
from video_knet_core.model.cost import model_cost
from video_knet_core.model.video_knet import VideoKNet
from video_knet_core.predictor import VideoPredictor
from video_knet_core.tracking import tracker_settings
from video_knet_core.training.cached_clips import CachedClips
from video_knet_core.training.checkpoints import RunFiles
from video_knet_core.training.initial_weights import start_from
from video_knet_core.training.optimization import freeze
from video_knet_core.training.trainer import Trainer
from video_knet_core.types import NO_CLASS

REPO = Path(__file__).parents[1]
MODELS = REPO / "config" / "models"
START = REPO / "models" / "street.safetensors"
"""The network whose backbone all have."""
HEIGHT, WIDTH = 192, 320


@dataclass(frozen=True)
class System:
    """A network, and the trackers that it is scored with."""

    config: Path
    kernels: Mapping[str, Any] | None = None
    """Changes of a Video K-Net's kernels."""
    trackers: tuple[str, ...] = ()
    """Without any it is of task semantic."""
    birth_score: float | None = None
    """That of the trackers, if it is not their default: scores mean something else in each."""

    @property
    def model(self) -> NetworkConfig:
        """Its configuration, with the backbone and the size that all have."""
        config = load_network_config(self.config)
        if not isinstance(config, ModelConfig):
            return config
        start = load_yaml(ModelConfig, MODELS / "street.yaml").backbone
        backbone = replace(start, output_stride=config.backbone.output_stride)
        kernels = replace(config.kernels, **{"feedforward": 256} | dict(self.kernels or {}))
        neck = replace(config.neck, channels=64)
        size = {"height": HEIGHT, "width": WIDTH}
        return replace(config, **size, backbone=backbone, neck=neck, kernels=kernels)


LEARNED = {"things": 40, "seeds": False, "centers": False, "position": False}
"""The paper's kernels."""


def _baseline(name: str, *trackers: str, birth_score: float | None = None) -> System:
    file = REPO / "baselines" / "models" / f"street_{name}.yaml"
    return System(file, trackers=trackers, birth_score=birth_score)


SYSTEMS = {
    "P": _baseline("panoptic_deeplab", "iou", "sort", "mask_propagation", birth_score=0.1),
    "Motion-DeepLab": _baseline("motion_deeplab", "motion_offsets"),
    "ViP-DeepLab": _baseline("vip_deeplab", "stitching"),
    "VPSNet": _baseline("vpsnet", "masktrack"),
    "K-Net": System(
        MODELS / "street_lite0.yaml", LEARNED | NO_TRACKING, ("kernels", "unitrack", "iou")
    ),
    "Video K-Net": System(MODELS / "street_lite0.yaml", LEARNED | FULL, ("embedding",)),
    "PSPNet": System(MODELS / "street_pspnet_lite0.yaml", {"stages": 0, "pooling": "mean"}),
    "DeepLabv3+": System(
        MODELS / "street_deeplabv3plus_lite0.yaml", {"stages": 0, "pooling": "mean"}
    ),
    "TCB": _baseline("tcb"),
    "Video K-Net (PSPNet)": System(MODELS / "street_pspnet_lite0.yaml"),
    "Video K-Net (DeepLabv3+)": System(MODELS / "street_deeplabv3plus_lite0.yaml"),
}
PUBLISHED = {
    ("P", "iou"): (58, 47, 71, 44),
    ("P", "sort"): (59, 50, 71, 42),
    ("P", "mask_propagation"): (67, 63, 71, 44),
    ("Motion-DeepLab", "motion_offsets"): (58, 51, 67, 40),
    ("VPSNet", "masktrack"): (56, 52, 61, 43),
    ("K-Net", "kernels"): (67.5, 65.5, 68.9, None),
    ("K-Net", "unitrack"): (65.1, 64.3, 68.9, None),
    ("Video K-Net", "embedding"): (70.9, 70.8, 71.2, 46),
    ("PSPNet", ""): (36.5, 84.4, 79.8),
    ("DeepLabv3+", ""): (35.7, 83.5, 78.4),
    ("TCB", ""): (37.5, 86.9, 82.1),
    ("Video K-Net (PSPNet)", ""): (37.9, 87.0, 82.1),
    ("Video K-Net (DeepLabv3+)", ""): (38.0, 87.2, 82.3),
}
"""KITTI-STEP with ResNet-50: STQ, AQ, SQ, VPQ; VSPW with ResNet-101: mIoU, mVC8, mVC16."""
TRACKING, SEMANTIC = ("stq", "aq", "sq", "vpq"), ("miou", "mvc8", "mvc16")
TITLES = {"miou": "mIoU", "mvc8": "mVC8", "mvc16": "mVC16"}


@dataclass(frozen=True)
class Size:
    """How much is done."""

    steps: int
    cached: int
    seeds: int
    clips: int
    frames: int
    streets: int


SIZES = {
    "minutes": Size(20, 16, seeds=1, clips=1, frames=20, streets=2),
    "hour": Size(500, 600, seeds=3, clips=4, frames=30, streets=60),
    "hours": Size(5000, 4000, seeds=3, clips=10, frames=60, streets=400),
}


@dataclass(frozen=True)
class Job:
    """A system with a seed."""

    name: str
    seed: int
    size: Size
    data: Path
    out: Path

    @property
    def system(self) -> System:
        return SYSTEMS[self.name]

    @property
    def folder(self) -> Path:
        return self.out / f"{slug(self.name)}_{self.seed}"

    @property
    def result(self) -> Path:
        return self.folder / "result.json"

    @property
    def depth(self) -> Path:
        return self.folder / "depth.json"

    def run(self) -> None:
        """Train what is not trained yet, then score it."""
        if not self.result.exists():
            self.train()
            export_checkpoint(self.folder / "last.safetensors", self.folder / "model.onnx")
            write(self.result, self.scores())
        if self.system.model.learns_depth and not self.depth.exists():
            runtime = OnnxRuntime(self.folder / "model.onnx", threads=1)
            streets = range(HELD_OUT_SEED, HELD_OUT_SEED + self.size.clips)
            tracking = tracker_settings(self.system.trackers[0])
            write(self.depth, evaluate_depth(runtime, streets, self.size.frames, tracking))

    def train(self) -> None:
        """Begin, continue, or leave the run, if it is done."""
        last = RunFiles(self.folder).last
        if last.exists() and read_metadata(last)["step"] == self.size.steps:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        model = self.system.model
        (self.folder / "model.yaml").write_text(yaml.safe_dump(to_dict(model)))
        (self.folder / "run.yaml").write_text(yaml.safe_dump(self.settings(model)))
        trainer = Trainer(self.folder / "run.yaml", self.folder, self.data)
        if trainer.files.state.exists():
            trainer.resume()
        trainer.cached = encoded_once(trainer)
        trainer.run()

    def settings(self, model: NetworkConfig) -> dict[str, Any]:
        """Pairs of images with pasted objects and of synthetic streets, half and half."""
        steps, tracked = self.size.steps, self.name == "Video K-Net"
        losses = {"rank": 0.3, "stage_rank": 0.5, "balance": 0.5, "track": 0.5, "track_aux": 2.0}
        return {
            **{"model": "model.yaml", "steps": steps, "batch": 4, "seed": self.seed},
            **{"train": "decoder", "cached_clips": self.size.cached, "workers": 0, "threads": 1},
            **{"init": os.path.relpath(START, self.folder), "init_part": "backbone"},
            **{"height": HEIGHT, "width": WIDTH, "warmup_steps": steps // 20},
            **{"learning_rate": 1e-3, "clip_norm": 2.0, "checkpoint_every": 50},
            "losses": losses | ({} if tracked else NO_TRACK_LOSS),
            "data": {
                **{"copy_paste_weight": 0.5, "max_sprites": 7, "crowd": True, "causal": True},
                **{"sprites": ["sprites", "sprites_coco"], "synthetic_seeds": self.size.streets},
                "street_cache": os.path.abspath(self.out.parent / "streets"),
            },
        }

    def scores(self) -> dict[str, dict[str, dict[str, float]]]:
        """By set of clips, then by tracker."""
        runtime = OnnxRuntime(self.folder / "model.onnx", threads=1)
        births = self.system.birth_score
        changed = {} if births is None else {"birth_score": births}
        trackings = {name: tracker_settings(name, **changed) for name in self.system.trackers}
        found = {}
        for name in SETS:
            clips = cached_clips(name, self.data, self.size.clips)
            if trackings:
                found[name] = evaluate_clips(runtime, clips, self.size.frames, trackings)
            else:
                found[name] = {"": semantic_scores(runtime, clips, self.size.frames)}
        return found


def write(path: Path, scores: Any) -> None:
    """All of it, or nothing."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(scores))
    partial.replace(path)


CACHES: dict[tuple[str, bool], CachedClips] = {}


def encoded_once(trainer: Trainer) -> CachedClips:
    """The pairs that all systems of a task learn from, whatever the seed of their run."""
    model = trainer.model.config
    key = (model.task, model.learns_depth)
    if key not in CACHES:
        freeze(trainer.model, trainer.config)
        trainer.dataset.config = replace(trainer.config, seed=0)
        CACHES[key] = CachedClips(trainer.dataset, trainer.model, trainer.device)
    return CACHES[key]


def semantic_scores(
    runtime: OnnxRuntime, clips: Iterable[StreetClip], frames: int
) -> dict[str, float]:
    """mIoU, mVC8 and mVC16 of the first frames of clips."""
    quality = VideoSemanticConsistency(len(runtime.info.classes), void=(NO_CLASS,))
    ids = street_ids(runtime.info.classes, "the clips")
    for number, clip in enumerate(clips):
        predictor = VideoPredictor(runtime)
        for t in range(frames):
            truth = clip.frame(t).relabelled(ids)
            frame = predictor.step(truth.image, round(t * 1e9 / clip.fps))
            quality.update(truth.semantic, frame.semantic_map(), str(number))
        quality.close(str(number))
    result = quality.compute()
    return {"miou": result.miou, **{f"mvc{n}": value for n, value in result.mvc.items()}}


def costs(jobs: Sequence[Job], rounds: int = 15) -> dict[str, tuple[float, float, float]]:
    """Parameters [M], GFLOP and the median time [ms] of a step of each finished system, on one
    thread of ONNX Runtime; the systems take turns."""
    done = {job.name: job for job in jobs if job.result.exists()}
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    engines = {name: OnnxRuntime(job.folder / "model.onnx", 1) for name, job in done.items()}
    states = {name: engine.step(image, None)[1] for name, engine in engines.items()}
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, engine in engines.items():
            begin = time.perf_counter()
            engine.step(image, states[name])
            times[name].append(1e3 * (time.perf_counter() - begin))
    found = {}
    for name, job in done.items():
        total = model_cost(job.system.model, HEIGHT, WIDTH)[-1]
        found[name] = (total.parameters / 1e6, total.gflops, float(np.median(times[name])))
    return found


TOY_TRACKERS = ("kernels", "unitrack", "iou", "sort")
TOY_SETS = ("synthetic", "pasted", "kitti_0002", "davis_objects")


def toy_experiment(data: Path, out: Path, size: Size) -> dict[str, dict[str, dict[str, float]]]:
    """The poster's toy experiment, by set and tracker: raw kernels against other trackers, on the
    image network inside the shipped street model, which was trained for hours."""
    result = out / "toy.json"
    if not result.exists():
        start = load_model(START)
        kernels = replace(start.config.kernels, **NO_TRACKING, sticky=False)
        network = VideoKNet(replace(start.config, kernels=kernels))
        start_from(network, start.state_dict())
        export_onnx(network, out / "toy.onnx", "toy")
        runtime = OnnxRuntime(out / "toy.onnx", threads=1)
        trackings = {name: tracker_settings(name) for name in TOY_TRACKERS}
        clips = open_sets(data, TOY_SETS, size.clips)
        scores = {
            name: compare(
                runtime, true_clips(runtime, own, size.clips, 2 * size.frames), trackings, [CLEAN]
            )[CLEAN]
            for name, own in clips.items()
        }
        write(result, scores)
    found: dict[str, dict[str, dict[str, float]]] = json.loads(result.read_text())
    return found


def toy_table(scores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[str]:
    """STQ and AQ in hundredths, and changes of id."""
    yield f"| STQ / AQ / IDSW | {' | '.join(scores)} |"
    yield "|---" * (1 + len(scores)) + "|"
    for tracker in TOY_TRACKERS:
        cells = [
            f"{100 * row['stq']:.1f} / {100 * row['aq']:.1f} / {row['idsw']:.0f}"
            for row in (by_tracker[tracker] for by_tracker in scores.values())
        ]
        yield f"| K-Net, {tracker} | {' | '.join(cells)} |"


Results = Mapping[tuple[str, str], Mapping[int, Mapping[str, Mapping[str, float]]]]
"""By system and tracker, seed, set and score."""


def results_of(jobs: Sequence[Job]) -> Results:
    """What is finished."""
    found: dict[tuple[str, str], dict[int, dict[str, dict[str, float]]]] = {}
    for job in jobs:
        if job.result.exists():
            by_set = json.loads(job.result.read_text())
            for tracker in job.system.trackers or ("",):
                row = found.setdefault((job.name, tracker), {})
                row[job.seed] = {name: by_set[name][tracker] for name in SETS}
    return found


def cell(values: Sequence[float]) -> str:
    """Mean and standard deviation, in hundredths."""
    spread = np.std(values, ddof=min(1, len(values) - 1))
    return f"{100 * np.mean(values):.1f} ± {100 * spread:.1f}"


def table(
    results: Results, cost: Mapping[str, tuple[float, ...]], names: Sequence[str]
) -> Iterator[str]:
    """Markdown rows of the systems that have these scores."""
    rows = {key: seeds for key, seeds in results.items() if bool(key[1]) == (names is TRACKING)}
    titles = [TITLES.get(name, name.upper()) for name in names]
    heads = [f"{where} {title}" for where in SETS for title in titles]
    yield f"| | {' | '.join(heads)} | published {', '.join(titles)} | M | GFLOP | ms |"
    yield "|---" * (len(heads) + 5) + "|"
    for (name, tracker), seeds in rows.items():
        label = f"{name}, {tracker}" if tracker else name
        cells = [cell([seed[where][n] for seed in seeds.values()]) for where in SETS for n in names]
        theirs = PUBLISHED.get((name, tracker), ())
        published = " / ".join("-" if value is None else f"{value:g}" for value in theirs)
        parameters, gflops, ms = cost[name]
        yield (
            f"| {label} | {' | '.join(cells)} | {published} | {parameters:.2f} | {gflops:.2f} | "
            f"{ms:.0f} |"
        )


def orders(results: Results, score: str) -> Iterator[str]:
    """The published systems from best to worst: there and here."""
    rows = {key: seeds for key, seeds in results.items() if key in PUBLISHED}
    rows = {key: seeds for key, seeds in rows.items() if bool(key[1]) == (score == "stq")}

    def ordered(value: Any) -> str:
        names = sorted(rows, key=value, reverse=True)
        return " > ".join(f"{name}, {tracker}" if tracker else name for name, tracker in names)

    def here(where: str, key: tuple[str, str]) -> float:
        return float(np.mean([seed[where][score] for seed in rows[key].values()]))

    yield f"- published: {ordered(lambda key: PUBLISHED[key][0])}"
    for where in SETS:
        yield f"- {where}: {ordered(partial(here, where))}"


def report(jobs: Sequence[Job], out: Path) -> None:
    """Write the tables and the plot of what is finished."""
    results, cost = results_of(jobs), costs(jobs)
    lines: list[str] = []
    for title, names in (("Panoptic", TRACKING), ("Semantic", SEMANTIC)):
        lines += [f"**{title}**, in hundredths, mean ± standard deviation over the seeds", ""]
        lines += [*table(results, cost, names), "", f"By {names[0]}, from best to worst:", ""]
        lines += [*orders(results, names[0]), ""]
    depths = [json.loads(job.depth.read_text()) for job in jobs if job.depth.exists()]
    if depths:
        means = [f"{n} {np.mean([depth[n] for depth in depths]):.3f}" for n in depths[0]]
        lines += [f"Depth of ViP-DeepLab on synthetic streets: {', '.join(means)}", ""]
    toy = out / "toy.json"
    if toy.exists():
        lines += ["**Toy experiment**", "", *toy_table(json.loads(toy.read_text())), ""]
    (out / "table.md").write_text("\n".join(lines))
    print("\n".join(lines))
    plot(results, cost, out / "plot.png")


def plot(results: Results, cost: Mapping[str, tuple[float, ...]], path: Path) -> None:
    """STQ over the cost of a step, a point for each seed."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no plot: pip install matplotlib")
        return
    figure, axes = pyplot.subplots(1, len(SETS), figsize=(12, 4.5), sharey=True)
    for axis, where in zip(axes, SETS, strict=True):
        for (name, tracker), seeds in results.items():
            if tracker:
                values = [100 * seed[where]["stq"] for seed in seeds.values()]
                points = axis.plot([cost[name][1]] * len(values), values, ".", alpha=0.5)
                axis.plot(cost[name][1], np.mean(values), "o", color=points[0].get_color())
                axis.annotate(f" {name}, {tracker}", (cost[name][1], np.mean(values)), fontsize=7)
        axis.set(title=f"{where} clips", xlabel="GFLOP of a step")
    axes[0].set_ylabel("STQ")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the data root of training")
    parser.add_argument("--out", type=Path, default=Path("runs/poster"))
    parser.add_argument("--size", choices=SIZES, default="hour", help="default: hour")
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="default: all")
    parser.add_argument("--report", action="store_true", help="train nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    size, out = SIZES[args.size], args.out / args.size
    out.mkdir(parents=True, exist_ok=True)
    if not args.report and not args.only:
        toy_experiment(args.data, out, size)
    if not args.report:
        for seed in args.seeds or range(size.seeds):
            for name in args.only or SYSTEMS:
                Job(name, seed, size, args.data, out).run()
    names = [(name, seed) for name in SYSTEMS for seed in range(size.seeds)]
    report([Job(*of, size, args.data, out) for of in names], out)


if __name__ == "__main__":
    main()
