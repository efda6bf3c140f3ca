"""Pyramid to the feature map that kernels are multiplied with."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from .backbone import BN_EPS
from .position import CODE_SIZE, position_map, sine_position


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
    it to tell two equal cars apart); context from the image mean enters there too. With `position`
    a finer code of the place enters at stride 4: far cars are a few cells apart.
    [B,Ci,H/s,W/s] for s in 4, 8, 16, 32 -> [B,C,H/4,W/4].
    """

    def __init__(self, inputs: Sequence[int], channels: int, position: bool = False) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(conv_bn(c, channels) for c in inputs)
        self.context = nn.Linear(inputs[-1], channels)
        self.smooth = nn.ModuleList(
            SeparableConv(channels, kernel) for kernel in (3, 3, 3, 5)[: len(inputs)]
        )
        self.merge = SeparableConv(channels)
        self.position = nn.Conv2d(CODE_SIZE, channels, 1, bias=False) if position else None
        if self.position is not None:
            nn.init.zeros_(self.position.weight)

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
        merged = finest + sum(_resize_like(s, finest) for s in smoothed[:-1])
        if self.position is not None:
            merged = merged + self.position(position_map(finest))
        return self.merge(merged)


def _resize_like(x: Tensor, target: Tensor) -> Tensor:
    return interpolate(x, size=target.shape[-2:], mode="bilinear", align_corners=False)
