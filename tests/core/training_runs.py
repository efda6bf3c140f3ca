"""Small networks, frames and runs for the tests of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import golden
import numpy as np
import torch
import yaml
from networks import CONFIGS, small_config
from safetensors.torch import load_file
from torch import Tensor

from video_knet_core.config import BackboneConfig, ModelConfig, NeckConfig
from video_knet_core.config_io import load_yaml, to_dict
from video_knet_core.data.camvid import street_ids
from video_knet_core.data.pairs import FramePair
from video_knet_core.data.video import InstanceMasks
from video_knet_core.model.checkpoint import save_model
from video_knet_core.model.video_knet import VideoKNet
from video_knet_core.training.batches import Batch, collate
from video_knet_core.training.criterion import BatchCriterion, Total
from video_knet_core.training.pair_step import PairLosses
from video_knet_core.training.targets import frame_targets
from video_knet_core.training.train_config import LossWeights, TrainConfig
from video_knet_core.training.trainer import (
    Trainer,
)
from video_knet_core.training.training_tasks import TRAINING_TASKS

ROAD, POLE, SKY, PERSON, CYCLIST, VEHICLE, VOID = 0, 4, 7, 8, 9, 10, 255


MODELS = {
    "panoptic": "street_lite0",
    "semantic": "street_pspnet_lite0",
    "instance": "street_instances_lite0",
}


def small_model(task: str, name: str | None = None, **kernels: object) -> ModelConfig:
    """A model of the street for `task`, of 32 channels and 64 x 96 pixels."""
    config = load_yaml(ModelConfig, CONFIGS / "models" / f"{name or MODELS[task]}.yaml")
    things = 0 if task == "semantic" else 6
    settings = {"things": things, "attention_heads": 2, "feedforward": 64} | kernels
    return replace(
        config,
        height=64,
        width=96,
        neck=replace(config.neck, channels=32),
        kernels=replace(config.kernels, **settings),
    )


def clip(model: ModelConfig) -> FramePair:
    """Sky over road; a vehicle that moves and stands behind a person, and an unlabelled strip."""
    frames = []
    for shift in (0, 8):
        semantic, instance = np.full((64, 96), SKY, np.uint8), np.zeros((64, 96), np.int32)
        semantic[32:] = ROAD
        semantic[16:48, 16 + shift : 56 + shift], instance[16:48, 16 + shift : 56 + shift] = (
            VEHICLE,
            5,
        )
        semantic[24:56, 40:52], instance[24:56, 40:52] = PERSON, 6
        semantic[:, 88:], instance[:, 88:] = VOID, 0
        look = np.array([[90, 90, 90], [40, 90, 220], [220, 30, 30], [30, 220, 30], [0, 0, 0]])
        places = np.searchsorted([ROAD, SKY, PERSON, VEHICLE, VOID], semantic)
        frames.append((look[places].astype(np.uint8), semantic, instance))
    images, semantic, instance = (np.stack(part) for part in zip(*frames, strict=True))
    return FramePair(images, street_ids(model.classes, "test")[semantic], instance)


def inputs(model: ModelConfig, pair: FramePair, batch: int = 1) -> Batch:
    """Images and targets of `batch` times the same pair."""
    config, task = TrainConfig("", mask_stride=2, rank_stride=4), TRAINING_TASKS[model.task]
    images = torch.from_numpy(pair.images).permute(0, 3, 1, 2)
    sides = range(len(pair.images))
    targets = [task.targets(pair, side, model.classes, config) for side in sides]
    return collate([(images, targets)] * batch)


def criterion_of(
    model: ModelConfig, total: Total = torch.clone, first: int = 0, **weights: float
) -> BatchCriterion:
    """The losses of the task of a model."""
    weights = LossWeights(**weights)
    return TRAINING_TASKS[model.task].criterion(weights, model.classes, total, first)


def pair_losses(network: VideoKNet, batch: Batch, **weights: float) -> dict[str, Tensor]:
    """Every weighted loss of a batch."""
    return PairLosses(network, criterion_of(network.config, **weights))(*batch, batch[0].shape[1])


def street_labels() -> tuple[np.ndarray, np.ndarray]:
    """Sky over road, 16 x 32 pixels, with one vehicle and an unlabelled strip."""
    semantic = np.full((16, 32), SKY, np.uint8)
    semantic[8:] = ROAD
    semantic[4:12, 4:14] = VEHICLE
    semantic[:, 28:] = VOID
    instance = np.zeros((16, 32), np.int32)
    instance[4:12, 4:14] = 5
    return semantic, instance


def instance_targets(**changes: object):
    semantic, instance, whole = overlapping()
    classes = small_model("instance").classes
    arguments = {"whole": whole, "background": True} | changes
    return frame_targets(semantic, instance, classes, 4, **arguments)


def lean_semantic() -> ModelConfig:
    """Class kernels on the cheap neck of the street."""
    backbone, neck = BackboneConfig(), NeckConfig(channels=32)
    return replace(small_model("semantic"), backbone=backbone, neck=neck)


def overlapping() -> tuple[np.ndarray, np.ndarray, InstanceMasks]:
    """Vehicle 1 behind vehicle 2, a crowd (no id), and nothing labelled elsewhere."""
    semantic, instance = np.full((32, 32), VOID, np.uint8), np.zeros((32, 32), np.int32)
    whole = np.zeros((2, 32, 32), bool)
    whole[0, 4:20, 4:28], whole[1, 8:24, 12:20] = True, True
    for number, mask in enumerate(whole, start=1):
        semantic[mask], instance[mask] = 2, number
    semantic[28:, :8] = 2
    return semantic, instance, InstanceMasks(np.array([1, 2]), np.array([2, 2]), whole)


def write_run(folder: Path, model: VideoKNet, **settings: object) -> Path:
    """A tiny run on the synthetic street alone, from the weights of `model`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.yaml").write_text(yaml.safe_dump(to_dict(model.config)))
    save_model(model, folder / "start.safetensors")
    run = {
        "model": "model.yaml",
        "init": "start.safetensors",
        **{"steps": 2, "batch": 1, "height": 64, "width": 96, "warmup_steps": 0},
        **{"workers": 0, "threads": 1, "checkpoint_every": 1},
        "data": {"copy_paste_weight": 0.0, "synthetic_seeds": 1},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(run | settings))
    return path


def reference_network() -> VideoKNet:
    """The authors' layers, small, for the street: no batch norm of it learns its statistics."""
    torch.manual_seed(0)
    config = golden.small_config()
    return VideoKNet(replace(config, classes=small_config().classes, height=64, width=96))


def assert_same_weights(a: Path, b: Path, atol: float = 2e-6) -> None:
    other = load_file(b)
    for key, value in load_file(a).items():
        torch.testing.assert_close(other[key], value, rtol=0, atol=atol, msg=key)


def take_steps(trainer: Trainer, count: int) -> dict[str, torch.Tensor]:
    """The losses of the last of `count` steps."""
    ahead = trainer._clips(trainer.progress.step)
    for _ in range(count):
        values = trainer.train_step(next(ahead))
        trainer.progress.step += 1
    return values
