"""Pyramid to the feature map that kernels are multiplied with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from ..config import SEMANTIC_NECKS, NeckConfig
from .backbone import BN_EPS
from .decoders import AtrousPyramid, PyramidPooling, resize_like
from .position import sine_position


class _SeparableConv(nn.Module):
    """Depthwise k x k, then pointwise 1x1, each with BN; ReLU at the end."""

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False
        )
        self.depthwise_norm = nn.BatchNorm2d(channels, eps=BN_EPS)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(channels, eps=BN_EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise_norm(self.depthwise(x))
        return relu(self.pointwise_norm(self.pointwise(x)))


def _conv_bn(inputs: int, outputs: int) -> nn.Sequential:
    """1x1 convolution with BN, no activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs, eps=BN_EPS)
    )


def _conv_gn(channels: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """k x k convolution with GroupNorm (32 groups) and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel, stride, kernel // 2, bias=False),
        nn.GroupNorm(32, channels),
        nn.ReLU(),
    )


class LeanNeck(nn.Module):
    """A feature pyramid of separable convolutions, merged at `stride` 4 or 8.

    Position enters at stride 32 (sine encoding, as in the authors' semantic FPN, where kernels need
    it to separate two equal cars); context from the image mean enters there too.
    [B,Ci,H/s,W/s] for s in 4, 8, 16, 32 -> [B,C,H/stride,W/stride].
    """

    def __init__(self, inputs: Sequence[int], config: NeckConfig) -> None:
        super().__init__()
        channels = config.channels
        self.finest = 0 if config.stride == 4 else 1
        inputs = inputs[self.finest :]
        self.laterals = nn.ModuleList(_conv_bn(c, channels) for c in inputs)
        self.context = nn.Linear(inputs[-1], channels)
        self.smooth = nn.ModuleList(
            _SeparableConv(channels, kernel) for kernel in (3, 3, 3, 5)[self.finest :]
        )
        self.merge = _SeparableConv(channels)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        pyramid = pyramid[self.finest :]
        levels = [lateral(x) for lateral, x in zip(self.laterals, pyramid, strict=True)]
        context = self.context(pyramid[-1].to(self.context.weight.dtype).mean(dim=(2, 3)))
        x = levels[-1] + context.to(levels[-1].dtype)[:, :, None, None] + sine_position(levels[-1])
        smoothed = []
        for i in reversed(range(len(levels))):
            x = self.smooth[i](x)
            smoothed.append(x)
            if i:
                x = levels[i - 1] + resize_like(x, levels[i - 1])
        finest = smoothed[-1]
        return self.merge(finest + sum(resize_like(s, finest) for s in smoothed[:-1]))


class _FeaturePyramid(nn.Module):
    """Feature Pyramid Network (Lin et al., 2017) without norms or activations.

    [B,Ci,H/s,W/s] for s in 4, 8, 16, 32 -> the same sizes with `channels` each.
    """

    def __init__(self, inputs: Sequence[int], channels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in inputs)
        self.outputs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in inputs)

    def forward(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        levels = [lateral(x) for lateral, x in zip(self.laterals, pyramid, strict=True)]
        for i in reversed(range(1, len(levels))):
            above = interpolate(levels[i], size=levels[i - 1].shape[-2:], mode="nearest")
            levels[i - 1] = levels[i - 1] + above
        return [output(x) for output, x in zip(self.outputs, levels, strict=True)]


class SemanticFPN(nn.Module):
    """The authors' neck: a feature pyramid, and a tower on each level that brings it to stride 8.

    [B,Ci,H/s,W/s] for s in 4, 8, 16, 32 -> [B,C,H/8,W/8], the sum of the towers. Their
    `SemanticFPNWrapper` has two 1x1 convolutions more, the first layers of the kernel head here.
    """

    def __init__(self, inputs: Sequence[int], config: NeckConfig) -> None:
        super().__init__()
        channels = config.channels
        self.pyramid = _FeaturePyramid(inputs, channels)
        self.towers = nn.ModuleList(
            (
                nn.ModuleList([_conv_gn(channels, 3, stride=2)]),
                *(nn.ModuleList(_conv_gn(channels, 3) for _ in range(n)) for n in (1, 2, 3)),
            )
        )

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        levels = self.pyramid(pyramid)
        levels[-1] = levels[-1] + sine_position(levels[-1])
        return torch.stack(
            [self._climb(tower, x) for tower, x in zip(self.towers, levels, strict=True)]
        ).sum(0)

    @staticmethod
    def _climb(tower: nn.Module, x: Tensor) -> Tensor:
        """Convolutions with a doubling of the size between each two."""
        for i, layer in enumerate(tower.children()):
            if i:
                x = interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = layer(x)
        return x


Neck = LeanNeck | SemanticFPN | PyramidPooling | AtrousPyramid
_NECKS: dict[str, type[Neck]] = {
    "lean": LeanNeck,
    "semantic_fpn": SemanticFPN,
    "pyramid_pooling": PyramidPooling,
    "atrous_pyramid": AtrousPyramid,
}


def build_neck(config: NeckConfig, inputs: Sequence[int]) -> Neck:
    """The neck of `config` on a pyramid with `inputs` channels."""
    return _NECKS[config.name](inputs, config)


def build_head_branch(config: NeckConfig) -> nn.Module:
    """One of the branches that the kernel head grows on the neck's map: one for things and one for
    stuff, or one for classes. The decoders of semantic segmentation have none."""
    if config.name in SEMANTIC_NECKS:
        return nn.Identity()
    if config.name == "semantic_fpn":
        return nn.Sequential(_conv_gn(config.channels), _conv_gn(config.channels))
    return nn.Sequential(*_conv_bn(config.channels, config.channels), nn.ReLU())
