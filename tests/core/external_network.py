"""A network of another package, for tests: half the image is road, half sky; the state counts
frames."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import torch
from networks import small_config
from torch import Tensor, nn

from video_knet_core.config import BackboneConfig, NetworkConfig
from video_knet_core.config_io import settings_class
from video_knet_core.model.kernels import PreviousKernels
from video_knet_core.model.network import ENTRY_POINTS, ExternalNetwork, Frames


@settings_class
class CountingConfig(NetworkConfig):
    """Settings of `CountingNetwork`."""

    network: str = "counting"

    def state_shape(self, size: tuple[int, int]) -> tuple[int, int]:
        return 3, 2


class CountingNetwork(ExternalNetwork):
    """Slot 0 is a vehicle without pixels, slots 1 and 2 are road and sky."""

    Config = CountingConfig

    def __init__(self, config: CountingConfig) -> None:
        super().__init__(BackboneConfig())
        self.config = config
        self.classifier = nn.Conv2d(self.backbone.channels[0], 2, 1)

    def segment_frame(self, pixels: Tensor, previous: PreviousKernels | None) -> dict[str, Tensor]:
        logits = self.classifier(self.frames(pixels[None]).pyramid[0])
        rows = torch.arange(logits.shape[2])[:, None] >= logits.shape[2] // 2
        state = torch.zeros(3, 2) if previous is None else previous.kernels[0]
        segment_map = torch.where(rows, 2.0, 3.0).expand(logits.shape[2:])
        return {
            "segment_map": segment_map.to(torch.uint8),
            "class_ids": torch.tensor([10, 0, 7]),
            "scores": torch.tensor([0.0, 1.0, 1.0]),
            "areas": torch.stack([(segment_map == slot).sum() for slot in (1, 2, 3)]),
            "embeddings": torch.zeros(3, 1),
            "kernels": state + 1 + 0 * logits.mean(),
        }

    def losses(self, frames: Frames, targets: Any, sides: int) -> dict[str, Tensor]:
        return {"size": self.classifier(frames.pyramid[0]).square().mean()}


def counting_network() -> CountingNetwork:
    torch.manual_seed(0)
    return CountingNetwork(CountingConfig(small_config().classes, height=64, width=96))


def install(monkeypatch) -> None:
    """As if a package with this network were installed."""
    found = {"counting": EntryPoint("counting", f"{__name__}:CountingNetwork", ENTRY_POINTS)}
    monkeypatch.setattr("video_knet_core.model.network.plugins", lambda group: found)
