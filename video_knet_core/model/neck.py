"""Pyramid to the feature map that kernels are multiplied with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from .backbone import BN_EPS


class SeparableConv(nn.Module):
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


def conv_bn(inputs: int, outputs: int) -> nn.Sequential:
    """1x1 convolution with BN, no activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs, eps=BN_EPS)
    )


class LeanNeck(nn.Module):
    """A feature pyramid of separable convolutions, merged at stride 4.

    Position enters at stride 32 (sine encoding, as in the authors' semantic FPN, where kernels need
    it to tell two equal cars apart); context from the image mean enters there too.
    [B,Ci,H/s,W/s] for s in 4, 8, 16, 32 -> [B,C,H/4,W/4].
    """

    def __init__(self, inputs: Sequence[int], channels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(conv_bn(c, channels) for c in inputs)
        self.context = nn.Linear(inputs[-1], channels)
        self.smooth = nn.ModuleList(
            SeparableConv(channels, kernel) for kernel in (3, 3, 3, 5)[: len(inputs)]
        )
        self.merge = SeparableConv(channels)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        levels = [lateral(x) for lateral, x in zip(self.laterals, pyramid, strict=True)]
        context = self.context(pyramid[-1].mean(dim=(2, 3)))[:, :, None, None]
        x = levels[-1] + context + sine_position(levels[-1])
        smoothed = []
        for i in reversed(range(len(levels))):
            x = self.smooth[i](x)
            smoothed.append(x)
            if i:
                x = levels[i - 1] + _resize_like(x, levels[i - 1])
        finest = smoothed[-1]
        return self.merge(finest + sum(_resize_like(s, finest) for s in smoothed[:-1]))


def sine_position(x: Tensor, temperature: float = 1e4) -> Tensor:
    """Sine position encoding [1,C,h,w] for a map `x` [B,C,h,w]: first half y, second half x.

    Source: SinePositionalEncoding with normalisation (positions 1/h .. 1 times 2 pi), channels
    interleaved sine / cosine.
    """
    channels, height, width = x.shape[1:]
    half = channels // 2
    index = torch.arange(half, device=x.device)
    divisor = temperature ** (2 * index.div(2, rounding_mode="floor") / half)

    def encode(n: int) -> Tensor:
        position = torch.arange(1, n + 1, device=x.device) * (2 * math.pi / n)
        angle = position[:, None] / divisor[None]  # [n, half]
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)

    y = encode(height).T[:, :, None].expand(half, height, width)
    across = encode(width).T[:, None, :].expand(half, height, width)
    return torch.cat((y, across)).to(x.dtype)[None]


def _resize_like(x: Tensor, target: Tensor) -> Tensor:
    return interpolate(x, size=target.shape[-2:], mode="bilinear", align_corners=False)
