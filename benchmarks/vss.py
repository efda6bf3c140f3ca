#!/usr/bin/env python3
"""Do kernels help video semantic segmentation, and does looking back? CamVid, two decoders.

    python benchmarks/vss.py --data DATA [--steps 250] [--seeds 3] [--out runs/vss]

Each decoder as it is, with kernels on it, and with kernels that are fused and linked over time; on
EfficientNet-Lite0 at 192 x 256 pixels, trained on `camvid/train` (stills; the second of a pair is
the first, moved a little) and scored frame by frame on `camvid/val_clip`. The backbone stays as it
comes from ImageNet, so that a run takes minutes on a CPU; with --frozen 2 most of it learns too. It
can be stopped and started again: what is finished is kept. Prints a table in Markdown of what there
is.
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

from video_knet_core.config import ModelConfig, load_yaml, to_dict
from video_knet_core.engine.torch_runtime import TorchRuntime
from video_knet_core.evaluate.street import evaluate_camvid
from video_knet_core.training.checkpoints import RunFiles
from video_knet_core.training.trainer import Trainer

CONFIG = Path(__file__).parents[1] / "config"
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
    steps: int
    frozen: int
    """Groups of the backbone that do not learn."""
    data: Path
    out: Path

    @property
    def folder(self) -> Path:
        """Of the run; a name with nothing but letters, digits and _ in it."""
        words = f"{DECODERS[self.decoder]} {self.variant} {self.seed}"
        return self.out / "_".join("".join(c if c.isalnum() else " " for c in words).split())

    def run(self) -> None:
        """Train what is not trained yet, then score it."""
        result = self.folder / "result.json"
        if result.exists():
            return
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        self.train()
        runtime = TorchRuntime.open(RunFiles(self.folder).last, threads=1)
        scores = evaluate_camvid(runtime, self.data / "camvid" / "val_clip")
        partial = result.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(scores)))
        partial.replace(result)

    def train(self) -> None:
        """A run, begun or continued."""
        name = DECODERS[self.decoder]
        model = load_yaml(ModelConfig, CONFIG / "models" / f"{name}.yaml")
        model = replace(model, **SIZE, kernels=replace(model.kernels, **VARIANTS[self.variant]))
        settings = yaml.safe_load((CONFIG / "train" / f"{name}.yaml").read_text())
        settings |= {"model": "model.yaml", "steps": self.steps, "seed": self.seed, **CROP}
        settings |= {"batch": 2, "threads": 1, "workers": 0, "warmup_steps": self.steps // 20}
        settings |= {"average": 0.0, "checkpoint_every": 50, "validation": {}}
        settings["frozen_groups"] = self.frozen
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "model.yaml").write_text(yaml.safe_dump(to_dict(model)))
        (self.folder / "run.yaml").write_text(yaml.safe_dump(settings))
        trainer = Trainer(self.folder / "run.yaml", self.folder, self.data)
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
    results = {job.seed: job.folder / "result.json" for job in chosen}
    return {seed: json.loads(path.read_text()) for seed, path in results.items() if path.exists()}


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
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--frozen", type=int, default=7, help="groups of the backbone; 7 are all")
    parser.add_argument("--decoders", nargs="+", choices=DECODERS, default=list(DECODERS))
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each; default 2")
    parser.add_argument("--report", action="store_true", help="train nothing")
    args = parser.parse_args()
    jobs = [
        Job(decoder, variant, seed, args.steps, args.frozen, args.data, args.out)
        for seed in range(args.seeds)
        for decoder in args.decoders
        for variant in VARIANTS
    ]
    if not args.report:
        with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:
            list(pool.map(Job.run, jobs))
    print("\n".join(table(jobs)))


if __name__ == "__main__":
    main()
