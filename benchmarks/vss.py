#!/usr/bin/env python3
"""Do kernels help video semantic segmentation, and does looking back? CamVid, two decoders.

    python benchmarks/vss.py --data DATA [--steps 250 150] [--seeds 3] [--out runs/vss]

The decoder is trained first, on `camvid/train` (images; the second of a pair is the first, moved a
little), for each seed. From it go on, for as many steps each: the decoder as it is, with kernels on
it, and with kernels that are fused and linked over time. All are scored frame by frame on
`camvid/val_clip`, at 192 x 256 pixels. The backbone, EfficientNet-Lite0, is that of the shipped
street model and stays as it is, so that a run takes minutes on a CPU; with --frozen 2 most of it
learns too. It can be stopped and started again: what is finished is kept. Prints a table in
Markdown of what there is.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml

from video_knet_core.config import ModelConfig
from video_knet_core.config_io import load_yaml, to_dict
from video_knet_core.engine.torch_runtime import TorchRuntime
from video_knet_core.evaluate.clips import evaluate_camvid
from video_knet_core.model.checkpoint import load_model, read_metadata, save_model
from video_knet_core.model.video_knet import VideoKNet
from video_knet_core.training.checkpoints import RunFiles
from video_knet_core.training.trainer import Trainer

REPO = Path(__file__).parents[1]
CONFIG, STREET_MODEL = REPO / "config", REPO / "models" / "street_lite0.safetensors"
DECODERS = {"PSPNet": "street_pspnet_lite0", "DeepLabv3+": "street_deeplabv3plus_lite0"}
STILL = {"fusion": "none", "linking": "none"}
VARIANTS: dict[str, dict[str, Any]] = {
    "decoder alone": {"stages": 0, **STILL},
    "+ kernels": STILL,
    "+ kernels, fused and linked": {},
}
"""What differs from the configuration of config/models, as keys of its kernels."""
SIZE = {"height": 192, "width": 256}
CROP = {"height": 128, "width": 160}


@dataclass(frozen=True)
class Job:
    """One network with one seed."""

    decoder: str
    variant: str
    seed: int
    steps: tuple[int, int]
    """Of the decoder that all variants start from, and of each variant."""
    frozen: int
    """Groups of the backbone that do not learn."""
    data: Path
    out: Path

    def folder(self, part: str) -> Path:
        """Of a run; a name with nothing but letters, digits and _ in it."""
        words = f"{DECODERS[self.decoder]} {part} {self.seed}"
        return self.out / "_".join("".join(c if c.isalnum() else " " for c in words).split())

    @property
    def result(self) -> Path:
        return self.folder(self.variant) / "result.json"

    def run(self) -> None:
        """Train what is not trained yet, then score it."""
        if self.result.exists():
            return
        folder, start = self.folder(self.variant), self.start()
        self.train(folder, VARIANTS[self.variant], self.steps[1], start)
        runtime = TorchRuntime.open(RunFiles(folder).last, threads=1)
        scores = evaluate_camvid(runtime, self.data / "camvid" / "val_clip")
        partial = self.result.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(scores)))
        partial.replace(self.result)

    def start(self) -> Path:
        """The decoder that the variants start from, trained if it is not yet."""
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        folder = self.folder("start")
        backbone = folder / "backbone.safetensors"
        if not backbone.exists():
            network = VideoKNet(self.model(VARIANTS["decoder alone"]))
            network.backbone.load_state_dict(load_model(STREET_MODEL).backbone.state_dict())
            save_model(network, backbone)
        self.train(folder, VARIANTS["decoder alone"], self.steps[0], backbone)
        return RunFiles(folder).last

    def model(self, kernels: Mapping[str, Any]) -> ModelConfig:
        """The configuration of the decoder with other kernels, at a smaller size."""
        path = CONFIG / "models" / f"{DECODERS[self.decoder]}.yaml"
        config = load_yaml(ModelConfig, path)
        return replace(config, **SIZE, kernels=replace(config.kernels, **kernels))

    def train(self, folder: Path, kernels: Mapping[str, Any], steps: int, init: Path) -> None:
        """A run in `folder`, begun, continued, or done already."""
        last = RunFiles(folder).last
        if last.exists() and read_metadata(last)["step"] == steps:
            return
        path = CONFIG / "train" / f"{DECODERS[self.decoder]}.yaml"
        settings = yaml.safe_load(path.read_text()) | CROP
        settings |= {"model": "model.yaml", "init": str(init.resolve()), "seed": self.seed}
        settings |= {"steps": steps, "warmup_steps": steps // 20, "checkpoint_every": 50}
        settings |= {"batch": 2, "threads": 1, "workers": 0, "average": 0.0, "validation": {}}
        settings |= {"frozen_groups": self.frozen, "rank_stride": 2}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.yaml").write_text(yaml.safe_dump(to_dict(self.model(kernels))))
        (folder / "run.yaml").write_text(yaml.safe_dump(settings))
        trainer = Trainer(folder / "run.yaml", folder, self.data)
        if trainer.files.state.exists():
            trainer.resume()
        trainer.run()


def table(jobs: Sequence[Job]) -> list[str]:
    """What is finished, a row for each network; the last columns seed by seed."""
    lines = ["| decoder | | mIoU | mVC8 | mIoU over the decoder | mVC8 over it |"]
    lines.append("|---|---|---|---|---|---|")
    for decoder in dict.fromkeys(job.decoder for job in jobs):
        found = {variant: _results(jobs, decoder, variant) for variant in VARIANTS}
        alone = found["decoder alone"]
        for variant, scores in found.items():
            cells = [_spread([row[name] for row in scores.values()]) for name in ("miou", "mvc8")]
            cells += [_gain(scores, alone, name) for name in ("miou", "mvc8")]
            lines.append(f"| {' | '.join((decoder, variant, *cells))} |")
    return lines


Scores = Mapping[int, Mapping[str, float]]
"""By seed, then by name."""


def _results(jobs: Sequence[Job], decoder: str, variant: str) -> Scores:
    chosen = [job for job in jobs if (job.decoder, job.variant) == (decoder, variant)]
    return {job.seed: json.loads(job.result.read_text()) for job in chosen if job.result.exists()}


def _gain(scores: Scores, other: Scores, name: str) -> str:
    seeds = scores.keys() & other.keys() if scores is not other else ()
    return _spread([scores[seed][name] - other[seed][name] for seed in seeds], sign="+")


def _spread(values: Sequence[float], sign: str = "") -> str:
    """Mean and standard deviation, in hundredths; nothing of nothing."""
    if not values:
        return ""
    deviation = np.std(values, ddof=min(1, len(values) - 1))
    return f"{100 * np.mean(values):{sign}.1f} ± {100 * deviation:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the data root of training")
    parser.add_argument("--out", type=Path, default=Path("runs/vss"))
    parser.add_argument("--steps", type=int, nargs=2, default=(250, 150), metavar="N")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--frozen", type=int, default=7, help="groups of the backbone; 7 are all")
    parser.add_argument("--decoders", nargs="+", choices=DECODERS, default=list(DECODERS))
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each; default 2")
    parser.add_argument("--report", action="store_true", help="train nothing")
    args = parser.parse_args()
    jobs = [
        Job(decoder, variant, seed, tuple(args.steps), args.frozen, args.data, args.out)
        for seed in range(args.seeds)
        for decoder in args.decoders
        for variant in VARIANTS
    ]
    if not args.report:
        with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:
            # what several start from first, or two would train the same
            list(pool.map(Job.start, {(job.decoder, job.seed): job for job in jobs}.values()))
            list(pool.map(Job.run, jobs))
    print("\n".join(table(jobs)))


if __name__ == "__main__":
    main()
