"""Slots that keep their objects from frame to frame, and what is remembered of them.

Shapes as in `kernels`. Source: queries that are carried, as in MOTR (Zeng et al., ECCV 2022); that
seeds of the image refresh them, and doubt, are ours.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

_ALIVE_SCORE = 0.2
"""Class score from which on a thing keeps its slot in the next frame."""
_SAME_OVERLAP = 0.3
"""Overlap (IoU) of a remembered mask and that of a seed which may be of one object."""
_HIDDEN = 16
"""Channels of the layer between features and doubt."""
_SURE = 8.0
"""Largest mask logit that is remembered."""


class SlotMemory(NamedTuple):
    """What the slots remember, in this frame."""

    kernels: Tensor
    """[B,N,C]"""
    class_logits: Tensor
    """[B,N,K]"""
    mask_logits: Tensor
    """[B,N,h,w]"""
    known: Tensor
    """[B,N] bool, there is something to remember; thing slots where it is not are free."""
    doubt: Tensor
    """[B,N,h,w] 0..1, how far masks stay as they are remembered."""

    def kept(self, kernels: Tensor, class_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Kernels and classes of this frame, and those remembered as far as the place of the
        remembered mask is in doubt."""
        mask = (self.mask_logits > 0).to(kernels.dtype)
        share = (self.doubt.to(kernels.dtype) * mask).sum((2, 3)) / mask.sum((2, 3)).clamp(min=1)
        return (
            torch.lerp(kernels, self.kernels, share[..., None]),
            torch.lerp(class_logits, self.class_logits, share[..., None]),
        )


class StickySlots(nn.Module):
    """An object keeps its slot: what is known of it goes on there, and seeds of this frame fill the
    others.

    A seed that shows the object of a slot, by the overlap of their masks, brings its kernel and
    mask there, and the remembered kernel is added. An object without a seed, as in a spoilt image,
    is looked for by what is remembered alone. Where the image cannot be relied on, which is learned
    as a map of doubt, masks stay as they were.

    Args:
        channels: C.
        inputs: channels of the features, position code included.
        things: P.
    """

    def __init__(self, channels: int, inputs: int, things: int) -> None:
        super().__init__()
        self.channels, self.things = channels, things
        self.memory = nn.Linear(channels, channels)
        self.local, self.whole = nn.Conv2d(inputs, _HIDDEN, 1), nn.Linear(inputs, _HIDDEN)
        self.last = nn.Conv2d(_HIDDEN, 1, 3, padding=1)
        # at first, a frame is hardly changed by those before
        nn.init.zeros_(self.memory.weight)
        nn.init.zeros_(self.memory.bias)
        nn.init.zeros_(self.last.weight)
        nn.init.constant_(self.last.bias, -3.0)  # type: ignore[arg-type]

    def recall(self, state: Tensor, valid: Tensor, features: Tensor) -> SlotMemory:
        """What `remember` made [B,N,C+K+hw], with the doubt that the features [B,C',h,w] give.

        `valid` is that of `PreviousKernels`.
        """
        cells = features.shape[2] * features.shape[3]
        classes = state.shape[2] - self.channels - cells
        kernels, class_logits, masks = state.split((self.channels, classes, cells), 2)
        known = (kernels.abs().amax(2) > 0) & valid[:, None]
        wide = features.to(state.dtype)
        whole = self.whole(wide.mean((2, 3)))[..., None, None]
        doubt = self.last(relu(self.local(wide) + whole)).sigmoid()
        doubt = doubt * known[..., None, None]
        masks = masks.unflatten(2, (features.shape[2], features.shape[3]))
        maps = masks.to(features.dtype), doubt.to(features.dtype)
        return SlotMemory(kernels, class_logits, maps[0], known, maps[1])

    def place(self, kernels: Tensor, masks: Tensor, memory: SlotMemory) -> tuple[Tensor, Tensor]:
        """Kernels [B,N,C] and masks [B,N,h,w] of this frame, in which thing slots are seeds from
        the hottest on -> the same with things in the slots of their objects."""
        things = self.things
        carried, remembered = memory.known[:, :things], memory.mask_logits[:, :things]
        seeds = masks[:, :things]
        same = _same_objects(remembered, seeds, carried)
        found, taken = same.any(2), same.any(1)
        # free slots get the seeds that are not taken, the hottest first
        numbers = torch.arange(things, device=kernels.device)
        order = (things * taken + numbers).to(torch.float32).neg().topk(things).indices
        rank = (torch.where(carried, 0, 1).cumsum(1) - 1).clamp(min=0)
        seed = torch.where(found, same.to(torch.float32).argmax(2), order.gather(1, rank))
        fresh = (found | ~carried)[..., None]
        chosen = kernels.gather(1, seed[..., None].expand(-1, -1, kernels.shape[2]))
        chosen = torch.where(fresh, chosen, memory.kernels[:, :things])
        cells = seed[..., None].expand(-1, -1, seeds.shape[2] * seeds.shape[3])
        shown = torch.where(fresh, seeds.flatten(2).gather(1, cells), remembered.flatten(2))
        return (
            torch.cat((chosen, kernels[:, things:]), 1)
            + self.memory(memory.kernels) * memory.known[..., None],
            torch.cat((shown.view_as(seeds), masks[:, things:]), 1),
        )

    def remember(self, kernels: Tensor, class_logits: Tensor, masks: Tensor) -> Tensor:
        """Kernels [B,N,C], classes [B,N,K] and masks [B,N,h,w] of the last stage -> the state
        [B,N,C+K+hw]; rows of things that are no objects are zeros."""
        stuff = kernels.shape[1] - self.things
        columns = class_logits.shape[2] - stuff
        scores = class_logits[:, : self.things, :columns].amax(2).sigmoid()
        alive = pad((scores >= _ALIVE_SCORE).to(kernels.dtype), (0, stuff), value=1.0)
        masks = masks.to(kernels.dtype).clamp(-_SURE, _SURE).flatten(2)
        return torch.cat((kernels, class_logits, masks), 2) * alive[..., None]


def _same_objects(remembered: Tensor, seeds: Tensor, carried: Tensor) -> Tensor:
    """Which seed [B,P slots,P seeds] shows the object of a slot, by masks [B,P,h,w]: the two
    overlap most with each other."""
    slots = ((remembered > 0).flatten(2) & carried[..., None]).to(torch.float32)
    others = (seeds > 0).flatten(2).to(torch.float32)
    inter = slots @ others.transpose(1, 2)
    union = slots.sum(2)[:, :, None] + others.sum(2)[:, None] - inter
    overlap = inter / union.clamp(min=1)
    best = (overlap == overlap.amax(1, True)) & (overlap == overlap.amax(2, True))
    return best & (overlap > _SAME_OVERLAP)
