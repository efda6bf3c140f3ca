"""The first guess of the kernels and their masks, from the feature map of the neck.

Shapes as in `kernels`. Source: Zhang et al., "K-Net", NeurIPS 2021, section 3.3; seeded thing
kernels are ours.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from ..config import ModelConfig
from .kernels import apply_kernels, assemble_group_features
from .neck import DROPOUT, build_head_branch
from .position import CODE_SIZE, position_map, scattered_places
from .seeds import InstanceSeeds, Seeds, convolve_parts


class HeadOutput(NamedTuple):
    """What the kernel head proposes."""

    features: Tensor
    """[B,C,h,w] the map that all stages multiply kernels with, with the position code
    `CODE_SIZE` channels more."""
    kernels: Tensor
    """[B,N,C]"""
    mask_logits: Tensor
    """[B,N,h,w]"""
    semantic_logits: Tensor
    """[B,K,h,w]"""
    centers: Tensor | None = None
    """[B,`CODE_SIZE`,h,w] position code of the centre of each cell's instance, if it is learned."""
    seeds: Seeds | None = None
    """What the thing kernels started from, if they are not learned."""


class KernelHead(nn.Module):
    """First guess: thing kernels, and rows of a semantic classifier as stuff kernels.

    The branches `localization` and `semantic` are C to C channels. Thing kernels are learned (the
    paper), learned with a place each (`position`), or seeded in the image.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        kernels, channels, things = config.kernels, config.neck.channels, config.kernels.things
        self.thing_classes = len(config.classes.things)
        self.pooling, self.position = kernels.pooling, kernels.position
        self.localization = build_head_branch(config.neck)
        self.semantic = build_head_branch(config.neck)
        wide = channels + CODE_SIZE * kernels.position
        self.seeds = InstanceSeeds(wide, things) if kernels.seeds else None
        self.thing_kernels: nn.Parameter | None = None
        self.thing_places: nn.Parameter | None = None
        if self.seeds is None:
            self.thing_kernels = nn.Parameter(torch.randn(things, channels) / math.sqrt(channels))
            if kernels.position:
                self.thing_places = nn.Parameter(scattered_places(things))
        self.classifier = _classifier(config)
        self.centers = nn.Conv2d(wide, CODE_SIZE, 1) if kernels.centers else None
        if self.centers is not None:
            nn.init.zeros_(self.centers.weight)

    def forward(self, x: Tensor) -> HeadOutput:
        """[B,C,h,w] -> proposals of all N kernels."""
        batch = x.shape[0]
        located, semantic = self.localization(x), self.semantic(x)
        thing_logits, stuff_logits = self._classify(semantic)
        appearance = semantic + located
        code = position_map(appearance)
        features = appearance
        if self.position:
            features = torch.cat((appearance, code.expand(batch, -1, -1, -1)), 1)
        centers = (
            convolve_parts(self.centers, appearance, code) if self.centers is not None else None
        )
        seeds: Seeds | None = None
        if self.seeds is not None:
            assert centers is not None, "seeds need centers"
            seeds = self.seeds(appearance, code, centers)
            thing_kernels = seeds.kernels[..., : x.shape[1]]
            thing_masks = apply_kernels(seeds.kernels, features)
        else:
            thing_kernels, thing_masks = self._learned(located, code)
        group, _ = assemble_group_features(thing_masks, appearance, self.pooling)
        thing_kernels = thing_kernels + group.to(thing_kernels.dtype)
        stuff_kernels = self.classifier.weight[self.thing_classes :, :, 0, 0].expand(batch, -1, -1)
        return HeadOutput(
            features=features,
            kernels=torch.cat((thing_kernels, stuff_kernels.to(thing_kernels.dtype)), 1),
            mask_logits=torch.cat((thing_masks, stuff_logits), 1),
            semantic_logits=torch.cat((thing_logits, stuff_logits), 1),
            centers=centers,
            seeds=seeds,
        )

    def _classify(self, semantic: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of thing and of stuff classes, separately: only losses use the first."""
        weight, bias, things = self.classifier.weight, self.classifier.bias, self.thing_classes
        assert bias is not None
        if things == len(bias):  # no stuff, and no convolution without outputs
            logits = self.classifier(semantic)
            return logits, logits[:, things:]
        # slices, for the exporter computes those of constants and leaves `split` in the graph
        thing_logits = conv2d(semantic, weight[:things], bias[:things])
        return thing_logits, conv2d(semantic, weight[things:], bias[things:])

    def _learned(self, located: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """The kernels [B,P,C] that are the same for every image, and their masks [B,P,h,w]."""
        assert self.thing_kernels is not None
        kernels = self.thing_kernels.expand(len(located), -1, -1)
        masks = apply_kernels(kernels, located)
        if self.thing_places is not None:
            masks = masks + apply_kernels(self.thing_places[None], code)
        return kernels, masks


class ClassHead(nn.Module):
    """First guess where there are no things: each class has a kernel, its row of the classifier.

    Its masks are the logits of a plain decoder, and without update stages it is one (PSPNet,
    DeepLabv3+). `branch` makes the features, C to C channels.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.branch = build_head_branch(config.neck)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classifier = _classifier(config)

    def forward(self, x: Tensor) -> HeadOutput:
        """[B,C,h,w] -> proposals of all N kernels."""
        features = self.branch(x)
        logits = self.classifier(self.dropout(features))
        rows = self.classifier.weight.flatten(1)
        kernels = rows.to(torch.promote_types(rows.dtype, torch.float32))
        return HeadOutput(features, kernels.expand(len(x), -1, -1), logits, logits)


def _classifier(config: ModelConfig) -> nn.Conv2d:
    """Pixels to the logits of all classes."""
    classifier = nn.Conv2d(config.neck.channels, len(config.classes), 1)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)  # type: ignore[arg-type]
    return classifier
