"""From the tracks of a frame to objects and points in metres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..types import ClassTable, PanopticFrame
from .camera_model import CameraModel, SpatialError
from .ground_range import Standing, find_standing
from .inputs import SpatialInputs
from .motion import MotionFilter
from .objects import OBJECT_DTYPE, ObjectTable, RangeSource
from .settings import SpatialSettings
from .spatial_frame import SpatialFrame
from .surfaces import RegionMap, Surfaces, find_surfaces, samples_of_cloud, samples_of_depth
from .transforms import TransformError

RANGE_SIGMA, RANGE_SIGMA_OF_RANGE = 0.05, 0.005
"""Standard deviation of the range of a surface [m], and its growth with the range, that more points
and more frames do not lower: alignment, calibration, which part is visible."""
INDEPENDENT = 12
"""Points, at most, whose errors count as independent of each other."""
NOISE_FACTOR = 1.5
"""Of the noise of a point in that of a median, or of an edge, of independent ones."""
ANCHOR_SPREAD, POSITION_SPREAD = 0.1, 0.3
"""Of the spread of the points: which part of a surface is in the mask is not the same each time."""
GROUND_SIGMA = 1.0
"""Standard deviation of the distance from the foot to the middle of the visible surface [m]."""
SIDE_CELLS = 1.0
"""Standard deviation across the line of sight, in cells of the label map."""
MIN_SIDE_SIGMA = 0.001
"""Smallest one [m]: the anchor of what is around the camera is the camera itself."""
CUT_SIGMA = 1.0
"""Standard deviation of the anchor of a thing that is cut off at a side of the image [m], in each
direction."""
MAX_PREDICTED_NS = 1_000_000_000
"""Nanoseconds since its last measurement after which a track has no place any more."""


@dataclass(frozen=True)
class _Measured:
    """Measurements of N tracks in the frame of the camera; NaN where there is none."""

    source: NDArray[np.int64]
    points: NDArray[np.int64]
    sigma: NDArray[np.float64]
    """[N] standard deviation of the range of the anchor."""
    floor: NDArray[np.float64]
    """[N] what that of the position has in addition, however many frames there are."""
    anchor: NDArray[np.float64]
    """[N, 3] the point whose motion is that of the object, relative to the camera, along the axes
    of the target frame; as the following."""
    offset: NDArray[np.float64]
    """[N, 3] from there to the position."""
    box_center: NDArray[np.float64]
    """[N, 3] from the position to the middle of the box; and its size."""
    size: NDArray[np.float64]


@dataclass(frozen=True)
class _Box:
    """What was last measured of a track beside its anchor; see `_Measured`."""

    offset: NDArray[np.float64]
    center: NDArray[np.float64]
    size: NDArray[np.float64]
    floor: float
    stamp: int
    """Of the frame [ns]."""


class ObjectLocator:
    """Finds the place and motion of the tracks of one camera.

    `inputs` are filled while frames come. Like the tracker it remembers: a frame follows the last.
    """

    def __init__(self, classes: ClassTable, settings: SpatialSettings) -> None:
        self.classes = classes
        self.settings = settings
        self.inputs = SpatialInputs()
        self._filter = MotionFilter()
        self._boxes: dict[int, _Box] = {}
        self._epoch: int | None = None
        self._axes = ""
        self._followed = 0, 0
        """Track to follow, and the epoch in which it was chosen."""

    def locate(
        self, frame: PanopticFrame, image: NDArray[np.uint8], frame_id: str, stamp: int
    ) -> SpatialFrame:
        """What is known of a frame in space, each part on first access.

        Args:
            image: RGB [H, W, 3].
            frame_id: of the camera, as the image has it.
            stamp: of the image [ns].
        """
        self.inputs.begin_frame()
        return SpatialFrame(
            self.inputs,
            self.settings,  # a parameter may change them meanwhile
            self._find_objects,
            self.classes,
            frame,
            image,
            frame_id,
            stamp,
            self._followed_track(frame.epoch),
        )

    def _followed_track(self, epoch: int) -> int:
        """Id of the track to follow; 0 = none, as in another epoch, where the id is of another."""
        if self.settings.follow_track != self._followed[0]:
            self._followed = self.settings.follow_track, epoch
        track, chosen = self._followed
        if track and epoch != chosen:
            reason = f"expected a track of tracker epoch {epoch}, got track {track} of {chosen}"
            self.inputs.note("follow_track", reason)
            return 0
        return track

    def _find_objects(self, spatial: SpatialFrame) -> ObjectTable | None:
        """The table of a frame.

        None if the camera or the target frame is unknown now, or if there are things in the image
        but no source of ranges: an empty table would say that nothing is there.
        """
        try:
            camera, to_target = spatial.camera, spatial.to_target
        except (SpatialError, TransformError) as error:
            self.inputs.note("objects", str(error))
            return None
        self.inputs.note("objects", "")
        frame, axes = spatial.frame, spatial.target_frame or spatial.frame_id
        is_first = (frame.epoch, axes) != (self._epoch, self._axes)
        if is_first:
            self._filter, self._boxes = MotionFilter(), {}
            self._epoch, self._axes = frame.epoch, axes
        rows = frame.tracks.array
        rows = rows[rows["is_thing"] & (rows["track_id"] > 0)]
        seen = rows[rows["label"] > 0]
        measured = self._measure(spatial, seen, camera, to_target)
        ids = seen["track_id"].astype(np.int64)
        before = self._filter.ids
        self._track(spatial, rows, seen, measured)
        if len(seen) and not spatial.has_ranges:
            spatial.note_no_source("range", "expected depth, a cloud or the height of the camera")
            if not len(before) and not len(self._filter.ids):
                self._epoch = None  # the next table is the first one
                return None
        ended = tuple(sorted(set(before.tolist()) - set(self._filter.ids.tolist())))
        table = self._table(spatial, rows, ids, measured)
        return ObjectTable(table, axes, ended, is_first, to_target)

    # --- measuring

    def _measure(
        self,
        spatial: SpatialFrame,
        seen: NDArray[np.void],
        camera: CameraModel,
        to_target: NDArray[np.float64],
    ) -> _Measured:
        """By depth, else by the cloud, else by the ground."""
        count = len(seen)
        measured = _Measured(
            np.zeros(count, np.int64),
            np.zeros(count, np.int64),
            *(np.full(shape, np.nan) for shape in (count, count)),
            *(np.zeros((count, 3)) for _ in range(4)),
        )
        if not count:
            return measured
        regions = RegionMap.of(spatial.frame.label_map, seen["label"].astype(np.int64))
        reach, axes = spatial.reach, to_target[:3, :3]
        if spatial.depth is not None:
            samples = samples_of_depth(regions, spatial.depth, spatial.depth_rays, reach)
            _take_surfaces(measured, find_surfaces(samples, count, axes), RangeSource.DEPTH, axes)
        unknown = (measured.source == RangeSource.NONE).any()
        for source, points in spatial.clouds if unknown else ():
            samples = samples_of_cloud(regions, points, *camera.project(points))
            _take_surfaces(measured, find_surfaces(samples, count, axes), source, axes)
        plane = spatial.ground
        if plane is not None and (measured.source == RangeSource.NONE).any():
            standing = find_standing(regions, plane, camera, seen["box"], reach[1])
            _take_standing(measured, standing, axes)
        return measured

    def _track(
        self,
        spatial: SpatialFrame,
        rows: NDArray[np.void],
        seen: NDArray[np.void],
        measured: _Measured,
    ) -> None:
        """Filter the anchors of the tracks `seen`; `rows` are all tracks."""
        ids, origin = seen["track_id"].astype(np.int64), spatial.to_target[:3, 3]
        valid = measured.source != RangeSource.NONE
        anchors = measured.anchor[valid]
        outdated = spatial.stamp - MAX_PREDICTED_NS
        lost = {track for track, box in self._boxes.items() if box.stamp < outdated}
        # of what is cut off at the side the nearest corner is out of the image
        left, width = seen["box"][valid, 0], seen["box"][valid, 2]
        cut = (left == 0) | (left + width == spatial.frame.label_map.size[1])
        covariances = _covariances(anchors, measured.sigma[valid], spatial.cell_angle)
        covariances[cut] += CUT_SIGMA**2 * np.eye(3)
        fits = self._filter.step(
            spatial.stamp,
            [track for track in rows["track_id"].tolist() if track not in lost],
            ids[valid],
            anchors + origin,
            covariances,
        )
        filtered = dict(zip(self._filter.ids.tolist(), self._filter.estimates()[0], strict=True))
        for row in np.flatnonzero(valid)[cut]:
            place = measured.anchor[row] + measured.offset[row] + origin
            measured.offset[row] = place - filtered[int(ids[row])]
        measured.source[np.flatnonzero(valid)[~fits]] = RangeSource.NONE
        living = set(self._filter.ids.tolist())
        self._boxes = {track: box for track, box in self._boxes.items() if track in living}
        for row in np.flatnonzero(valid)[fits]:  # else the track keeps the box that it had
            self._boxes[int(ids[row])] = _Box(
                measured.offset[row],
                measured.box_center[row],
                measured.size[row],
                float(measured.floor[row]),
                spatial.stamp,
            )

    def _table(
        self,
        spatial: SpatialFrame,
        rows: NDArray[np.void],
        ids: NDArray[np.int64],
        measured: _Measured,
    ) -> NDArray[np.void]:
        """One row for each track of the filter."""
        position, covariance, velocity, spread = self._filter.estimates()
        order = np.argsort(self._filter.ids)
        table = np.zeros(len(order), OBJECT_DTYPE)
        table["track_id"] = self._filter.ids[order]
        row_of = {int(track): row for row, track in enumerate(rows["track_id"])}
        facts = rows[[row_of[track] for track in table["track_id"].tolist()]]
        for name in ("class_id", "state", "score"):
            table[name] = facts[name]
        boxes = [self._boxes[track] for track in table["track_id"].tolist()]
        offsets = np.array([box.offset for box in boxes]).reshape(-1, 3)
        table["position"], table["velocity"] = position[order] + offsets, velocity[order]
        sight = table["position"] - spatial.to_target[:3, 3]
        table["range"] = np.linalg.norm(sight, axis=1)
        floors = np.array([box.floor for box in boxes])
        table["position_covariance"] = covariance[order] + _covariances(
            sight, floors, spatial.cell_angle
        )
        table["velocity_covariance"] = spread[order]
        centers = np.array([box.center for box in boxes]).reshape(-1, 3)
        table["box_center"] = table["position"] + centers
        table["size"] = np.array([box.size for box in boxes]).reshape(-1, 3)
        measured_row = {int(track): row for row, track in enumerate(ids)}
        here = np.array([measured_row.get(t, -1) for t in table["track_id"].tolist()], np.int64)
        known = here >= 0
        table["source"][known] = measured.source[here[known]]
        table["points"][known] = measured.points[here[known]]
        return table


def _take_surfaces(
    measured: _Measured, found: Surfaces, source: RangeSource, axes: NDArray[np.float64]
) -> None:
    """Fill in the tracks that have no range yet."""
    rows = (measured.source == RangeSource.NONE) & (found.points > 0)
    position = found.position[rows] @ axes.T
    distance = np.linalg.norm(position, axis=1)
    measured.source[rows], measured.points[rows] = source, found.points[rows]
    measured.anchor[rows] = found.anchor[rows]
    measured.offset[rows] = position - found.anchor[rows]
    independent = np.minimum(found.points[rows], INDEPENDENT)
    sigma = np.hypot(RANGE_SIGMA, RANGE_SIGMA_OF_RANGE * distance)
    sigma = np.hypot(sigma, NOISE_FACTOR * found.noise[rows] / np.sqrt(independent))
    measured.sigma[rows] = np.hypot(sigma, ANCHOR_SPREAD * found.spread[rows])
    measured.floor[rows] = np.hypot(sigma, POSITION_SPREAD * found.spread[rows])
    measured.box_center[rows] = (found.low[rows] + found.high[rows]) / 2 - position
    measured.size[rows] = found.high[rows] - found.low[rows]


def _take_standing(measured: _Measured, found: Standing, axes: NDArray[np.float64]) -> None:
    rows = (measured.source == RangeSource.NONE) & np.isfinite(found.sigma)
    measured.source[rows] = RangeSource.GROUND
    measured.anchor[rows] = found.position[rows] @ axes.T
    measured.sigma[rows] = found.sigma[rows]
    measured.floor[rows] = np.hypot(found.sigma[rows], GROUND_SIGMA)
    wide, high = found.size[rows].T
    # of the box only what is across the line of sight is known; turned as the axes are
    measured.size[rows] = np.abs(axes[:, 0]) * wide[:, None] + np.abs(axes[:, 1]) * high[:, None]


def _covariances(
    sight: NDArray[np.float64], sigma: NDArray[np.float64], cell: float
) -> NDArray[np.float64]:
    """[N, 3, 3] of standard deviations along lines of sight [N, 3], and `cell` radians across."""
    distance = np.linalg.norm(sight, axis=1)
    direction = sight / np.maximum(distance, 1e-6)[:, None]
    along = direction[:, :, None] * direction[:, None, :]
    across = np.maximum(SIDE_CELLS * cell * distance, MIN_SIDE_SIGMA) ** 2
    return (sigma**2)[:, None, None] * along + across[:, None, None] * (np.eye(3) - along)
