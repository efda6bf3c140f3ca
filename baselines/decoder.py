"""The decoder of Panoptic-DeepLab, and the heads on it.

Cheng et al., "Panoptic-DeepLab", CVPR 2020, section 3.1 and figure 2: semantics and instances have
an atrous pyramid (ASPP) and a decoder each. Widths are those of the authors' public configurations
(google-research/deeplab2), relative to `BaselineConfig.channels`, 256 there. As in those, maps of
stride 8 and 4 are fused also where the coarsest has stride 32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from video_knet_core.model.backbone import BN_EPS
from video_knet_core.model.neck import adaptive_average

RATES = (6, 12, 18)
"""Dilations of the atrous pyramid at output stride 16. At other strides the kernels reach as many
pixels of the image: 3, 6, 9 at stride 32 (as in deeplab2), 12, 24, 36 at stride 8."""
DROPOUT = 0.1
"""Of the features of the atrous pyramid, in training."""
HEAD_CHANNELS = 32
"""Of the heads on the instance decoder."""


class Decoder(nn.Module):
    """Atrous pyramid on the coarsest map, then two steps to stride 4.

    Each step enlarges the features, joins them with a map of the backbone that a 1x1 convolution
    has made narrow, and fuses both by a separable 5x5 convolution.
    [B,Ci,H/s,W/s] for s in 4, 8, 16, 32 (or 4, 8, 8, 8) -> [B,channels,H/4,W/4].

    Args:
        inputs: channels of the four maps.
        channels: of the output.
        context: channels of the atrous pyramid.
        skips: channels to which the maps of stride 8 and 4 are reduced.
        output_stride: of the coarsest map.
    """

    def __init__(
        self,
        inputs: Sequence[int],
        channels: int,
        context: int,
        skips: tuple[int, int],
        output_stride: int = 32,
    ) -> None:
        super().__init__()
        rates = [rate * 16 // output_stride for rate in RATES]
        self.context = _AtrousPyramid(inputs[3], context, rates)
        self.skips = nn.ModuleList(
            conv_bn_relu(inputs[level], skip) for level, skip in zip((1, 0), skips, strict=True)
        )
        self.fusions = nn.ModuleList(
            separable(width + skip, channels)
            for width, skip in zip((context, channels), skips, strict=True)
        )

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        x = self.context(pyramid[3])
        for skip, fusion, finer in zip(
            self.skips, self.fusions, (pyramid[1], pyramid[0]), strict=True
        ):
            x = fusion(torch.cat((enlarged_like(x, finer), skip(finer)), 1))
        return x


def semantic_decoder(inputs: Sequence[int], channels: int, output_stride: int) -> Decoder:
    """That of the semantic branch, as wide as `channels`."""
    return Decoder(inputs, channels, channels, (channels // 4, channels // 8), output_stride)


def instance_decoder(inputs: Sequence[int], channels: int, output_stride: int) -> Decoder:
    """That of the instance branch: half as wide after its atrous pyramid, `instance_width`."""
    width = instance_width(channels)
    skips = max(channels // 8, 8), max(channels // 16, 8)
    return Decoder(inputs, width, channels, skips, output_stride)


def instance_width(channels: int) -> int:
    """Channels of the map of the instance decoder; narrow networks have at least 32."""
    return max(channels // 2, HEAD_CHANNELS)


def head(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """What a decoder's map predicts: separable 5x5, then 1x1, [B,inputs,h,w] -> [B,outputs,h,w]."""
    last = nn.Conv2d(width, outputs, 1)
    nn.init.trunc_normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    return nn.Sequential(separable(inputs, width), last)


def conv_bn_relu(inputs: int, outputs: int, dilation: int = 0) -> nn.Sequential:
    """1x1 convolution, or 3x3 with a `dilation`; BN and ReLU."""
    kernel = 3 if dilation else 1
    conv = nn.Conv2d(
        inputs, outputs, kernel, padding=dilation, dilation=max(dilation, 1), bias=False
    )
    return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=BN_EPS), nn.ReLU())


def separable(inputs: int, outputs: int) -> nn.Sequential:
    """Depthwise 5x5, then pointwise 1x1, each with BN and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 5, padding=2, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs, eps=BN_EPS),
        nn.ReLU(),
        *conv_bn_relu(inputs, outputs),
    )


def enlarged_like(x: Tensor, target: Tensor) -> Tensor:
    """Bilinear, to the height and width of `target`."""
    return interpolate(x, size=target.shape[-2:], mode="bilinear", align_corners=False)


class _AtrousPyramid(nn.Module):
    """Convolutions of several dilations and the mean of the image, joined: [B,C,h,w] -> [B,c,h,w].

    The branch of the image mean has no BN, as in detectron2: there is one value per image, and so
    few have no useful statistics.
    """

    def __init__(self, inputs: int, channels: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(conv_bn_relu(inputs, channels, rate) for rate in (0, *rates))
        self.image = nn.Sequential(nn.Conv2d(inputs, channels, 1), nn.ReLU())
        self.project = conv_bn_relu((len(self.branches) + 1) * channels, channels)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        seen = [branch(x) for branch in self.branches]
        image = self.image(adaptive_average(x, 1)).expand_as(seen[0])
        return self.dropout(self.project(torch.cat((*seen, image), 1)))
