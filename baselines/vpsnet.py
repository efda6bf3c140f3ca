"""VPSNet: Mask R-CNN and a semantic head on features that are fused with those of an older frame.

Kim et al., "Video Panoptic Segmentation", CVPR 2020, written from the paper. It is UPSNet (Xiong et
al., CVPR 2019) with two additions: the Fuse module (gather the pyramid, align and attend,
redistribute), and the track head of MaskTrack R-CNN (Yang et al., ICCV 2019); see `masktrack` for
how its embeddings are used.

What differs from the paper:
- The flow comes from a cost volume of backbone features that learns with the rest; the paper has
  FlowNet2, which was trained with ground truth of flow, and refines it.
- Plain convolutions in the semantic head, where UPSNet has deformable ones.
- Batch norm in the pyramid and the semantic head, since these start from noise here.
- No level of stride 64, and anchors of half the size: images are smaller.
- Fewer regions in training, and one sample for a cell of a mask region instead of four.
- The panoptic loss is on masks of sampled regions, one for each object; UPSNet's are of the
  ground-truth boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    avg_pool2d,
    binary_cross_entropy_with_logits,
    cross_entropy,
    interpolate,
    pad,
    relu,
    smooth_l1_loss,
)

from video_knet_core.model.backbone import BN_EPS
from video_knet_core.model.merge import slot_areas
from video_knet_core.model.network import Frames
from video_knet_core.training.losses import cell_loss
from video_knet_core.training.targets import IGNORE, FrameTargets

from .baseline import Baseline, Memory, Segments
from .baseline_config import FLOW_CHANNELS, MAP_STRIDE, BaselineConfig
from .boxes import (
    anchor_boxes,
    clip,
    decode,
    encode,
    inside,
    mask_boxes,
    nms,
    overlaps,
    paste,
    roi_align,
    suppress,
)
from .flow import AlignedFusion, CorrelationFlow

STRIDES = (4, 8, 16, 32)
ANCHOR_SIZE = 4
"""Side of anchors in cells."""
RATIOS = (0.5, 1.0, 2.0)
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Of the codes of the box head, as in Fast R-CNN."""
BOX_SIZE, MASK_SIZE = 7, 14
"""Cells of regions; masks are twice as fine."""
BEFORE_NMS, PROPOSALS = 200, 100
"""Of a frame, before and after non-maximum suppression."""
CANDIDATES = 200
"""Pairs of a proposal and a class before non-maximum suppression."""
PROPOSAL_NMS, BOX_NMS = 0.7, 0.5
"""Maximum intersection over union."""
MAX_HIDDEN = 0.5
"""A thing is dropped if more of its mask lies under better ones of its class (UPSNet)."""
MIN_STUFF = 0.001
"""Minimum part of the image of a stuff class: 2048 pixels of 1024 x 2048 in UPSNet, where pixels of
smaller ones are left without a class. Here they have the next best one, since STQ counts pixels
without a class as a class of their own, with an overlap of 0."""
OUTSIDE = -1e4
"""Logit of a thing outside its box."""

ANCHOR_SAMPLES, POSITIVE_ANCHORS = 128, 64
ROI_SAMPLES, POSITIVE_ROIS = 16, 6
"""Of a frame in training, and how many of them at most are positive."""
ANCHOR_IOU = 0.3, 0.7
"""Below the first an anchor is negative, from the second on positive."""
ROI_IOU = 0.5


# --- heads


def _conv_bn(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs, eps=BN_EPS),
    )


