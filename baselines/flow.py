"""Optical flow between feature maps: a small estimate without labels, and warping by it.

Flow is [F,2,h,w] of x and y in pixels of the image: what is at p in one frame was at p + flow(p) in
the other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, interpolate, normalize, pad

RADIUS = 4
"""Cells in each direction within which a match is searched."""
SHARPNESS = 20.0
"""Of the softmax over cosines before training."""
HIDDEN = 32
"""Channels of the refinement."""


def warp(features: Tensor, flow: Tensor, stride: int) -> Tensor:
    """Maps [F,C,h,w] of `stride`, read bilinearly at p + flow(p); beyond the edge it goes on."""
    height, width = features.shape[-2:]
    x = torch.arange(width, device=flow.device) + 0.5 + flow[:, 0] / stride
    y = (torch.arange(height, device=flow.device) + 0.5)[:, None] + flow[:, 1] / stride
    grid = torch.stack((x * (2 / width) - 1, y * (2 / height) - 1), -1)
    return grid_sample(
        features, grid.to(features.dtype), padding_mode="border", align_corners=False
    )


def correlation(target: Tensor, reference: Tensor, radius: int = RADIUS) -> Tensor:
    """[F,(2r+1)^2,h,w] products of each cell with those of the reference around its place.

    Displacements are by rows: first those upwards, of each from left to right. Beyond the edge
    features are zero.
    """
    height, width = target.shape[-2:]
    number = 2 * radius + 1
    padded = pad(reference, (radius,) * 4).permute(0, 2, 1, 3)  # [F,h+2r,C,w+2r]
    rows = torch.stack([padded[:, dy : dy + height] for dy in range(number)], 1)
    all_pairs = target.permute(0, 2, 3, 1)[:, None] @ rows  # [F,2r+1,h,w,w+2r]: of two whole rows
    # with one more column the cells around each cell lie below each other
    skewed = pad(all_pairs.flatten(3), (0, width)).unflatten(3, (width, width + number))
    return skewed[..., :number].permute(0, 1, 4, 2, 3).flatten(1, 2)


def displacements(radius: int = RADIUS) -> Tensor:
    """[(2r+1)^2,2] x and y in cells, in the order of `correlation`."""
    side = torch.arange(-radius, radius + 1).float()
    return torch.stack((side.repeat(len(side)), side.repeat_interleave(len(side))), 1)


class CorrelationFlow(nn.Module):
    """Flow from the cosines of embedded features within a window: their soft argmax, then refined.

    It learns from the losses of what the warped features are used for, and starts as the soft
    argmax alone. The idea of the cost volume is FlowNetC's (Dosovitskiy et al., ICCV 2015).

    Args:
        inputs: channels of the map of features, of the backbone.
        channels: of the embedding.
        stride: of both.
    """

    offsets: Tensor

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.embedding = nn.Conv2d(inputs, channels, 1, bias=False)
        nn.init.orthogonal_(self.embedding.weight)
        self.sharpness = nn.Parameter(torch.tensor(SHARPNESS))
        self.refine = nn.Sequential(
            nn.Conv2d(2 * channels + 2, HIDDEN, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(HIDDEN, 2, 3, padding=1),
        )
        last = self.refine[2]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.register_buffer("offsets", displacements(), persistent=False)

    def embed(self, features: Tensor) -> Tensor:
        """[F,Ci,h,w] -> [F,channels,h,w] of length 1; what a frame has everywhere is left out."""
        embedded = self.embedding(features)
        return normalize(embedded - embedded.mean((2, 3), keepdim=True), dim=1)

    def forward(self, target: Tensor, reference: Tensor) -> Tensor:
        """Flow [F,2,h,w] in pixels, from the embeddings of both frames."""
        cosines = correlation(target, reference)
        weights = (cosines * self.sharpness).softmax(1)
        cells = (self.offsets.T @ weights.flatten(2)).view(-1, 2, *target.shape[-2:])
        aligned = warp(reference, cells, 1)
        refined = cells + self.refine(torch.cat((target, aligned, cells), 1))
        return refined * self.stride


class AlignedFusion(nn.Module):
    """The align and attend steps of VPSNet's Fuse module.

    The reference is warped to the target. Attention over time weighs the two at each place by
    their similarity to the target, attention over space the places of the result. A reference that
    is equal to the target leaves it as it is, before training.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(channels, channels // 2, 1)
        self.places = nn.Conv2d(channels, 1, 3, padding=1)
        assert self.places.bias is not None
        nn.init.zeros_(self.places.weight)
        nn.init.zeros_(self.places.bias)

    def forward(self, target: Tensor, reference: Tensor, flow: Tensor, stride: int) -> Tensor:
        """[F,C,h,w] of both maps; the flow may be coarser than they."""
        fine = interpolate(flow, size=target.shape[-2:], mode="bilinear", align_corners=False)
        aligned = warp(reference, fine, stride)
        weight = self.reference_weight(target, aligned)
        fused = target + weight * (aligned - target)
        return fused * (2 * self.places(fused).sigmoid())

    def reference_weight(self, target: Tensor, aligned: Tensor) -> Tensor:
        """[F,1,h,w] weight of the reference, the rest is the target's: 1/2 where they are equal.

        It is the softmax over both of the scaled products of their embeddings with the target's.
        """
        query, key = self.embedding(target), self.embedding(aligned)
        scale = query.shape[1] ** -0.5
        return ((query * (key - query)).sum(1, keepdim=True) * scale).sigmoid()
