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
from .slots import SlotContents, SlotMemory, StickySlots


class PreviousKernels(NamedTuple):
    """The state that goes from frame to frame."""

    kernels: Tensor
    """[B,N,C] refined kernels of the previous frame, before linking; of sticky slots
    `StageOutput.remembered`."""
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
    remembered: Tensor | None = None
    """[B,N,2C+K+hw] of the last stage, if it has `StickySlots`: what goes on to the next frame in
    place of kernels."""


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
        if fusion != "none":
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
        self.slots = self.detail_head = None
        if last and kernels.sticky:
            inputs = self.feature_transform.in_features
            self.slots = StickySlots(channels, inputs, kernels.things)
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
        memory: SlotMemory | None = None
        if self.slots is not None and previous is not None:
            memory = self.slots.recall(previous.kernels, previous.valid, mask_logits)
            previous = PreviousKernels(memory.slots.kernels, previous.valid)
        group, count = assemble_group_features(mask_logits, features, self.pooling)
        group = (group @ weight.T.to(group.dtype) + count * bias).to(kernels.dtype)
        if self.fusion is not None and previous is not None:
            kernels = self.fusion(kernels, previous, group)
        kernels = self.update(group, kernels)
        kernels = self.interaction(kernels, kernels)
        linked = kernels if self.class_head is None else kernels[:, : self.things]
        if self.linking is not None and previous is not None:
            linked = self.linking(linked, previous, kernels if self.links_kernels else group)
        class_logits = None
        if self.class_head is not None and classify:
            class_logits = self.class_head(kernels)
        mask_kernels = self.mask_head(linked if self.class_head is None else kernels)
        masks = apply_kernels(mask_kernels @ weight, features)
        masks = masks + (mask_kernels @ bias).to(masks.dtype)[..., None, None]
        finer = None
        if self.detail_head is not None and detail is not None:
            finer = self.detail_head(mask_kernels)
        remembered = None
        if self.slots is not None and class_logits is not None:
            slots = SlotContents(kernels, linked, class_logits, masks)
            if memory is not None:
                slots, finer = self.slots.update(slots, memory, features, finer)
            remembered = self.slots.remember(slots)
            kernels, linked, class_logits, masks = slots
        if finer is not None and detail is not None:
            size = detail.shape[-2:]
            masks = interpolate(masks, size=size, mode="bilinear", align_corners=False)
            masks = masks + apply_kernels(finer, detail)
        return StageOutput(kernels, linked, class_logits, masks, remembered)


def _normed_linear(channels: int) -> tuple[nn.Module, ...]:
    """Linear without bias, LayerNorm, ReLU: the start of every head on kernels."""
    return nn.Linear(channels, channels, bias=False), nn.LayerNorm(channels), nn.ReLU()