class FeaturePyramid(nn.Module):
    """Feature Pyramid Network (Lin et al., 2017): [F,Ci,h,w] of each level -> [F,C,h,w]."""

    def __init__(self, inputs: Sequence[int], channels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(_conv_bn(c, channels, 1) for c in inputs)
        self.outputs = nn.ModuleList(_conv_bn(channels, channels, 3) for _ in inputs)

    def forward(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        levels = [lateral(x) for lateral, x in zip(self.laterals, pyramid, strict=True)]
        for i in reversed(range(1, len(levels))):
            above = interpolate(levels[i], size=levels[i - 1].shape[-2:], mode="nearest")
            levels[i - 1] = levels[i - 1] + above
        return [output(x) for output, x in zip(self.outputs, levels, strict=True)]


class SemanticHead(nn.Module):
    """UPSNet's: the same layers on each level, joined at stride 4: -> [F,classes,h,w].

    Joining maps and classifying them is the same as adding up the logits of each, as these are
    linear in enlarged maps; and logits are fewer than channels.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        half = channels // 2
        self.layers = nn.Sequential(
            *(_conv_bn(channels, half, 3), nn.ReLU()), *(_conv_bn(half, half, 3), nn.ReLU())
        )
        self.classifiers = nn.ModuleList(nn.Conv2d(half, classes, 1) for _ in STRIDES)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        size = levels[0].shape[-2:]
        first, *rest = (
            classifier(self.layers(x))
            for classifier, x in zip(self.classifiers, levels, strict=True)
        )
        for logits in rest:
            first = first + interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return first


class ProposalHead(nn.Module):
    """Region proposal network (Ren et al., "Faster R-CNN", 2015) on all levels.

    -> logits [F,A] and codes [F,A,4] of the anchors.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(channels, channels, 3, padding=1)
        self.logits = nn.Conv2d(channels, len(RATIOS), 1)
        self.codes = nn.Conv2d(channels, 4 * len(RATIOS), 1)
        for layer in (self.hidden, self.logits, self.codes):
            nn.init.normal_(layer.weight, std=0.01)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        logits, codes = [], []
        for level in levels:
            x = relu(self.hidden(level))
            logits.append(self.logits(x).permute(0, 2, 3, 1).flatten(1))
            codes.append(self.codes(x).permute(0, 2, 3, 1).reshape(len(x), -1, 4))
        return torch.cat(logits, 1), torch.cat(codes, 1)


class RegionLayers(nn.Sequential):
    """Two layers on regions [R,C,7,7]: -> [R,outputs]. The first has 4 C, 1024 published."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(
            nn.Flatten(),
            nn.Linear(channels * BOX_SIZE**2, 4 * channels),
            nn.ReLU(),
            nn.Linear(4 * channels, outputs),
        )


class BoxHead(nn.Module):
    """-> logits [R,K+1], the last of the background, and codes [R,K,4] for each class."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.layers = RegionLayers(channels, 4 * channels)
        self.logits = nn.Linear(4 * channels, classes + 1)
        self.codes = nn.Linear(4 * channels, 4 * classes)
        nn.init.normal_(self.logits.weight, std=0.01)
        nn.init.normal_(self.codes.weight, std=0.001)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        x = relu(self.layers(regions))
        return self.logits(x), self.codes(x).unflatten(1, (-1, 4))


class MaskHead(nn.Sequential):
    """Regions [R,C,14,14] -> mask logits [R,K,28,28] (He et al., "Mask R-CNN", 2017)."""

    def __init__(self, channels: int, classes: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()]
        layers += [nn.ConvTranspose2d(channels, channels, 2, 2), nn.ReLU()]
        super().__init__(*layers, nn.Conv2d(channels, classes, 1))
        for layer in self:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)


def of_class(values: Tensor, classes: Tensor) -> Tensor:
    """Of values [R,K,...] those of the class [R] of each: [R,...]."""
    places = torch.arange(len(values), device=values.device) * values.shape[1] + classes
    return values.flatten(0, 1).index_select(0, places)


# --- what the losses compare with


class Objects(NamedTuple):
    """The labelled things of F frames, G in each, of which the last is none."""

    boxes: Tensor
    """[F,G,4]"""
    classes: Tensor
    """[F,G] int64"""
    ids: Tensor
    """[F,G] int64, of objects that have an identity above 0."""
    present: Tensor
    """[F,G] bool"""
    masks: Tensor
    """[F,G,h,w]"""

    @classmethod
    def of(cls, targets: FrameTargets) -> Objects:
        """Those of a batch."""
        masks = pad(targets.masks, (0, 0, 0, 0, 0, 1))
        classes, ids = (pad(x, (0, 1)) for x in (targets.classes, targets.ids))
        return cls(mask_boxes(masks, MAP_STRIDE), classes, ids, ids != 0, masks)

    def overlaps(self, boxes: Tensor) -> Tensor:
        """[F,N,G] intersection over union of boxes [F,N,4] or [N,4] with them."""
        return overlaps(boxes, self.boxes) * self.present[:, None]


class SampledRegions(NamedTuple):
    """R regions of all frames, sampled for training."""

    boxes: Tensor
    """[R,4]"""
    frames: Tensor
    """[R] int64"""
    objects: Tensor
    """[R] int64, the object that overlaps most."""
    positive: Tensor
    """[R] bool, it does so enough."""


def choose(positive: Tensor, negative: Tensor, number: int, positives: int) -> tuple[Tensor, ...]:
    """A random choice among the items of each frame.

    Args:
        positive, negative: [F,N] bool.
        number: of items, where there are so many.
        positives: how many of them are positive, at most.

    Returns:
        Frame and place of the chosen items, as for indexing; and whether they are positive.
    """
    first, is_first = _random(positive, positives)
    rest, is_rest = _random(negative, number)
    place = torch.arange(rest.shape[1], device=rest.device)
    is_rest = is_rest & (place < number - is_first.sum(1, keepdim=True))
    used = torch.cat((is_first, is_rest), 1)
    frames, columns = used.nonzero(as_tuple=True)
    return frames, torch.cat((first, rest), 1)[frames, columns], columns < first.shape[1]


def _random(allowed: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """[F,n] places of items, and whether they are among the allowed ones; these come first."""
    keys = torch.rand(allowed.shape, device=allowed.device) * allowed
    keys, places = keys.topk(min(number, allowed.shape[1]))
    return places, keys > 0


def labelled(valid: Tensor, boxes: Tensor) -> Tensor:
    """[F,N] bool: the centre of a box [F,N,4] or [N,4] lies where there are labels.

    `valid` is [F,h,w], see `FrameTargets`.
    """
    height, width = valid.shape[-2:]
    center = ((boxes[..., :2] + boxes[..., 2:]) / (2 * MAP_STRIDE)).long()
    cells = center[..., 1].clamp(0, height - 1) * width + center[..., 0].clamp(0, width - 1)
    return valid.flatten(1).gather(1, cells.expand(len(valid), -1)) > 0.5


def track_loss(key: Tensor, key_ids: Tensor, reference: Tensor, reference_ids: Tensor) -> Tensor:
    """Cross-entropy of R objects over those of their reference frames and "new".

    The logits are products of embeddings, and 0 for "new".

    Args:
        key: [R,E]; reference: [R,G,E].
        key_ids: [R] above 0; reference_ids: [R,G], objects of other ids are left out.

    Returns:
        The mean; 0 if R is.
    """
    logits = (reference @ key[..., None]).squeeze(-1).masked_fill(reference_ids <= 0, OUTSIDE)
    logits = pad(logits, (0, 1))
    same = pad(key_ids[:, None] == reference_ids, (0, 1), value=True)
    goal = same.to(torch.uint8).argmax(1)  # the first that is: "new" is the last
    return cross_entropy(logits, goal, reduction="sum") / max(len(key), 1)


# --- the network


class VpsNet(Baseline):
    """See the module. `channels` of the pyramid: 256 published."""

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        classes, channels = config.classes, config.channels
        things = len(classes.things)
        self.pyramid = FeaturePyramid(self.backbone.channels, channels)
        self.flow = CorrelationFlow(self.backbone.channels[1], FLOW_CHANNELS, STRIDES[1])
        self.fusion = AlignedFusion(channels)
        self.semantic = SemanticHead(channels, len(classes))
        self.proposals = ProposalHead(channels)
        self.box_head = BoxHead(channels, things)
        self.mask_head = MaskHead(channels, things)
        self.track_head = RegionLayers(channels, config.embedding_size)

    def infer(self, image: Tensor, memory: Memory, valid: Tensor) -> tuple[Segments, Memory]:
        """See `Baseline.infer`. A first frame is fused with itself."""
        frames = self.frames(image)
        levels, own = self._gathered(frames)
        reference = {
            name: torch.where(valid.view(-1, 1, 1, 1), memory[name], own[name]) for name in own
        }
        levels = self._fused(levels, own, reference)
        size = image.shape[-2], image.shape[-1]
        boxes, classes, scores = self._detect(levels, size)
        frame = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        regions = roi_align(levels, STRIDES, boxes, frame, MASK_SIZE)
        masks = of_class(self.mask_head(regions), classes)
        regions = roi_align(levels, STRIDES, boxes, frame, BOX_SIZE, 2)
        semantic = self.semantic(levels)
        segment_map, kept = merge_panoptic(semantic[0], boxes, classes, scores, masks, self.config)
        stuff = semantic[0].softmax(0)[len(self.config.classes.things) :].amax((1, 2))
        return Segments(segment_map, classes, scores * kept, stuff, self.track_head(regions)), own

    def _gathered(self, frames: Frames) -> tuple[list[Tensor], Memory]:
        """The levels of the pyramid; their sum at stride 4, and what flow is found by."""
        levels = self.pyramid(frames.pyramid)
        size = levels[0].shape[-2:]
        total = sum(interpolate(x, size=size, mode="nearest") for x in levels[1:]) + levels[0]
        return levels, {"features": total, "flow": self.flow.embed(frames.pyramid[1])}

    def _fused(self, levels: list[Tensor], own: Memory, reference: Memory) -> list[Tensor]:
        """The levels, to which the fused sum is redistributed."""
        flow = self.flow(own["flow"], reference["flow"])
        fused = self.fusion(own["features"], reference["features"], flow, MAP_STRIDE)
        return [
            level + (avg_pool2d(fused, stride // MAP_STRIDE) if stride > MAP_STRIDE else fused)
            for level, stride in zip(levels, STRIDES, strict=True)
        ]

    def _anchors(self, levels: Sequence[Tensor]) -> Tensor:
        """[A,4] in the order of the proposal head."""
        boxes = [
            anchor_boxes((level.shape[-2], level.shape[-1]), stride, ANCHOR_SIZE * stride, RATIOS)
            for level, stride in zip(levels, STRIDES, strict=True)
        ]
        return torch.cat(boxes).to(levels[0].device)

    def _propose(
        self, logits: Tensor, codes: Tensor, anchors: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """[F,R,4] the best boxes, those that others make redundant last."""
        number = max(PROPOSALS, self.config.instances)
        best = logits.topk(max(BEFORE_NMS, number), 1).indices
        codes = codes.gather(1, best[..., None].expand(-1, -1, 4))
        starts = anchors.index_select(0, best.flatten()).view(codes.shape)
        boxes = clip(decode(codes, starts), size)
        first = _kept_first(nms(boxes, PROPOSAL_NMS), number)
        return boxes.gather(1, first[..., None].expand(-1, -1, 4))

    def _detect(self, levels: list[Tensor], size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Boxes [P,4] of one frame, their classes [P] and scores [P], 0 of redundant ones."""
        logits, codes = self.proposals(levels)
        proposals = self._propose(logits, codes, self._anchors(levels), size)[0]
        frame = torch.zeros(len(proposals), dtype=torch.int64, device=proposals.device)
        logits, codes = self.box_head(roi_align(levels, STRIDES, proposals, frame, BOX_SIZE, 2))
        number = logits.shape[1] - 1
        pairs = logits.softmax(1)[:, :-1].flatten()
        scores, best = pairs.topk(min(max(CANDIDATES, self.config.instances), len(pairs)))
        boxes = clip(decode(codes, proposals[:, None], BOX_WEIGHTS), size)
        boxes = boxes.flatten(0, 1).index_select(0, best)
        classes = best % number
        apart = boxes + (classes * 2 * max(size))[:, None]  # no box overlaps one of another class
        keep = nms(apart, BOX_NMS)
        first = _kept_first(keep, self.config.instances)
        return tuple(x.index_select(0, first) for x in (boxes, classes, scores * keep))

    # --- training

    def losses(self, frames: Frames, targets: FrameTargets, sides: int) -> dict[str, Tensor]:
        """See `Baseline.losses`. A frame is fused with the next older one, the oldest with itself.

        All weights are 1.
        """
        batch = len(frames.images) // sides
        levels, own = self._gathered(frames)
        older = {name: torch.cat((x[batch:], x[-batch:])) for name, x in own.items()}
        levels = self._fused(levels, own, older)
        semantic = self.semantic(levels)
        objects = Objects.of(targets)
        anchors = self._anchors(levels)
        logits, codes = self.proposals(levels)
        losses = self._proposal_losses(logits, codes, anchors, objects, targets.valid)
        size = frames.images.shape[-2], frames.images.shape[-1]
        with torch.no_grad():
            proposals = self._propose(logits, codes, anchors, size)
            regions = self._sample(proposals, objects, targets.valid)
        stuff = len(self.config.classes.stuff)
        losses["semantic"] = cell_loss(semantic, targets.semantic, stuff=stuff).mean()
        features = roi_align(levels, STRIDES, regions.boxes, regions.frames, BOX_SIZE, 2)
        losses |= self._box_losses(features, regions, objects)
        positive = SampledRegions(*(part[regions.positive] for part in regions))
        losses |= self._mask_losses(levels, semantic, positive, objects, targets)
        losses["track"] = self._track_loss(
            levels, features[regions.positive], positive, objects, batch
        )
        return losses

    def _proposal_losses(
        self, logits: Tensor, codes: Tensor, anchors: Tensor, objects: Objects, valid: Tensor
    ) -> dict[str, Tensor]:
        """Of sampled anchors: whether they are an object, and where it is."""
        overlap = objects.overlaps(anchors)
        best, owner = overlap.max(2)
        nearest = (overlap == overlap.amax(1, keepdim=True).clamp(min=1e-3)).any(2)
        positive = nearest | (best >= ANCHOR_IOU[1])
        negative = ~positive & (best < ANCHOR_IOU[0]) & labelled(valid, anchors)
        frame, place, is_object = choose(positive, negative, ANCHOR_SAMPLES, POSITIVE_ANCHORS)
        number = max(len(frame), 1)
        chosen = logits[frame, place]
        objectness = binary_cross_entropy_with_logits(
            chosen, is_object.to(chosen.dtype), reduction="sum"
        )
        frame, place = frame[is_object], place[is_object]
        goals = encode(objects.boxes[frame, owner[frame, place]], anchors[place])
        box = smooth_l1_loss(codes[frame, place], goals, beta=1 / 9, reduction="sum")
        return {"rpn_object": objectness / number, "rpn_box": box / number}

    def _sample(self, proposals: Tensor, objects: Objects, valid: Tensor) -> SampledRegions:
        """Regions of proposals [F,R,4] and of the objects themselves."""
        boxes = torch.cat((proposals, objects.boxes), 1)
        best, owner = objects.overlaps(boxes).max(2)
        positive = best >= ROI_IOU
        usable = torch.ones_like(positive)
        usable[:, proposals.shape[1] :] = objects.present
        negative = ~positive & labelled(valid, boxes) & usable
        frame, place, is_object = choose(positive, negative, ROI_SAMPLES, POSITIVE_ROIS)
        return SampledRegions(boxes[frame, place], frame, owner[frame, place], is_object)

    def _box_losses(
        self, features: Tensor, regions: SampledRegions, objects: Objects
    ) -> dict[str, Tensor]:
        """Class and box of sampled regions."""
        logits, codes = self.box_head(features)
        number = max(len(logits), 1)
        classes = objects.classes[regions.frames, regions.objects]
        goals = torch.where(regions.positive, classes, logits.shape[1] - 1)
        positive = regions.positive
        boxes = objects.boxes[regions.frames, regions.objects][positive]
        own = of_class(codes[positive], classes[positive])
        goals_of_codes = encode(boxes, regions.boxes[positive], BOX_WEIGHTS)
        return {
            "class": cross_entropy(logits, goals, reduction="sum") / number,
            "box": smooth_l1_loss(own, goals_of_codes, reduction="sum") / number,
        }

    def _mask_losses(
        self,
        levels: list[Tensor],
        semantic: Tensor,
        regions: SampledRegions,
        objects: Objects,
        targets: FrameTargets,
    ) -> dict[str, Tensor]:
        """Of positive regions: their masks, and the panoptic maps that these make."""
        frames, owners = regions.frames, regions.objects
        classes = objects.classes[frames, owners]
        features = roi_align(levels, STRIDES, regions.boxes, frames, MASK_SIZE)
        masks = of_class(self.mask_head(features), classes)
        count = objects.ids.shape[1]
        finest = STRIDES[:1]
        goals = roi_align(
            [objects.masks.flatten(0, 1)[:, None]],
            *(finest, regions.boxes, frames * count + owners, 2 * MASK_SIZE),
        )
        known = roi_align([targets.valid[:, None]], finest, regions.boxes, frames, 2 * MASK_SIZE)
        errors = binary_cross_entropy_with_logits(masks[:, None], goals, known, reduction="sum")
        panoptic = self._panoptic_loss(semantic, masks, regions, classes, objects, targets)
        return {"mask": errors / known.sum().clamp(min=1), "panoptic": panoptic}

    def _panoptic_loss(
        self,
        semantic: Tensor,
        masks: Tensor,
        regions: SampledRegions,
        classes: Tensor,
        objects: Objects,
        targets: FrameTargets,
    ) -> Tensor:
        """Cross-entropy over stuff and one region of each object; others' pixels are left out."""
        count, things = objects.ids.shape[1], len(self.config.classes.things)
        stuff = targets.stuff
        keys = regions.frames * count + regions.objects
        order = torch.arange(len(keys), device=keys.device)
        first = ((keys[:, None] == keys) & (order < order[:, None])).any(1).logical_not()
        frames, owners = regions.frames[first], regions.objects[first]
        size = semantic.shape[-2], semantic.shape[-1]
        logits = semantic.new_full((*objects.ids.shape, *size), OUTSIDE)
        own = of_class(semantic[frames], classes[first])
        pasted = paste(masks[first], regions.boxes[first], size, MAP_STRIDE)
        in_box = inside(regions.boxes[first], size, MAP_STRIDE)
        logits[frames, owners] = torch.where(in_box, pasted + own, OUTSIDE)
        slots = torch.full(objects.ids.shape, IGNORE, device=keys.device)
        slots[frames, owners] = owners
        of_stuff = torch.arange(count, count + stuff, device=keys.device)
        table = torch.cat((of_stuff.expand(len(slots), -1), slots), 1)
        goals = table.gather(1, targets.owners.clamp(min=0).flatten(1)).view(targets.owners.shape)
        goals = torch.where(targets.owners < 0, targets.owners, goals)
        logits = torch.cat((logits, semantic[:, things:]), 1)
        own = logits.gather(1, goals.clamp(min=0)[:, None]).squeeze(1)
        outside = (goals >= 0) & (own <= OUTSIDE / 2)  # pixels of an object that its box misses
        return cell_loss(logits, goals.masked_fill(outside, IGNORE), stuff=stuff).mean()

    def _track_loss(
        self,
        levels: list[Tensor],
        features: Tensor,
        regions: SampledRegions,
        objects: Objects,
        batch: int,
    ) -> Tensor:
        """Of positive regions: which object of the older frame they are.

        `features` [R,C,7,7] are theirs.
        """
        ids = objects.ids[regions.frames, regions.objects]
        with_older = (regions.frames + batch < len(objects.ids)) & (ids > 0)
        frames, places = objects.present.nonzero(as_tuple=True)
        whole = roi_align(levels, STRIDES, objects.boxes[frames, places], frames, BOX_SIZE, 2)
        embeddings = features.new_zeros(*objects.ids.shape, self.config.embedding_size)
        embeddings[frames, places] = self.track_head(whole).to(embeddings.dtype)
        older = regions.frames[with_older] + batch
        key = self.track_head(features[with_older])
        return track_loss(key, ids[with_older], embeddings[older], objects.ids[older])


def merge_panoptic(
    semantic: Tensor,
    boxes: Tensor,
    classes: Tensor,
    scores: Tensor,
    masks: Tensor,
    config: BaselineConfig,
) -> tuple[Tensor, Tensor]:
    """The panoptic head of UPSNet, without its unknown class, as in VPSNet.

    The logit of a thing is that of its mask plus that of its class, in its box. UPSNet has zeros
    elsewhere, with which another thing could win; here no thing can.

    Args:
        semantic: [K,h,w] logits, things first.
        boxes: [P,4] of things in descending order of scores [P], of classes [P].
        masks: [P,m,m] logits in the boxes.

    Returns:
        The label map [h,w], `config.upsample` times finer, as `Segments.segment_map`; and which
        things are kept [P].
    """
    factor = config.upsample
    size = factor * semantic.shape[1], factor * semantic.shape[2]
    fine = interpolate(semantic[None], size=size, mode="bilinear", align_corners=False)[0]
    pasted = paste(masks, boxes, size, MAP_STRIDE / factor)
    in_box = inside(boxes, size, MAP_STRIDE / factor)
    good = (scores >= config.score_threshold) & (scores > 0)
    found = (pasted > 0) & in_box & good[:, None, None]
    kept = good & (visible(found.flatten(1).to(torch.float32), classes) > 0.5)
    things = torch.where(
        in_box & kept[:, None, None], pasted + fine.index_select(0, classes), OUTSIDE
    )
    logits = torch.cat((things, fine[len(config.classes.things) :]))
    areas = slot_areas(logits.argmax(0), config.slots)
    is_thing = torch.arange(config.slots, device=areas.device) < config.instances
    shown = is_thing | (areas >= MIN_STUFF * size[0] * size[1])
    return torch.where(shown[:, None, None], logits, OUTSIDE).argmax(0) + 1, kept


def visible(masks: Tensor, classes: Tensor) -> Tensor:
    """[P] 0 or 1: no kept mask of the class before it covers most of a mask [P,hw] of 0 and 1."""
    shared = masks @ masks.T
    hidden = shared > MAX_HIDDEN * masks.sum(1, keepdim=True)
    return suppress(hidden & (classes[:, None] == classes))


def _kept_first(keep: Tensor, number: int) -> Tensor:
    """[...,number] places of items [...,N], first those to keep (1), each in their order."""
    order = torch.arange(keep.shape[-1], device=keep.device)
    return (keep * keep.shape[-1] - order).topk(number).indices
