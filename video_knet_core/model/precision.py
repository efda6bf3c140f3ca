"""Half precision: the maps are float16, the kernels stay float32.

Nearly all the work is on maps, [B,C,h,w], and an error there stays where it is: a pixel changes
sides. Kernels, [B,N,C], are a thousandth of the work, and theirs do not: kernels decide classes and
whole masks and continue from frame to frame. So there are three borders between the two: the image
enters the backbone, kernels are multiplied with features (`apply_kernels`), and group features and
seeds leave them (`assemble_group_features`, `InstanceSeeds`). Wherever many numbers of a map become
one (group features, norms, the means of an image and of its parts) they are added up in float32, so
that no size of image can overflow.
"""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .video_knet import VideoKNet

_MAP_MODULES = (
    "backbone",
    "neck",
    "detail",
    "head.localization",
    "head.semantic",
    "head.branch",
    "head.classifier",
    "head.centers",
    "head.seeds.heat",
)
"""What computes maps from maps."""
_FLOAT_MODULES = ("neck.context", "head.seeds.heat.2")
"""Parts of them that stay float32: what works on the mean of an image, and the end of the heat map,
where cells would be equal that are not."""


class _FloatNorm(nn.Module):
    """A norm that computes in float32 whatever comes in."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm.float()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.float()).to(x.dtype)


def with_half_maps(model: VideoKNet) -> VideoKNet:
    """A copy of a network, in eval mode, that computes its maps in float16.

    Images come in as float32. Masks go out as float16, all that is about kernels as float32.
    """
    half = deepcopy(model).eval()
    _fold_batch_norms(half)
    modules = dict(half.named_modules())
    for path in _MAP_MODULES:
        if path in modules:  # not every network has centres and seeds
            modules[path].half()
            _widen_norms(modules[path])
    for path in _FLOAT_MODULES:
        if path in modules:
            modules[path].float()
    return half


def _widen_norms(model: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, (nn.GroupNorm, nn.LayerNorm)):
                setattr(parent, name, _FloatNorm(layer))


@torch.no_grad()
def _fold_batch_norms(model: nn.Module) -> None:
    """Move each batch norm into the convolution before it: its variance may not fit a float16.

    A norm is always registered right after the convolution that it follows.
    """
    for parent in model.modules():
        for (name, layer), (norm_name, norm) in pairwise(list(parent.named_children())):
            if isinstance(norm, nn.BatchNorm2d):
                assert isinstance(layer, nn.Conv2d) and layer.out_channels == norm.num_features
                setattr(parent, name, fuse_conv_bn_eval(layer, norm))
                setattr(parent, norm_name, nn.Identity())
    left = [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert not left, f"batch norms without a convolution before them: {left}"
