"""Places as vectors: sines and cosines of several frequencies, and the authors' sine encoding."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CYCLES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Waves over the height or width of an image. The first separates its ends, the last two objects
a thirtieth of the image away from each other."""
CODE_SIZE = 4 * len(_CYCLES)


def position_code(y: Tensor, x: Tensor) -> Tensor:
    """Places [...] as fractions 0..1 of height and width -> [..., `CODE_SIZE`].

    The dot product of two codes depends on the way between the places alone and is largest where
    they are one, so a linear map can pick a place out (Tancik et al., "Fourier Features", 2020).
    """
    cycles = torch.tensor(_CYCLES, device=y.device, dtype=y.dtype)
    angles = 2 * math.pi * torch.cat((y[..., None] * cycles, x[..., None] * cycles), -1)
    return torch.cat((angles.sin(), angles.cos()), -1)


def position_map(x: Tensor) -> Tensor:
    """The code [1,`CODE_SIZE`,h,w] of each cell's centre of a map `x` [B,C,h,w]."""
    height, width = x.shape[-2:]
    rows = (torch.arange(height, device=x.device) + 0.5) / height
    columns = (torch.arange(width, device=x.device) + 0.5) / width
    code = position_code(rows[:, None].expand(height, width), columns.expand(height, width))
    return code.permute(2, 0, 1)[None].to(x.dtype)


def scattered_places(count: int) -> Tensor:
    """Codes [count,`CODE_SIZE`] of places spread evenly over an image, as a start for learning.

    Only the four longest waves, so that the neighbourhoods of the places are wide; their product
    with a position code is 3 at the place itself.
    """
    golden = torch.arange(count) * 0.6180339887
    code = position_code((torch.arange(count) + 0.5) / count, golden % 1.0)
    smooth = torch.tensor(_CYCLES) <= _CYCLES[3]
    return code * smooth.repeat(4) * (3 / (2 * smooth.sum()))


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
