"""The kernels of K-Net and Video K-Net: every segment is a vector, kernels x features = masks.

Shapes throughout: B images, N kernels = P things then S stuff, K class logits, C channels,
h x w the feature map. Source: Li et al., "Video K-Net", CVPR 2022, section 3; Zhang et al.,
"K-Net", NeurIPS 2021, section 3.2. In task semantic there is a kernel for each class and nothing
else, N = K, so that the masks of a pixel are its class logits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from ..config import ModelConfig
from ..tasks import TASKS
from .position import CODE_SIZE

_SAME_OVERLAP = 0.3
"""Overlap (IoU) of two masks that may be of one object."""
ALIVE_SCORE = 0.2
"""Class score from which on a thing keeps its slot in the next frame."""
_HIDDEN = 16
"""Channels of the layer between features and doubt."""
_SURE = 8.0
"""Most that a mask logit is remembered as."""


class PreviousKernels(NamedTuple):
    """The state that goes from frame to frame."""

    kernels: Tensor
    """[B,N,C] refined kernels of the previous frame, before linking. With `StickySlots` a row goes on
    with the class logits and the mask logits of its slot: [B,N,C+K+h*w]."""
    valid: Tensor
    """[B] bool; False = this image is the first of its video."""


class StageOutput(NamedTuple):
    """What one update stage returns."""

    kernels: Tensor
    """[B,N,C]"""
    linked: Tensor
    """[B,P,C] thing kernels after linking; without it, just the thing kernels. In task semantic
    [B,N,C], all kernels."""
    class_logits: Tensor | None
    """[B,N,K]; None if not requested, and in task semantic."""
    mask_logits: Tensor
    """[B,N,h,w], twice as fine in the last stage if it gets `detail`."""
    carried: Tensor | None = None
    """[B,P] bool, the slot has the object that it had in the previous frame: by `StickySlots`, in
    the last stage."""


def apply_kernels(kernels: Tensor, features: Tensor) -> Tensor:
    """[B,N,C] x [B,C,h,w] -> [B,N,h,w] in the features' type: a 1x1 convolution per image."""
    height, width = features.shape[-2:]
    return (kernels.to(features.dtype) @ features.flatten(2)).unflatten(2, (height, width))


def assemble_group_features(
    mask_logits: Tensor, features: Tensor, pooling: str
) -> tuple[Tensor, Tensor]:
    """Pool the features under each hard mask (logit > 0), or by "softmax" under soft ones.

    The soft masks of a pixel are the softmax of its N logits, and the features are averaged by
    them. A class with less than one pixel in the whole image has a smaller part of its average:
    so the next stage can see that there is hardly any, and it keeps the division well-behaved.

    Returns:
        group [B,N,C], the "sum" or the average over the mask, and weight [B,N,1], how often a
        constant feature of 1 would count in it (the area in pixels, or 0..1), for folding a bias.
        Both are float32, or wider if the features are.

    Both sums are scaled by 1/sqrt(h*w) before anything is added up, so that a mask over a whole
    1024x2048 image stays inside the range of float16. They are added up in float32: the area of
    that mask has more digits than a float16.
    """
    wide = torch.promote_types(features.dtype, torch.float32)
    scale = 1.0 / math.sqrt(mask_logits.shape[-2] * mask_logits.shape[-1])
    if pooling == "softmax":
        mask = mask_logits.to(wide).softmax(1) * scale
    else:
        mask = (mask_logits > 0).to(features.dtype) * scale
    mask = mask.flatten(2).to(wide)  # [B,N,hw]
    # features first: with so many rows the product is faster than the other way round
    group = (features.flatten(2).to(wide) @ mask.transpose(1, 2)).transpose(1, 2)
    area = mask.sum(2, keepdim=True)
    if pooling == "sum":
        return group / scale, area / scale
    divisor = area.clamp(min=scale)
    average = group / divisor
    return average, (area > 0).to(area.dtype) if pooling == "mean" else area / divisor


