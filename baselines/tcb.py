"""Temporal context blending on PSPNet: video semantic segmentation with a memory of pooled context.

Source: Miao et al., "VSPW: A Large-scale Dataset for Video Scene Parsing in the Wild", CVPR 2021,
its form with spatial-temporal pyramid pooling (TCB-ppm): the cells that PSPNet pools in its frame
are pooled over past frames as well. Only the abstract of the paper could be read, and the authors'
code has no licence and was not. So how often a past frame is taken is ours: the last `TCB_MEMORY`
frames, one after the other. The form on OCRNet is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from video_knet_core.model.merge import class_winners
from video_knet_core.model.neck import (
    AUXILIARY_LEVEL,
    DROPOUT,
    POOLS,
    AuxiliaryHead,
    adaptive_average,
)
from video_knet_core.model.network import Frames
from video_knet_core.training.losses import balanced, cell_loss
from video_knet_core.training.targets import ClassTargets

from .baseline import Baseline, Memory, Segments
from .baseline_config import MAP_STRIDE, TCB_MEMORY, BaselineConfig
from .decoder import conv_bn_relu, enlarged_like

AUXILIARY_WEIGHT = 0.4
"""Of the loss of the auxiliary head (Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017)."""


def mean_over_time(cells: Tensor, known: Tensor) -> Tensor:
    """[F,N,C] the mean of cells [F,T,N,C] of the frames that are `known` [F,T] (0 or 1), one at
    least."""
    weights = known / known.sum(1, keepdim=True)
    return (cells * weights[:, :, None, None]).sum(1)


class TemporalContextBlending(Baseline):
    """PSPNet whose pyramid is pooled over its frame and past ones; it has no more parameters.

    The decoder has `BaselineConfig.channels`. Training needs two frames or more in a batch.
    """

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        inputs, channels, classes = self.backbone.channels, config.channels, len(config.classes)
        self.pools = nn.ModuleList(conv_bn_relu(inputs[-1], channels) for _ in POOLS)
        self.bottleneck = conv_bn_relu(inputs[-1] + len(POOLS) * channels, channels, dilation=1)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classifier = nn.Conv2d(channels, classes, 1)
        self.auxiliary = AuxiliaryHead(inputs[AUXILIARY_LEVEL], channels // 2, classes)

    def infer(self, image: Tensor, memory: Memory, valid: Tensor) -> tuple[Segments, Memory]:
        """See `Baseline.infer`; the memory holds the newest frame first."""
        last = self.frames(image).pyramid[-1]
        known = torch.cat((torch.ones_like(memory["valid"][:, :1]), memory["valid"] * valid), 1)
        seen = torch.cat((pooled_cells(last)[:, None], memory["cells"]), 1)
        logits = self._classified(last, mean_over_time(seen, known))
        factor = self.config.upsample * self.config.backbone.output_stride // MAP_STRIDE
        winner, scores, _ = class_winners(logits[0], factor, (image.shape[2], image.shape[3]))
        segments = Segments(
            segment_map=winner + 1,
            thing_classes=torch.zeros(0, dtype=torch.int64, device=image.device),
            thing_scores=scores.new_zeros(0),
            stuff_scores=scores,
            embeddings=scores.new_zeros(0, 0),
        )
        return segments, {"cells": seen[:, :TCB_MEMORY], "valid": known[:, :TCB_MEMORY]}

    def losses(self, frames: Frames, targets: ClassTargets, sides: int) -> dict[str, Tensor]:
        """See `ExternalNetwork.losses`: cross-entropy, as of PSPNet here."""
        maps = {
            "semantic": self.clip_logits(frames.pyramid, sides),
            "auxiliary": self.auxiliary(frames.pyramid[AUXILIARY_LEVEL]),
        }
        goals, weights = targets.semantic, {"semantic": 1.0, "auxiliary": AUXILIARY_WEIGHT}
        classes = len(self.config.classes)
        counts = goals[goals >= 0].bincount(minlength=classes + 1)
        of_cells = balanced(counts, self.balance).expand(len(goals), -1)
        return {
            name: weights[name] * cell_loss(enlarged_like(logits, goals), goals, of_cells).mean()
            for name, logits in maps.items()
        }

    def clip_logits(self, pyramid: Sequence[Tensor], sides: int) -> Tensor:
        """[F,K,h,w] class logits of B clips of `sides` frames, ordered as in `losses`.

        The context of a frame is its own and that of up to `TCB_MEMORY` older frames of its clip.
        """
        cells = pooled_cells(pyramid[-1])
        older = min(TCB_MEMORY, sides - 1)
        by_side = cells.unflatten(0, (sides, -1))
        padded = torch.cat((by_side, by_side.new_zeros(older, *by_side.shape[1:])))
        seen = torch.stack([padded[age : age + sides] for age in range(older + 1)], 2)
        side = torch.arange(sides, device=cells.device)
        known = (side[:, None] + side[: older + 1] < sides).to(cells.dtype)
        known = known[:, None].expand(-1, by_side.shape[1], -1)
        blended = mean_over_time(seen.flatten(0, 1), known.flatten(0, 1))
        return self._classified(pyramid[-1], blended)

    def _classified(self, last: Tensor, cells: Tensor) -> Tensor:
        """[F,K,h,w] logits of the coarsest map [F,Ci,h,w] and the pooled cells [F,N,Ci]."""
        parts, levels = cells.transpose(1, 2).split([n * n for n in POOLS], 2), [last]
        for layer, part, size in zip(self.pools, parts, POOLS, strict=True):
            levels.append(enlarged_like(layer(part.unflatten(2, (size, size))), last))
        return self.classifier(self.dropout(self.bottleneck(torch.cat(levels, 1))))


def pooled_cells(last: Tensor) -> Tensor:
    """[F,N,C] the cells of PSPNet's pyramid of a map [F,C,h,w]: 1, then 2 x 2, 3 x 3 and 6 x 6."""
    cells = [adaptive_average(last, size).flatten(2) for size in POOLS]
    return torch.cat(cells, 2).transpose(1, 2)
