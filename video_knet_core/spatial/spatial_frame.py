"""What is known of a frame in space."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..types import ClassTable, PanopticFrame
from .camera_model import CameraModel, SpatialError
from .ground_range import GroundPlane
from .inputs import SpatialInputs, same_aspect
from .objects import ObjectTable, RangeSource
from .points import LabelledPoints, point_size, points_of_cloud, points_of_depth, stride_of
from .settings import SpatialSettings, class_ids
from .transforms import TransformError


class SpatialFrame:
    """A frame in space. What costs time is made on first access, in the inference thread."""

    def __init__(
        self,
        inputs: SpatialInputs,
        settings: SpatialSettings,
        find_objects: Callable[[SpatialFrame], ObjectTable | None],
        classes: ClassTable,
        frame: PanopticFrame,
        image: NDArray[np.uint8],
        frame_id: str,
        stamp: int,
        followed: int,
    ) -> None:
        self._inputs, self.settings = inputs, settings
        self._find_objects, self._classes = find_objects, classes
        self.frame, self._image, self.frame_id, self.stamp = frame, image, frame_id, stamp
        self.followed = followed
        """Track id of the object to follow; 0 = none."""

    @cached_property
    def objects(self) -> ObjectTable | None:
        """The tracks with a place; None if they cannot be expressed in the target frame now."""
        return self._find_objects(self)

    @property
    def is_waiting(self) -> bool:
        """Whether depth of this image, or a transform at its time, is likely to come still."""
        for frame in filter(None, (self.target_frame, self.settings.ground_frame)):
            try:
                self._inputs.transforms.lookup(frame, self.frame_id, self.stamp)
            except TransformError as error:
                if error.in_future:
                    return True
        return self._inputs.is_coming(self.stamp, self.settings)

    @property
    def semantic_size(self) -> tuple[int, int] | None:
        """Height and width of the class image, where it is not that of the image."""
        if self.settings.semantic_size == "image":
            return None
        if (size := self._inputs.depth_size) is None:
            return self._inputs.cloud_size
        if not self._is_aligned(size, frame_id := self._inputs.depth_frame):
            height, width = size
            self._inputs.note(
                "class image",
                f"expected depth aligned to the image of {self.frame_id!r}, "
                f"got depth {width} x {height} of {frame_id!r}",
            )
            return None
        return point_size(size, self.settings.point_stride)

    def _is_aligned(self, size: tuple[int, int], frame_id: str) -> bool:
        """Whether a depth image of this size (H, W) and frame has the pixels of the image."""
        same_frame = frame_id.lstrip("/") == self.frame_id.lstrip("/")
        return same_frame and same_aspect(size, self.frame.label_map.size)

    @cached_property
    def camera_info(self) -> Any:
        """The newest CameraInfo message; None if none has come."""
        if self._inputs.camera_info is None:
            self._inputs.note("camera info", "none has come")
        return self._inputs.camera_info

    @cached_property
    def camera(self) -> CameraModel:
        """The camera of the image; SpatialError without one, or of another frame."""
        camera = self._inputs.camera(self.settings, self.frame.label_map.size)
        frames = [name.lstrip("/") for name in (self.frame_id, camera.frame_id)]
        if all(frames) and frames[0] != frames[1]:
            raise SpatialError(
                f"camera info: expected the frame of the image, {frames[0]!r}, got {frames[1]!r}"
            )
        return camera

    @property
    def cell_angle(self) -> float:
        """Radians that a cell of the label map is wide, in the middle of the image."""
        columns = self.frame.label_map.size[1] / self.frame.label_map.small.shape[1]
        return columns / float(self.camera.k[0, 0])

    @property
    def target_frame(self) -> str:
        """Without the leading slash of ROS 1, which tf2 rejects; empty = that of the camera."""
        return self.settings.target_frame.lstrip("/")

    @cached_property
    def to_target(self) -> NDArray[np.float64]:
        """[4, 4] from the camera to the target frame; TransformError if it is unknown."""
        if not self.target_frame:
            return np.eye(4)
        return self._inputs.transforms.lookup(self.target_frame, self.frame_id, self.stamp)

    @cached_property
    def _depth(self) -> tuple[NDArray[np.float32], str] | None:
        return self._inputs.depth(self.stamp, self.settings)

    @property
    def depth(self) -> NDArray[np.float32] | None:
        """[H, W] metres of the pixels of the image, at a size of its own; None without."""
        return self._aligned[0] if self._aligned else None

    @property
    def depth_rays(self) -> NDArray[np.float32]:
        """[H, W, 2] of the pixels of `depth`."""
        assert self._aligned is not None
        return self._aligned[1]

    @cached_property
    def _aligned(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        if self._depth is None:
            return None
        (depth, frame_id), size = self._depth, (self._depth[0].shape[0], self._depth[0].shape[1])
        if not self._is_aligned(size, frame_id):
            return None
        try:
            return depth, self._inputs.camera(self.settings, size).rays()
        except SpatialError as error:
            self._inputs.note("depth", str(error))
            return None

    @cached_property
    def clouds(self) -> list[tuple[RangeSource, NDArray[np.float32]]]:
        """Points [N, 3] in the frame of the camera: of a depth image that is not aligned, and of
        the point cloud."""
        found = []
        if self._depth is not None and self._aligned is None:
            points = self._placed("depth", self._unaligned_points, self._depth[1], self.stamp)
            if points is not None:
                found.append((RangeSource.DEPTH, points))
        if (found_cloud := self._inputs.cloud(self.stamp, self.settings)) is not None:
            cloud, stamp = found_cloud
            points = self._placed("cloud", lambda: cloud.points, cloud.frame_id, stamp)
            if points is not None:
                found.append((RangeSource.CLOUD, points))
        return found

    @property
    def has_ranges(self) -> bool:
        """Whether there is a source of ranges."""
        return self.depth is not None or bool(self.clouds) or self.ground is not None

    def note_no_source(self, name: str, expected: str) -> None:
        """Record what is missing, unless an input has a reason of its own."""
        if not {"depth", "cloud", "ground"} & self._inputs.reasons.keys():
            self._inputs.note(name, f"{expected}, got none")

    def _unaligned_points(self) -> NDArray[np.float32]:
        """Points of a depth image of another camera, by its own camera info."""
        assert self._depth is not None
        depth, frame_id = self._depth
        try:
            size = (depth.shape[0], depth.shape[1])
            camera = self._inputs.camera(self.settings, size, "depth camera info")
        except SpatialError as error:
            raise SpatialError(
                f"expected depth aligned to the image of {self.frame_id!r}, or the camera info of "
                f"the depth camera, got depth {depth.shape[1]} x {depth.shape[0]} of "
                f"{frame_id!r}: {error}"
            ) from None
        stride = stride_of(depth.shape, self.settings.point_stride)
        rays = camera.rays()[::stride, ::stride]
        z = depth[::stride, ::stride, None]
        return np.concatenate([rays * z, z], axis=2).reshape(-1, 3)

    def _placed(
        self, name: str, points: Callable[[], NDArray[np.float32]], frame_id: str, stamp: int
    ) -> NDArray[np.float32] | None:
        """Points of `stamp` in the frame of the camera that are within the limits of range."""
        try:
            transform = self._from_frame(frame_id, stamp)
            found = points()
        except (SpatialError, TransformError) as error:
            self._inputs.note(name, str(error))
            return None
        found = found[np.isfinite(found[:, 0])]
        if not np.array_equal(transform, np.eye(4)):
            rotation, offset = transform[:3, :3].astype(np.float32), transform[:3, 3]
            found = np.asarray(found @ rotation.T + offset.astype(np.float32), np.float32)
        distance = np.linalg.norm(found, axis=1)
        return found[(distance >= self.reach[0]) & (distance <= self.reach[1])]

    def _from_frame(self, frame_id: str, stamp: int) -> NDArray[np.float64]:
        """[4, 4] to the camera at the time of the image from a frame at another time.

        The motion between is that in the target frame, if it is known: that is a fixed one.
        """
        lookup, target = self._inputs.transforms.lookup, self.target_frame
        if target and stamp != self.stamp:
            with suppress(TransformError):
                then = lookup(target, frame_id, stamp)
                return np.asarray(np.linalg.solve(self.to_target, then), np.float64)
        return lookup(self.frame_id, frame_id, self.stamp)

    @cached_property
    def ground(self) -> GroundPlane | None:
        """The ground plane; None if it is unknown."""
        settings = self.settings
        if settings.ground_frame:
            try:
                transform = self._inputs.transforms.lookup(
                    settings.ground_frame, self.frame_id, self.stamp
                )
            except TransformError as error:
                self._inputs.note("ground", str(error))
                return None
            plane = GroundPlane.of_transform(transform)
            height = f"the camera is {transform[2, 3]:.2f} m above {settings.ground_frame}"
            self._inputs.note("ground", "" if plane else f"expected a height above 0, {height}")
            return plane
        if settings.camera_height_m > 0:
            return GroundPlane.of_mount(settings.camera_height_m, settings.camera_pitch_deg)
        return None

    @cached_property
    def points(self) -> LabelledPoints | None:
        """Points of the depth image, else of the cloud, with class and track; None without any.

        No points would say that nothing is there, while nothing was measured.
        """
        try:
            found = self._labelled_points(self.camera)
        except SpatialError as error:
            self._inputs.note("points", str(error))
            return None
        if found is None:
            self.note_no_source("points", "expected depth or a cloud")
        elif not np.isfinite(found.xyz).any():
            near, far = self.reach
            self._inputs.note("points", f"expected points at {near:g} to {far:g} m, got none")
            return None
        return found

    def _labelled_points(self, camera: CameraModel) -> LabelledPoints | None:
        if self._aligned is not None:
            depth, rays = self._aligned
            stride = stride_of(depth.shape, self.settings.point_stride)
            return points_of_depth(self.frame, self._image, depth, rays, stride, self.reach)
        if not self.clouds:
            return None
        return points_of_cloud(self.frame, self._image, self.clouds[0][1], camera)

    @property
    def reach(self) -> tuple[float, float]:
        """Smallest and largest range that count [m]."""
        return self.settings.min_range_m, self.settings.max_range_m

    @cached_property
    def obstacles(self) -> LabelledPoints | None:
        """Points of things, and of all that cannot be driven on, one for each voxel."""
        if self.points is None:
            return None
        return self.points.obstacles(self._ground_classes, self.settings.obstacle_voxel_m)

    @cached_property
    def free_space(self) -> LabelledPoints | None:
        """Points of the ground, one for each voxel."""
        if self.points is None:
            return None
        return self.points.of_classes(self._ground_classes, self.settings.obstacle_voxel_m)

    @cached_property
    def _ground_classes(self) -> list[int]:
        return class_ids(self._classes, self.settings.ground_classes)
