"""The tracker of ViP-DeepLab: two predictions of one frame are stitched by the overlap of masks.

Qiao et al., "ViP-DeepLab", CVPR 2021, section 4.2: of a pair of frames (t - 1, t) the network also
groups the pixels of t to the objects of t - 1. An object of t takes the id of the group that its
mask overlaps most, if both are of one class.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from video_knet_core.config_io import ConfigError, settings_class
from video_knet_core.tracking.clock import StreamTime
from video_knet_core.tracking.embedding import match_greedily
from video_knet_core.tracking.tracker import Ids, Tracker, TrackerSettings, register
from video_knet_core.types import Detections


@register
class StitchingTracker(Tracker[TrackerSettings]):
    """Ids continue by `Detections.embeddings`, of which column j is the intersection over union
    with the group of what was slot j of the last frame.

    As in the paper every object has an id, and nothing is recognised: an object that is not seen in
    a frame has ended.
    """

    any_network = False

    @settings_class
    class Settings(TrackerSettings):
        tracker: ClassVar[str] = "stitching"

    def reset(self) -> None:
        """Remove all tracks; new ids continue the count."""
        super().reset()
        self._slots: dict[int, int] = {}
        """Slot of each track in the last frame, by id."""

    def assign(self, detections: Detections, now: StreamTime) -> Ids:
        """See `Tracker.assign`; ConfigError if overlaps with slots of the last frame lack."""
        known = self.tracks["row"]
        track_ids = known["track_id"].tolist()
        overlap = self._overlap(detections, [self._slots[i] for i in track_ids])
        same_class = detections.class_ids[:, None] == known["class_id"]
        ids = np.zeros(len(detections), np.int64)
        for i, j in match_greedily(overlap, same_class & (overlap > 0), detections.scores):
            ids[i] = track_ids[j]
        new = np.flatnonzero(ids == 0)
        ids[new] = self.new_ids(len(new))
        slots = range(len(ids)) if detections.slots is None else detections.slots.tolist()
        self._slots = dict(zip(ids.tolist(), slots, strict=True))
        return ids

    def alive(self, now: StreamTime) -> NDArray[np.bool_]:
        """[M] tracks that are seen in this frame."""
        return self.tracks["visible"]

    def _overlap(self, detections: Detections, slots: list[int]) -> NDArray[np.float32]:
        """[N, M] of the detections with what was in `slots` of the last frame."""
        columns = detections.embeddings.shape[1]
        if max(slots, default=-1) >= columns:
            raise ConfigError(
                f"tracker {self.settings.tracker!r} needs a network that returns overlaps with the "
                f"slots of the last frame, as vip_deeplab does; got {columns} for slot {max(slots)}"
            )
        return detections.embeddings[:, slots]
