"""Thing kernels that start on the instances of the image instead of being learned and fixed.

A learned kernel stands for a region and must take whatever it finds there; where more objects than
kernels lie in one, several become one segment. A seed is a place that looks like the centre of an
object (a peak of a heat map, as in Zhou et al., "Objects as Points", 2019), and its kernel comes
from the features of that very cell, as in conditional convolutions (Tian et al., "CondInst", 2020).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d

from .position import CODE_SIZE

_HIDDEN = 32
"""Channels of the layer between features and heat."""
_PEAK_BONUS = 100.0
"""Logits by which every peak goes before every cell that is none."""


class Seeds(NamedTuple):
    """Places where instances are predicted, B images."""

    heat: Tensor
    """[B,1,h,w] logits of being the centre of an instance."""
    logits: Tensor
    """[B,P] those of the chosen cells, peaks first and of them the hottest."""
    kernels: Tensor
    """[B,P,C] of the chosen cells."""


def convolve_parts(convolution: nn.Conv2d, *parts: Tensor) -> Tensor:
    """A 1x1 convolution of the channels of all `parts` together, without copying them together.

    A part may have batch size 1 for all images; if it is constant, so is its part of the result,
    and an exported graph holds that instead of computing it.
    """
    weight, first = convolution.weight, parts[0].shape[1]
    total = conv2d(parts[0], weight[:, :first], convolution.bias)
    for part in parts[1:]:
        # a slice, for the exporter computes those of constants and leaves `split` in the graph
        total = total + conv2d(part, weight[:, first : first + part.shape[1]])
        first += part.shape[1]
    return total


class _HeatMap(nn.Sequential):
    """Cues, in parts [B,Ci,h,w], to the logit of being the centre of an instance [B,1,h,w]."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, _HIDDEN, 1), nn.ReLU(), nn.Conv2d(_HIDDEN, 1, 3, padding=1)
        )
        nn.init.constant_(self[-1].bias, -math.log(99))

    def forward(self, *cues: Tensor) -> Tensor:
        mix, activation, last = self
        # the last layer may be wider than the rest: in half precision many cells would be equal
        return last(activation(convolve_parts(mix, *cues)).to(last.weight.dtype))


class InstanceSeeds(nn.Module):
    """Features to `count` thing kernels.

    Slots are ordered by heat: slot i of one frame is not the object of slot i in the next.
    """

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.heat = _HeatMap(channels + CODE_SIZE)
        self.kernel = nn.Linear(channels + CODE_SIZE + 1, channels)

    def forward(self, appearance: Tensor, code: Tensor, centers: Tensor) -> Seeds:
        """Seeds of B images.

        Args:
            appearance: [B,C - `CODE_SIZE`,h,w] features without the position code.
            code: [1,`CODE_SIZE`,h,w] the place of each cell.
            centers: [B,`CODE_SIZE`,h,w] the predicted centre of the instance of each cell.
                Their product with `code` is largest where a cell is predicted to be the centre.
        """
        cues = appearance, code, centers * code
        heat = self.heat(*cues).float()
        is_peak = heat == max_pool2d(heat, 3, stride=1, padding=1)
        ranked = torch.where(is_peak, heat, heat - _PEAK_BONUS).flatten(1)
        cells = ranked.topk(self.count).indices
        # the kernel also gets the heat, so that of two seeds on one object one can give way
        chosen = [_columns(cue, cells).to(self.kernel.weight.dtype) for cue in (*cues, heat)]
        return Seeds(heat, heat.flatten(1).gather(1, cells), self.kernel(torch.cat(chosen, 2)))


def _columns(x: Tensor, cells: Tensor) -> Tensor:
    """[B or 1,C,h,w] at cells [B,P], numbered row by row -> [B,P,C]."""
    flat = x.flatten(2).expand(len(cells), -1, -1)
    return flat.gather(2, cells[:, None].expand(-1, x.shape[1], -1)).transpose(1, 2)
