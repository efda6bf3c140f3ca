"""Panoptic-DeepLab: semantics, centres and offsets from two decoders on one backbone.

Cheng et al., "Panoptic-DeepLab: A Simple, Strong, and Fast Baseline for Bottom-Up Panoptic
Segmentation", CVPR 2020; constants and widths of google-research/deeplab2. It sees one frame:
identity is left to a tracker.

What differs: the maps are not enlarged to the image but by `BaselineConfig.upsample`, and stuff is
kept however small it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from video_knet_core.model.network import Frames
from video_knet_core.training.targets import FrameTargets

from .baseline import Baseline, Memory, Segments
from .baseline_config import BaselineConfig
from .centers import Grouping, Maps, panoptic_losses, segments_of
from .decoder import HEAD_CHANNELS, head, instance_decoder, instance_width, semantic_decoder


class PanopticDeepLab(Baseline):
    """Semantic and instance branch; embeddings are x, y of the centres as fractions 0..1."""

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        inputs, channels = self.backbone.channels, config.channels
        stride = config.backbone.output_stride
        width = instance_width(channels)
        self.semantic_decoder = semantic_decoder(inputs, channels, stride)
        self.instance_decoder = instance_decoder(inputs, channels, stride)
        self.semantic_head = head(channels, channels, len(config.classes))
        self.center_head = head(width, HEAD_CHANNELS, 1)
        self.offset_head = head(width, HEAD_CHANNELS, 2)

    def predict(self, pyramid: Sequence[Tensor]) -> tuple[Maps, Tensor]:
        """The maps of F frames, and what further heads read: [F,C,h,w] of the instance decoder."""
        semantic = self.semantic_head(self.semantic_decoder(pyramid))
        features = self.instance_decoder(pyramid)
        heat = self.center_head(features).squeeze(1)
        return Maps(semantic, heat, self.offset_head(features)), features

    def grouped(self, maps: Maps) -> Grouping:
        """The segments of one frame."""
        config = self.config
        return segments_of(
            maps,
            len(config.classes.things),
            config.instances,
            config.upsample,
            config.score_threshold,
        )

    def infer(self, image: Tensor, memory: Memory, valid: Tensor) -> tuple[Segments, Memory]:
        """See `Baseline.infer`; there is no memory."""
        maps, _ = self.predict(self.frames(image).pyramid)
        return self.grouped(maps).segments, {}

    def losses(self, frames: Frames, targets: FrameTargets, sides: int) -> dict[str, Tensor]:
        """See `ExternalNetwork.losses`: all frames count equally."""
        maps, _ = self.predict(frames.pyramid)
        return panoptic_losses(maps, targets)
