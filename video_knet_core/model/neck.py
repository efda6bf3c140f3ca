"""Pyramid to the feature map that kernels are multiplied with: necks, and decoders of semantics.

The decoders, PSPNet's and DeepLabv3+'s, and their auxiliary head work on a backbone of output
stride 8, where the last three maps of a pyramid have that stride. Layers and widths are those of
MMSegmentation's `psp_head.py`, `sep_aspp_head.py` and `fcn_head.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from ..config import SEMANTIC_NECKS, NeckConfig
from .backbone import BN_EPS
from .position import sine_position

DROPOUT = 0.1
"""Of the features of a pixel classifier, in training."""
POOLS = (1, 2, 3, 6)
"""Cells in a row and in a column of each level of pyramid pooling."""
_RATES = (12, 24, 36)
"""Dilations of the atrous pyramid, for output stride 8."""
_DETAIL_CHANNELS = 48
"""Channels to which DeepLabv3+ reduces the map of stride 4."""
AUXILIARY_LEVEL = 2
"""The map of the pyramid that the auxiliary head learns on."""


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


class _LeanNeck(nn.Module):
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
                x = levels[i - 1] + _resize_like(x, levels[i - 1])
        finest = smoothed[-1]
        return self.merge(finest + sum(_resize_like(s, finest) for s in smoothed[:-1]))


class DetailBranch(nn.Sequential):
    """The finest map of a pyramid, for the boundaries of masks: [B,Ci,H/4,W/4] -> [B,C,H/4,W/4]."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__(
            *_conv_bn(inputs, channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
        )


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


class _SemanticFPN(nn.Module):
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


class _PyramidPooling(nn.Module):
    """The decoder of PSPNet (Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017).

    The last map is averaged in 1, 4, 9 and 36 cells, and each pixel gets the cells that it lies in.
    [B,Ci,H/s,W/s] for s in 4, 8, 8, 8 -> [B,C,H/8,W/8]. Training needs batches of two or more.
    """

    def __init__(self, inputs: Sequence[int], config: NeckConfig) -> None:
        super().__init__()
        channels = config.channels
        self.pools = nn.ModuleList(_conv_bn_relu(inputs[-1], channels) for _ in POOLS)
        self.bottleneck = _conv_bn_relu(inputs[-1] + len(POOLS) * channels, channels, kernel=3)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        last = pyramid[-1]
        pooled = [
            _resize_like(layer(adaptive_average(last, cells)), last)
            for layer, cells in zip(self.pools, POOLS, strict=True)
        ]
        return self.bottleneck(torch.cat((last, *pooled), 1))


class _AtrousPyramid(nn.Module):
    """The decoder of DeepLabv3+ (Chen et al., ECCV 2018), after its encoder's atrous pyramid.

    Convolutions of several dilations on the last map are joined, then enlarged and joined with the
    first, finer map.
    [B,Ci,H/s,W/s] for s in 4, 8, 8, 8 -> [B,C,H/4,W/4]. Training needs batches of two or more.
    """

    def __init__(self, inputs: Sequence[int], config: NeckConfig) -> None:
        super().__init__()
        channels = config.channels
        self.image = _conv_bn_relu(inputs[-1], channels)
        self.branches = nn.ModuleList([_conv_bn_relu(inputs[-1], channels)])
        self.branches.extend(_separable(inputs[-1], channels, rate) for rate in _RATES)
        self.bottleneck = _conv_bn_relu((2 + len(_RATES)) * channels, channels, kernel=3)
        self.detail = _conv_bn_relu(inputs[0], _DETAIL_CHANNELS)
        self.merge = nn.Sequential(
            _separable(channels + _DETAIL_CHANNELS, channels), _separable(channels, channels)
        )

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        first, last = pyramid[0], pyramid[-1]
        image = _resize_like(self.image(adaptive_average(last, 1)), last)
        seen = [branch(last) for branch in self.branches]
        context = self.bottleneck(torch.cat((image, *seen), 1))
        return self.merge(torch.cat((_resize_like(context, first), self.detail(first)), 1))


class AuxiliaryHead(nn.Module):
    """A classifier of the pixels of an inner map, to teach the backbone (PSPNet, section 3.3).

    [B,Ci,h,w] -> [B,K,h,w].
    """

    def __init__(self, inputs: int, channels: int, classes: int) -> None:
        super().__init__()
        self.layers = _conv_bn_relu(inputs, channels, kernel=3)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.layers(x)))


def _conv_bn_relu(inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
    """k x k convolution with BN and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def _separable(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    """Depthwise 3x3, then pointwise 1x1, each with BN and ReLU."""
    return nn.Sequential(
        nn.Conv2d(
            inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False
        ),
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        *_conv_bn_relu(inputs, outputs),
    )


def adaptive_average(x: Tensor, cells: int) -> Tensor:
    """Averages of cells x cells parts of a map: [B,C,h,w] -> [B,C,cells,cells].

    The same as `adaptive_avg_pool2d`, as two products with constant matrices: that exports for any
    size of the map. So many numbers are added up in float32, whatever the type of the map.
    """
    rows, columns = (_averaging_matrix(cells, size, x) for size in x.shape[-2:])
    return (rows @ (x.to(rows.dtype) @ columns.T)).to(x.dtype)


def _averaging_matrix(cells: int, size: int, like: Tensor) -> Tensor:
    """[cells,size]: row i has equal weights from floor(i size / cells) to below
    ceil((i + 1) size / cells); where cells do not divide the size they overlap."""
    shares = [[0.0] * size for _ in range(cells)]
    for i, row in enumerate(shares):
        first, last = i * size // cells, -(-(i + 1) * size // cells)
        row[first:last] = [1 / (last - first)] * (last - first)
    wide = torch.promote_types(like.dtype, torch.float32)
    return torch.tensor(shares, dtype=wide, device=like.device)


def _resize_like(x: Tensor, target: Tensor) -> Tensor:
    """Bilinear, to the height and width of `target`."""
    return interpolate(x, size=target.shape[-2:], mode="bilinear", align_corners=False)


Neck = _LeanNeck | _SemanticFPN | _PyramidPooling | _AtrousPyramid
_NECKS: dict[str, type[Neck]] = {
    "lean": _LeanNeck,
    "semantic_fpn": _SemanticFPN,
    "pyramid_pooling": _PyramidPooling,
    "atrous_pyramid": _AtrousPyramid,
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
