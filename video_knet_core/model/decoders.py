"""The decoders of semantic segmentation: PSPNet's, DeepLabv3+'s, and the auxiliary head of both.

They stand where the necks of the other tasks do. All work on a backbone of output stride 8, where
the last three maps of a pyramid have that stride. Layers and widths are those of MMSegmentation's
`psp_head.py`, `sep_aspp_head.py` and `fcn_head.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..config import NeckConfig

DROPOUT = 0.1
"""Of the features of a pixel classifier, in training."""
POOLS = (1, 2, 3, 6)
"""Cells in a row and in a column of each level of pyramid pooling."""
_RATES = (12, 24, 36)
"""Dilations of the atrous pyramid, for output stride 8."""
_DETAIL_CHANNELS = 48
"""What DeepLabv3+ keeps of the map of stride 4."""
AUXILIARY_LEVEL = 2
"""The map of the pyramid that the auxiliary head learns on."""


class PyramidPooling(nn.Module):
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
        _check_batch(self, last)
        pooled = [
            resize_like(layer(adaptive_average(last, cells)), last)
            for layer, cells in zip(self.pools, POOLS, strict=True)
        ]
        return self.bottleneck(torch.cat((last, *pooled), 1))


class AtrousPyramid(nn.Module):
    """The decoder of DeepLabv3+ (Chen et al., ECCV 2018), after its encoder's atrous pyramid.

    The last map is seen from several distances at once, then laid over the first, finer one.
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
        _check_batch(self, last)
        image = resize_like(self.image(adaptive_average(last, 1)), last)
        seen = [branch(last) for branch in self.branches]
        context = self.bottleneck(torch.cat((image, *seen), 1))
        return self.merge(torch.cat((resize_like(context, first), self.detail(first)), 1))


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
    """[cells,size]: row i has equal shares from floor(i size / cells) to below
    ceil((i + 1) size / cells); where cells do not divide the size they overlap."""
    shares = [[0.0] * size for _ in range(cells)]
    for i, row in enumerate(shares):
        first, last = i * size // cells, -(-(i + 1) * size // cells)
        row[first:last] = [1 / (last - first)] * (last - first)
    wide = torch.promote_types(like.dtype, torch.float32)
    return torch.tensor(shares, dtype=wide, device=like.device)


def _check_batch(module: nn.Module, x: Tensor) -> None:
    if module.training and len(x) < 2:
        raise ValueError(
            f"{type(module).__name__} normalises the averages of whole images over a batch: "
            f"expected at least 2 images in training, got {len(x)}"
        )


def resize_like(x: Tensor, target: Tensor) -> Tensor:
    """Bilinear, to the height and width of `target`."""
    return interpolate(x, size=target.shape[-2:], mode="bilinear", align_corners=False)