class _KernelUpdate(nn.Module):
    """Adaptive kernel update: gates decide how much of the group feature enters each kernel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.group_layer = nn.Linear(channels, 2 * channels)
        self.kernel_layer = nn.Linear(channels, 2 * channels)
        self.kernel_gate = nn.Linear(channels, channels)
        self.group_gate = nn.Linear(channels, channels)
        self.kernel_gate_norm = nn.LayerNorm(channels)
        self.group_gate_norm = nn.LayerNorm(channels)
        self.kernel_norm = nn.LayerNorm(channels)
        self.group_norm = nn.LayerNorm(channels)
        self.out = nn.Linear(channels, channels)
        self.out_norm = nn.LayerNorm(channels)

    def forward(self, group: Tensor, kernels: Tensor) -> Tensor:
        """Both [B,N,C] -> [B,N,C]."""
        group_in, group_out = self.group_layer(group).chunk(2, dim=-1)
        kernel_in, kernel_out = self.kernel_layer(kernels).chunk(2, dim=-1)
        gate = kernel_in * group_in
        kernel_gate = self.kernel_gate_norm(self.kernel_gate(gate)).sigmoid()
        group_gate = self.group_gate_norm(self.group_gate(gate)).sigmoid()
        mixed = group_gate * self.group_norm(group_out) + kernel_gate * self.kernel_norm(kernel_out)
        return relu(self.out_norm(self.out(mixed)))


class _Attention(nn.Module):
    """Multi-head attention, written out so that it exports to plain matrix products."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """[B,N,C] attends to [B,M,C] -> [B,N,C]."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, queries), (self.key, memory), (self.value, memory))
        )
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class _KernelInteraction(nn.Module):
    """Kernels attend to kernels, then a feed-forward layer; residuals with post-norm."""

    def __init__(self, channels: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.attention = _Attention(channels, heads)
        self.attention_norm = nn.LayerNorm(channels)
        self.feedforward = nn.Sequential(
            nn.Linear(channels, feedforward), nn.ReLU(), nn.Linear(feedforward, channels)
        )
        self.feedforward_norm = nn.LayerNorm(channels)

    def forward(self, kernels: Tensor, memory: Tensor) -> Tensor:
        """[B,N,C] with memory [B,M,C] (the kernels themselves, or the previous ones) -> [B,N,C]."""
        kernels = self.attention_norm(kernels + self.attention(kernels, memory))
        return self.feedforward_norm(kernels + self.feedforward(kernels))


class _PreviousInteraction(nn.Module):
    """This frame's kernels attend to the previous frame's: the core of kernel fusion (before the
    last stage; masks see the result) and of kernel linking (after it; only embeddings do, in task
    semantic masks).

    With `update`, the previous kernels are updated with features of this frame first.
    """

    def __init__(self, channels: int, heads: int, feedforward: int, update: bool) -> None:
        super().__init__()
        self.update = _KernelUpdate(channels) if update else None
        self.interaction = _KernelInteraction(channels, heads, feedforward)

    def forward(self, kernels: Tensor, previous: PreviousKernels, features: Tensor) -> Tensor:
        """Kernels [B,M,C], features [B,N,C] of all kernels -> [B,M,C]; first frames keep theirs."""
        memory = previous.kernels
        if self.update is not None:
            memory = self.update(features, memory)
        attended = self.interaction(kernels, memory)
        return torch.where(previous.valid[:, None, None], attended, kernels)


class _Memory(NamedTuple):
    """The state of a network with `StickySlots`, apart."""

    kernels: Tensor
    """[B,N,C]"""
    class_logits: Tensor
    """[B,N,K]"""
    mask_logits: Tensor
    """[B,N,h,w]"""


class StickySlots(nn.Module):
    """An object keeps its slot: what is known of it goes on there, and seeds of this frame fill the
    others.

    A seed that shows the object of a slot, by the overlap of their masks, brings its kernel and
    mask there, and the previous kernel is added. An object without a seed, as in a spoilt image, is
    looked for by its previous kernel and mask alone. Of the kernels that are handed on, a row of
    zeros is a free slot.

    Where the image cannot be relied on, which is learned as a map of `doubt`, masks stay as they
    were; and a slot keeps its kernel and classes as far as the place of its mask is in doubt.

    Source: queries that are carried as in MOTR (Zeng et al., ECCV 2022); that seeds refresh them,
    and doubt, are ours.

    Args:
        channels: C.
        inputs: of the features, position code included.
    """

    def __init__(self, channels: int, inputs: int) -> None:
        super().__init__()
        self.memory = nn.Linear(channels, channels)
        nn.init.zeros_(self.memory.weight)
        nn.init.zeros_(self.memory.bias)
        self.local, self.whole = nn.Conv2d(inputs, _HIDDEN, 1), nn.Linear(inputs, _HIDDEN)
        self.last = nn.Conv2d(_HIDDEN, 1, 3, padding=1)
        nn.init.constant_(self.last.bias, -3.0)  # type: ignore[arg-type]

    def doubt(self, features: Tensor) -> Tensor:
        """Features [B,C',h,w] -> 0..1 [B,1,h,w] float32."""
        whole = self.whole(features.mean((2, 3)))[..., None, None]
        return self.last(relu(self.local(features) + whole)).float().sigmoid()

    def place(
        self, kernels: Tensor, masks: Tensor, memory: _Memory, valid: Tensor, things: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Kernels [B,N,C] and masks [B,N,h,w] of this frame with their thing slots filled anew, and
        which rows [B,N] of the `memory` are of the same object or stuff class."""
        before, moved = memory.kernels[:, :things], memory.mask_logits[:, :things]
        carried = (before.abs().amax(2) > 0) & valid[:, None]
        seeds, stuff = masks[:, :things], masks[:, things:]
        same, taken = _same_objects(moved, seeds, carried)
        # free slots take the seeds that are not taken, the hottest first
        places = torch.arange(things, device=kernels.device)
        order = (things * taken + places).to(torch.float32).neg().topk(things).indices
        rank = (torch.where(carried, 0, 1).cumsum(1) - 1).clamp(min=0)
        found = same.any(2)
        seed = torch.where(found, same.to(torch.float32).argmax(2), order.gather(1, rank))
        fresh = (found | ~carried)[..., None]
        chosen = kernels.gather(1, seed[..., None].expand(-1, -1, kernels.shape[2]))
        chosen = torch.where(fresh, chosen, before)
        cells = seed[..., None].expand(-1, -1, seeds.shape[2] * seeds.shape[3])
        shown = torch.where(fresh, seeds.flatten(2).gather(1, cells), moved.flatten(2))
        known = torch.cat((carried, valid[:, None].expand(-1, stuff.shape[1])), 1)
        kernels = torch.cat((chosen, kernels[:, things:]), 1)
        return (
            kernels + self.memory(memory.kernels) * known[..., None],
            torch.cat((shown.view_as(seeds), stuff), 1),
            known,
        )


def _same_objects(moved: Tensor, seeds: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
    """Which seed [B,P slots,P seeds] shows the object of a slot: the two overlap most with each
    other. And which seeds [B,P] do."""
    slots = ((moved > 0).flatten(2) & carried[..., None]).to(torch.float32)
    others = (seeds > 0).flatten(2).to(torch.float32)
    inter = slots @ others.transpose(1, 2)
    union = slots.sum(2)[:, :, None] + others.sum(2)[:, None] - inter
    overlap = inter / union.clamp(min=1)
    best = (overlap == overlap.amax(1, True)) & (overlap == overlap.amax(2, True))
    same = best & (overlap > _SAME_OVERLAP)
    return same, same.any(1)


class AssociationEmbedding(nn.Module):
    """Kernel -> vector whose dot products separate instances. Not normalised."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_normed_linear(channels),
            nn.Linear(channels, channels),
            *(nn.Linear(channels, channels), nn.ReLU()),
            *(nn.Linear(channels, channels), nn.ReLU()),
            nn.Linear(channels, channels),
        )

    def forward(self, kernels: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        return self.layers(kernels)


class UpdateStage(nn.Module):
    """One round: pool features under the masks, update the kernels, predict classes and masks anew.

    `feature_transform` is a linear map of the features. It is never applied to them: it moves onto
    the kernels and the pooled sums, K(Wx + b) = (KW)x + Kb, which gives the same numbers for less.

    Only the `last` stage has fusion and linking, and there the thing kernels are linked. In task
    semantic each kernel is a class: nothing is classified, all kernels are linked, and the masks
    are those of linked kernels. The image part is that of MMSegmentation's `knet_head.py` but for
    two things: group features are averages where there they are sums, so that they do not depend on
    the image size, and the update is as wide as the kernels, where theirs takes a kernel of 512
    channels for two of 256.
    """

    def __init__(self, config: ModelConfig, last: bool) -> None:
        super().__init__()
        kernels, channels = config.kernels, config.neck.channels
        attention = (channels, kernels.attention_heads, kernels.feedforward)
        fusion, linking = (kernels.fusion, kernels.linking) if last else ("none", "none")
        classes = len(config.classes) if TASKS[config.task].has_things else 0
        self.pooling, self.things = kernels.pooling, kernels.things
        self.links_kernels = linking == "update_obj"
        self.feature_transform = nn.Linear(channels + CODE_SIZE * kernels.position, channels)
        self.update = _KernelUpdate(channels)
        self.interaction = _KernelInteraction(*attention)
        self.fusion = self.linking = None
        wide = channels + CODE_SIZE * kernels.position
        self.sticky = StickySlots(channels, wide) if fusion == "sticky" else None
        if fusion not in ("none", "sticky"):
            self.fusion = _PreviousInteraction(*attention, update=fusion == "update_dynamic_cov")
        if linking != "none":
            self.linking = _PreviousInteraction(*attention, update=linking != "ffn")
        self.class_head = None
        if classes:
            classifier = nn.Linear(channels, classes)
            self.class_head = nn.Sequential(*_normed_linear(channels), classifier)
        self.mask_head = nn.Sequential(*_normed_linear(channels), nn.Linear(channels, channels))
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        self.detail_head = None
        if last and kernels.detail:
            self.detail_head = nn.Linear(channels, kernels.detail)
            nn.init.zeros_(self.detail_head.weight)
            nn.init.zeros_(self.detail_head.bias)
        if classes:
            nn.init.constant_(classifier.bias, -math.log(99))  # focal prior of 1 %

    def forward(
        self,
        features: Tensor,
        kernels: Tensor,
        mask_logits: Tensor,
        previous: PreviousKernels | None = None,
        classify: bool = True,
        detail: Tensor | None = None,
    ) -> StageOutput:
        """Features (`heads.HeadOutput`), kernels [B,N,C], their masks [B,N,h,w] -> all refined.

        Masks are enlarged to the map `detail` [B,D,2h,2w], which is added, if there is one.
        """
        weight, bias = self.feature_transform.weight, self.feature_transform.bias
        known = memory = None
        if self.sticky is not None and previous is not None:
            memory = self._memory(previous, mask_logits)
            kernels, mask_logits, known = self.sticky.place(
                kernels, mask_logits, memory, previous.valid, self.things
            )
        group, count = assemble_group_features(mask_logits, features, self.pooling)
        group = (group @ weight.T.to(group.dtype) + count * bias).to(kernels.dtype)
        if self.fusion is not None and previous is not None:
            kernels = self.fusion(kernels, previous, group)
        kernels = self.update(group, kernels)
        kernels = self.interaction(kernels, kernels)
        mask_kernels = kernels
        class_logits = doubt = None
        if self.class_head is not None and classify:
            class_logits = self.class_head(kernels)
        if memory is not None:
            doubt = self.sticky.doubt(features) * known[..., None, None]  # [B,N,h,w]
            part = (memory.mask_logits > 0).float()
            share = (doubt * part).sum((2, 3)) / part.sum((2, 3)).clamp(min=1)
            share = share[..., None].to(kernels.dtype)
            kernels = torch.lerp(kernels, memory.kernels, share)
            class_logits = torch.lerp(class_logits, memory.class_logits, share)
        linked = kernels if self.class_head is None else kernels[:, : self.things]
        if self.linking is not None and previous is not None:
            linked = self.linking(linked, previous, kernels if self.links_kernels else group)
        mask_kernels = self.mask_head(linked if self.class_head is None else mask_kernels)
        masks = self._masks(mask_kernels, features)
        if memory is not None:
            masks = torch.lerp(masks, memory.mask_logits, doubt)
        if self.detail_head is not None and detail is not None:
            size = detail.shape[-2:]
            masks = interpolate(masks, size=size, mode="bilinear", align_corners=False)
            finer = apply_kernels(self.detail_head(mask_kernels), detail)
            if doubt is not None:
                finer = finer * (1 - interpolate(doubt, size=size, mode="nearest"))
            masks = masks + finer
        carried = None
        if self.sticky is not None:
            carried = torch.zeros_like(linked[..., 0], dtype=torch.bool)
            if known is not None:
                carried = known[:, : self.things]
        return StageOutput(kernels, linked, class_logits, masks, carried)

    def _memory(self, previous: PreviousKernels, like: Tensor) -> _Memory:
        """The parts of the state, with masks as `like` [B,N,h,w]."""
        channels, cells = self.feature_transform.out_features, like.shape[2] * like.shape[3]
        state = previous.kernels
        kernels, classes, masks = state.split(
            (channels, state.shape[2] - channels - cells, cells), 2
        )
        return _Memory(kernels, classes, masks.view_as(like))

    def state(self, output: StageOutput, valid: Tensor) -> PreviousKernels:
        """What goes on to the next frame, in which `valid` [B] of the videos continue."""
        if self.sticky is None:
            return PreviousKernels(output.kernels, valid)
        classes, masks = output.class_logits, output.mask_logits
        columns = classes.shape[2] - (classes.shape[1] - self.things)
        scores = classes[:, : self.things, :columns].amax(2).sigmoid()
        stuff = classes.shape[1] - self.things
        alive = nn.functional.pad((scores >= ALIVE_SCORE).to(masks.dtype), (0, stuff), value=1.0)
        if self.detail_head is not None:
            masks = nn.functional.avg_pool2d(masks, 2)
        masks = masks.clamp(-_SURE, _SURE).flatten(2)
        memory = torch.cat((output.kernels, classes, masks), 2) * alive[..., None]
        return PreviousKernels(memory, valid)

    def _masks(self, mask_kernels: Tensor, features: Tensor) -> Tensor:
        """[B,M,C] of the mask head x features -> [B,M,h,w] logits."""
        masks = apply_kernels(mask_kernels @ self.feature_transform.weight, features)
        return masks + (mask_kernels @ self.feature_transform.bias).to(masks.dtype)[..., None, None]


def _normed_linear(channels: int) -> tuple[nn.Module, ...]:
    """Linear without bias, LayerNorm, ReLU: the start of every head on kernels."""
    return nn.Linear(channels, channels, bias=False), nn.LayerNorm(channels), nn.ReLU()
