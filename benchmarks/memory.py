#!/usr/bin/env python3
"""What each part that sees time brings to a trained image network.

    python benchmarks/memory.py --start IMAGE.safetensors --data DATA [--steps 400] [--seeds 3]

The rows of the paper (K-Net, + KAE, + KL, + KF), and slots that keep their objects. All start from
the same network, whose encoder stays as it is, and learn from the same clips, encoded once, for as
many steps. `video-knet eval judges` scores them: clean and spoilt clips, with and without memory.
It can be stopped and started again: finished parts are kept. `table.md` is written at the end.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from video_knet_core.config_io import load_yaml, to_dict
from video_knet_core.engine.export import export_checkpoint
from video_knet_core.engine.onnx_runtime import OnnxRuntime
from video_knet_core.evaluate.judges import judge, open_sets
from video_knet_core.model.checkpoint import load_model
from video_knet_core.tracking import tracker_settings
from video_knet_core.training.cached_clips import CachedClips
from video_knet_core.training.train_config import TrainConfig
from video_knet_core.training.trainer import Trainer

RECIPE = Path(__file__).parents[1] / "config" / "train" / "street.yaml"
NOTHING = {"embedding": False, "linking": "none", "fusion": "none", "sticky": False}
VARIANTS = {
    "K-Net": NOTHING,
    "+ KAE": NOTHING | {"embedding": True},
    "+ KL": NOTHING | {"embedding": True, "linking": "ffn"},
    "+ KF": NOTHING | {"embedding": True, "linking": "ffn", "fusion": "link_atten"},
    "+ sticky": {"embedding": True, "linking": "ffn", "fusion": "link_atten", "sticky": True},
}
TRACKERS_OF_KNET = ("kernels", "unitrack")
TRACKERS = {name: tracker_settings(name) for name in ("embedding", *TRACKERS_OF_KNET)}
SETS = ("synthetic", "pasted", "kitti_0002", "davis_objects")


def run_config(
    args: argparse.Namespace, kernels: Mapping[str, Any], folder: Path, seed: int
) -> Path:
    """The files of one run: the recipe with other kernels, steps and seed."""
    folder.mkdir(parents=True, exist_ok=True)
    model = load_model(args.start).config
    model = replace(model, kernels=replace(model.kernels, **kernels))
    (folder / "model.yaml").write_text(yaml.safe_dump(to_dict(model)))
    settings = to_dict(load_yaml(TrainConfig, RECIPE))
    settings |= {
        **{"train": "temporal", "model": "model.yaml", "init": str(args.start.resolve())},
        **{"seed": seed, "steps": args.steps, "warmup_steps": args.steps // 10},
        **{"cached_clips": args.cached_clips, "checkpoint_every": args.steps},
    }
    settings["data"]["street_cache"] = str((args.out / "streets").resolve())
    if not kernels["embedding"]:
        settings["losses"] |= {"track": 0.0, "track_aux": 0.0}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def score(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Figures by set, condition and tracker."""
    export_checkpoint(folder / "last.safetensors", folder / "model.onnx")
    runtime = OnnxRuntime(folder / "model.onnx", threads=1)
    sets = open_sets(args.data, SETS, args.clips)
    return judge(runtime, sets, args.clips, args.frames, TRACKERS).figures


def table(results: Mapping[str, list[Mapping[str, Any]]]) -> Iterator[str]:
    """STQ in hundredths, clean and spoilt: mean and standard deviation over the seeds, and in
    brackets what memory adds. K-Net has none; it is tracked by raw kernels, and by UniTrack."""

    def cell(values: list[float], sign: str = "") -> str:
        spread = np.std(values, ddof=min(1, len(values) - 1))
        return f"{100 * np.mean(values):{sign}.1f} ± {100 * spread:.1f}"

    for frames in ("clean", "spoilt"):
        yield f"**STQ, {frames} clips**\n"
        yield f"| | {' | '.join(SETS)} |"
        yield "|---" * (1 + len(SETS)) + "|"
        for name, seeds in results.items():
            for tracker in ("embedding",) if VARIANTS[name]["embedding"] else TRACKERS_OF_KNET:
                cells = []
                for where in SETS:
                    stq = [seed[where][frames][tracker]["stq"] for seed in seeds]
                    cells.append(cell(stq))
                    if name not in ("K-Net", "+ KAE"):
                        without = [seed[where][f"{frames}, no memory"][tracker] for seed in seeds]
                        gains = [on - off["stq"] for on, off in zip(stq, without, strict=True)]
                        cells[-1] += f" ({cell(gains, '+')})"
                title = name if tracker != "unitrack" else f"{name}, UniTrack"
                yield f"| {title} | {' | '.join(cells)} |"
        yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--start", type=Path, required=True, help="the image network")
    parser.add_argument("--data", type=Path, required=True, help="the data root of training")
    parser.add_argument("--out", type=Path, default=Path("runs/memory"))
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cached-clips", type=int, default=450)
    parser.add_argument("--clips", type=int, default=4, help="of each set that is judged")
    parser.add_argument("--frames", type=int, default=40, help="of each clip")
    args = parser.parse_args()
    shared: CachedClips | None = None
    results: dict[str, list[Mapping[str, Any]]] = {}
    for seed in range(args.seeds):
        for name in args.only:
            folder = args.out / f"{name.replace('+ ', 'with_').lower()}_{seed}"
            result = folder / "result.json"
            if not result.exists():
                path = run_config(args, VARIANTS[name], folder, seed)
                trainer = Trainer(path, folder, args.data)
                trainer.cached = shared
                trainer.run()
                shared = trainer.cached
                result.write_text(json.dumps(score(args, folder)))
            results.setdefault(name, []).append(json.loads(result.read_text()))
            (args.out / "table.md").write_text("\n".join(table(results)))
    print((args.out / "table.md").read_text())


if __name__ == "__main__":
    main()
