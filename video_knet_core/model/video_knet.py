"""Video K-Net, one frame at a time: image and previous kernels in, segments and kernels out.

State is an argument and a return value, never hidden in the network, so training, export, several
cameras and tracker resets all use the same function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import SEMANTIC_NECKS, ModelConfig
from ..tasks import TASKS
from .heads import ClassHead, HeadOutput, KernelHead
from .kernels import AssociationEmbedding, PreviousKernels, StageOutput, UpdateStage
from .neck import AUXILIARY_LEVEL, AuxiliaryHead, DetailBranch, build_neck
from .network import Network


class Encoded(NamedTuple):
    """A frame before temporal context enters; see `Prediction`."""

    head: HeadOutput
    stages: tuple[StageOutput, ...]
    """All but the last."""
    detail: Tensor | None
    """[B,D,2h,2w] what the last stage refines masks with, if `KernelConfig.detail` is set."""
    auxiliary: Tensor | None


@dataclass(frozen=True)
class Prediction:
    """All outputs of the network for one batch; the last stage is what counts.

    B images, N kernels = P things then S stuff, K class logits (things, then stuff), h x w = the
    padded input / the neck's stride, E embedding size. In task semantic P = 0 and N = K: the mask
    logits of a pixel are its class logits.
    """

    head: HeadOutput
    stages: tuple[StageOutput, ...]
    """Empty for a plain decoder, whose last word is the head's."""
    embeddings: Tensor
    """[B,P,E] association embeddings of the thing kernels."""
    auxiliary: Tensor | None = None
    """[B,K,h',w'] class logits of the third map of the backbone, to learn from: in training only,
    and in networks with a neck of `SEMANTIC_NECKS`."""

    @property
    def class_logits(self) -> Tensor:
        """[B,N,K] of the last stage; in task semantic there are none."""
        logits = self.stages[-1].class_logits
        assert logits is not None, "the last stage always classifies"
        return logits

    @property
    def mask_logits(self) -> Tensor:
        """[B,N,h,w] of the last stage."""
        return (self.stages[-1] if self.stages else self.head).mask_logits

    @property
    def kernels(self) -> Tensor:
        """[B,N,C] of the last stage, before linking."""
        return (self.stages[-1] if self.stages else self.head).kernels

    @property
    def state(self) -> Tensor:
        """[B,N,M] what goes on to the next frame: the kernels, and what else is remembered."""
        remembered = self.stages[-1].remembered if self.stages else None
        return self.kernels if remembered is None else remembered


class VideoKNet(Network):
    """The network of `config`. See `forward`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.backbone)
        self.config = config
        kernels, channels = config.kernels, config.neck.channels
        self.thing_kernels = kernels.things
        self.neck = build_neck(config.neck, self.backbone.channels)
        self.auxiliary: AuxiliaryHead | None = None
        if config.neck.name in SEMANTIC_NECKS:  # as published, it is half as wide as the decoder
            inputs = self.backbone.channels[AUXILIARY_LEVEL]
            self.auxiliary = AuxiliaryHead(inputs, channels // 2, len(config.classes))
        self.detail: DetailBranch | None = None
        if kernels.detail:
            self.detail = DetailBranch(self.backbone.channels[0], kernels.detail)
        self.head = (KernelHead if TASKS[config.task].has_things else ClassHead)(config)
        last = kernels.stages - 1
        self.stages = nn.ModuleList(UpdateStage(config, i == last) for i in range(last + 1))
        self.embedding = AssociationEmbedding(channels) if kernels.embedding else nn.Identity()

    def forward(
        self, image: Tensor, previous: PreviousKernels | None = None
    ) -> tuple[Prediction, PreviousKernels]:
        """Segment one frame of each of B videos.

        Args:
            image: [B,3,H,W] RGB, 0..255 in the type of the kernels. Sizes that 32 does not divide
                are padded on the right and at the bottom; masks are of the padded size.
            previous: what this returned for the frame before; None on first frames.
        """
        prediction = self.decode(self.encode(image), previous)
        valid = torch.ones(len(image), dtype=torch.bool, device=image.device)
        return prediction, PreviousKernels(prediction.state, valid)

    def encode(self, image: Tensor) -> Encoded:
        """The part without temporal context: image [B,3,H,W] -> all stages but the last."""
        return self.encode_pyramid(self.frames(image).pyramid)

    def encode_pyramid(self, pyramid: Sequence[Tensor]) -> Encoded:
        """The same from what the backbone made of the image."""
        auxiliary = None
        if self.training and self.auxiliary is not None:
            auxiliary = self.auxiliary(pyramid[AUXILIARY_LEVEL])
        head = self.head(self.neck(pyramid))
        kernels, masks = head.kernels, head.mask_logits
        stages: tuple[StageOutput, ...] = ()
        for stage in self.stages[:-1]:
            # only the losses use the classes of these stages
            stages = (*stages, stage(head.features, kernels, masks, classify=self.training))
            kernels, masks = stages[-1].kernels, stages[-1].mask_logits
        detail = self.detail(pyramid[0]) if self.detail is not None else None
        return Encoded(head, stages, detail, auxiliary)

    def decode(self, encoded: Encoded, previous: PreviousKernels | None) -> Prediction:
        """The last stage and the embedding: the parts with temporal context."""
        head, stages, detail, auxiliary = encoded
        before = stages[-1] if stages else head
        linked = before.kernels
        for stage in self.stages[-1:]:  # a plain decoder has none
            masks = before.mask_logits
            stages = (*stages, stage(head.features, before.kernels, masks, previous, detail=detail))
            linked = stages[-1].linked
        embeddings = self.embedding(linked[:, : self.thing_kernels])
        return Prediction(head, stages, embeddings, auxiliary)
