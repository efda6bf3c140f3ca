"""What the networks of this package share: the step of an engine, made of tensors alone."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from video_knet_core.model.kernels import PreviousKernels
from video_knet_core.model.merge import slot_areas
from video_knet_core.model.network import ExternalNetwork

from .baseline_config import BaselineConfig

Memory = dict[str, Tensor]
"""[1,...] what goes from frame to frame, by the names of `BaselineConfig.memory_shapes`."""


class Segments(NamedTuple):
    """A frame of P thing slots and S stuff classes, in task semantic of P = 0."""

    segment_map: Tensor
    """[h,w] 0 = no segment, s + 1 = slot s: things, then stuff in the order of the class table."""
    thing_classes: Tensor
    """[P] int64, the place of the class among the things of the class table."""
    thing_scores: Tensor
    """[P] 0..1"""
    stuff_scores: Tensor
    """[S] 0..1"""
    embeddings: Tensor
    """[P,E]"""
    depth: Tensor | None = None
    """[h,w] metres, if `BaselineConfig.depth` is set."""


class Baseline(ExternalNetwork):
    """A network of `config`; subclasses add their heads, `infer` and `losses`.

    Operations of `infer` must be of the kinds that all engines have, with static shapes: no
    scatter, NonZero or boolean indexing.
    """

    Config = BaselineConfig
    config: BaselineConfig

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config.backbone)
        self.config = config

    @abstractmethod
    def infer(self, image: Tensor, memory: Memory, valid: Tensor) -> tuple[Segments, Memory]:
        """One frame.

        Args:
            image: [1,3,H,W] RGB 0..255.
            memory: that of the frame before; zeros on first frames.
            valid: [1] bool, whether there was a frame before.

        Returns:
            The segments, and the new memory.
        """

    def segment_frame(self, pixels: Tensor, previous: PreviousKernels | None) -> dict[str, Tensor]:
        """See `ExternalNetwork.segment_frame`."""
        config = self.config
        if previous is None:
            state = pixels.new_zeros(1, *config.state_shape(config.sizes[0]))
            previous = PreviousKernels(state, pixels.new_zeros(1, dtype=torch.bool))
        segments, memory = self.infer(
            pixels[None], self._unpacked(previous.kernels), previous.valid
        )
        classes, slots = config.classes, config.slots
        ids = torch.tensor(classes.logit_class_ids, device=pixels.device)
        things, stuff = len(classes.things), len(classes.stuff)
        of_stuff = torch.arange(things, things + stuff, device=pixels.device)
        areas = slot_areas(segments.segment_map - 1, slots)
        outputs = {
            "segment_map": segments.segment_map.float().to(torch.uint8),
            "class_ids": ids.index_select(0, torch.cat((segments.thing_classes, of_stuff))),
            "scores": torch.cat((segments.thing_scores, segments.stuff_scores)),
            "areas": areas.to(torch.int64),
        }
        embeddings = pad(segments.embeddings, (0, 0, 0, stuff))
        if things:
            outputs["embeddings"] = embeddings
        outputs["kernels"] = torch.cat((embeddings, self._packed(memory)), 1)
        if segments.depth is not None:
            outputs["depth"] = segments.depth
        return outputs

    def _packed(self, memory: Memory) -> Tensor:
        """[N,M] all memory in a row, cut into the rows of slots."""
        shapes, slots = self.config.memory_shapes(), self.config.slots
        width = self.config.state_shape(self.config.sizes[0])[1] - self.config.embedding_size
        if not shapes:
            return self.mean.new_zeros(slots, width)
        numbers = torch.cat([memory[name].flatten() for name in shapes])
        return pad(numbers, (0, slots * width - len(numbers))).view(slots, width)

    def _unpacked(self, state: Tensor) -> Memory:
        """The inverse, of a state [1,N,S]."""
        numbers = state[0, :, self.config.embedding_size :].flatten()
        memory, start = {}, 0
        for name, shape in self.config.memory_shapes().items():
            size = math.prod(shape)
            memory[name] = numbers[start : start + size].view(1, *shape)
            start += size
        return memory
