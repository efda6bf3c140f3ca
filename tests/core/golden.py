"""Numbers recorded from the authors' own code, and our network with the weights they were made by.

`small`: ResNet-50 with base width 8, 64 channels, 20 thing kernels, three frames of 124 x 250
pixels padded to 128 x 256. `official`: the published widths with seeded weights.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from networks import CONFIGS
from torch import Tensor

from video_knet_core.config import BackboneConfig, ModelConfig
from video_knet_core.config_io import load_yaml
from video_knet_core.model.official import import_official
from video_knet_core.model.video_knet import VideoKNet

FIXTURES = Path(__file__).parents[1] / "fixtures" / "video_knet"
IMAGE_SIZE = (124, 250)
KITTI_STEP = CONFIGS / "models" / "kitti_step_r50.yaml"


@functools.cache
def golden(name: str) -> dict[str, np.ndarray]:
    """Everything in the file `name`, as it was stored."""
    with np.load(FIXTURES / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def tensor(name: str, key: str) -> Tensor:
    """One recorded tensor as float32."""
    return torch.from_numpy(np.asarray(golden(name)[key], np.float32))


def official_config(**kernels: object) -> ModelConfig:
    config = load_yaml(ModelConfig, KITTI_STEP)
    return replace(config, kernels=replace(config.kernels, **kernels))


def small_config(**kernels: object) -> ModelConfig:
    """The configuration of the small recorded model."""
    config = official_config(things=20, feedforward=128, **kernels)
    return replace(
        config,
        height=IMAGE_SIZE[0],
        width=IMAGE_SIZE[1],
        backbone=BackboneConfig("resnet50", width=8),
        neck=replace(config.neck, channels=64),
    )


def small_weights() -> dict[str, Tensor]:
    """The recorded weights by the authors' names."""
    return dict(_small_weights())


@functools.cache
def _small_weights() -> dict[str, Tensor]:
    files = golden("small")
    return {k[2:]: torch.from_numpy(_wide(v)) for k, v in files.items() if k.startswith("w/")}


def small_model(**kernels: object) -> VideoKNet:
    """The small model; weights that were not recorded (kernel fusion) are seeded."""
    weights = small_weights()
    config = small_config(**kernels)
    if kernels.get("linking") == "update":
        weights = {k: v for k, v in weights.items() if ".attention_previous" not in k}
        weights = {k: v for k, v in weights.items() if ".link_ffn" not in k}
        weights |= seeded(_temporal_shapes(("_track", "_link")))
    return import_official(weights, config)


def seeded(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Weights that depend on their names alone, as the recordings have them."""
    return {key: torch.from_numpy(seeded_fill(key, shape, seed)) for key, shape in shapes.items()}


def seeded_fill(key: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    random = np.random.RandomState((zlib.crc32(key.encode()) ^ seed) & 0x7FFFFFFF)
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if key.endswith("running_mean"):
        values = 0.1 * random.randn(*shape)
    elif key.endswith("running_var"):
        values = 0.5 + random.rand(*shape)
    elif key.endswith("weight") and len(shape) == 1:
        values = 0.75 + 0.5 * random.rand(*shape)
    elif key.endswith("bias"):
        values = 0.1 * random.randn(*shape)
    else:
        values = random.randn(*shape) * 1.4 / np.sqrt(np.prod(shape[1:]))
    return values.astype(np.float32).astype(np.float16).astype(np.float32)


def official_shapes() -> dict[str, tuple[int, ...]]:
    """Name and shape of all 549 tensors of the published KITTI-STEP R50 model."""
    rows = (FIXTURES / "state_dict_keys.txt").read_text().splitlines()
    fields = (row.split("\t") for row in rows if row.strip())
    return {
        key: tuple(int(n) for n in shape.strip("(),").split(",") if n) for key, shape, _ in fields
    }


def image(name: str, frame: int) -> Tensor:
    """Pixels 0..255 [3,124,250] of a recorded frame, which was stored normalised and padded."""
    padded = tensor(name, f"f{frame}/img").reshape(3, 128, 256)
    normalized = padded[:, : IMAGE_SIZE[0], : IMAGE_SIZE[1]]
    mean, std = (
        torch.tensor(v)[:, None, None] for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    )
    return normalized * std + mean


def _temporal_shapes(suffixes: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the linking ("_track") and fusion ("_link") modules of the last stage."""
    root, channels, wide = "roi_head.mask_head.2.", 64, 128
    shapes: dict[str, tuple[int, ...]] = {}
    for suffix in suffixes:
        attention = f"{root}attention_previous{suffix}.attn."
        shapes[f"{attention}in_proj_weight"] = (3 * channels, channels)
        shapes[f"{attention}in_proj_bias"] = (3 * channels,)
        linear = {f"{attention}out_proj": (channels, channels)}
        update = f"{root}attention_previous_update{suffix}."
        linear |= {
            f"{update}{n}": (2 * channels, channels) for n in ("dynamic_layer", "input_layer")
        }
        linear |= {
            f"{update}{n}": (channels, channels) for n in ("input_gate", "update_gate", "fc_layer")
        }
        linear[f"{root}link_ffn{suffix}.layers.0.0"] = (wide, channels)
        linear[f"{root}link_ffn{suffix}.layers.1"] = (channels, wide)
        norms = [
            f"{update}{n}"
            for n in ("norm_in", "norm_out", "input_norm_in", "input_norm_out", "fc_norm")
        ]
        norms += [f"{root}{n}{suffix}" for n in ("attention_previous_norm", "link_ffn_norm")]
        for name, shape in linear.items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        for name in norms:
            shapes |= {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}
    return shapes


def _wide(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32) if value.dtype == np.float16 else value
