"""Thing kernels that start on the instances of the image instead of being learned and fixed.

A learned kernel stands for a region and must take whatever it finds there; where more objects than
kernels share one, several become one segment. A seed is a place that looks like the centre of an
object (a peak of a heat map, as in Zhou et al., "Objects as Points", 2019), and its kernel comes
from the features of that very cell, as in conditional convolutions (Tian et al., "CondInst", 2020).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from .position import CODE_SIZE

HIDDEN = 32
"""Channels of the layer between features and heat."""
PEAK_BONUS = 100.0
"""Logits by which every peak goes before every cell that is none."""


class Seeds(NamedTuple):
    """Where instances are thought to be, B images."""

    heat: Tensor
    """[B,1,h,w] logits of being the centre of an instance."""
    logits: Tensor
    """[B,P] those of the chosen cells, peaks first and of them the hottest."""
    kernels: Tensor
    """[B,P,C] of the chosen cells."""


class InstanceSeeds(nn.Module):
    """Features to `count` thing kernels.

    Slots are ordered by heat: slot i of one frame is not the object of slot i in the next.
    """

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.heat = nn.Sequential(
            nn.Conv2d(channels + CODE_SIZE, HIDDEN, 1),
            nn.ReLU(),
            nn.Conv2d(HIDDEN, 1, 3, padding=1),
        )
        self.kernel = nn.Linear(channels + CODE_SIZE + 1, channels)
        nn.init.constant_(self.heat[-1].bias, -math.log(99))

    def forward(self, features: Tensor, code: Tensor, centers: Tensor) -> Seeds:
        """Seeds of B images.

        Args:
            features: [B,C,h,w], position code included.
            code: [1,`CODE_SIZE`,h,w] the place of each cell.
            centers: [B,`CODE_SIZE`,h,w] where each cell takes the centre of its instance to be.
                Their product with `code` is largest where a cell thinks that it is the centre.
        """
        clues = torch.cat((features, centers * code), 1)
        # in half precision many cells would be equal, and peaks
        last = self.heat[-1]
        heat = last(self.heat[:-1](clues).to(last.weight.dtype)).float()
        is_peak = heat == max_pool2d(heat, 3, stride=1, padding=1)
        ranked = torch.where(is_peak, heat, heat - PEAK_BONUS).flatten(1)
        cells = ranked.topk(self.count).indices
        chosen = clues.flatten(2).gather(2, cells[:, None].expand(-1, clues.shape[1], -1))
        logits = heat.flatten(1).gather(1, cells)
        # the kernel also gets the heat, so that of two seeds on one object one can give way
        chosen = torch.cat((chosen.to(heat.dtype), logits[:, None]), 1).transpose(1, 2)
        return Seeds(heat, logits, self.kernel(chosen))
