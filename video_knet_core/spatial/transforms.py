"""Rigid transforms between named frames over time: what a tf2 buffer does, without ROS.

Lookups follow tf2's BufferCore (ros2/geometry2, tf2/src/buffer_core.cpp and cache.cpp), with three
differences: a stamp of 0 is a time like any other and does not mean the newest, a repeated stamp
replaces, and a transform older than the history clears it instead of being dropped.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

HISTORY = 10_000_000_000
"""Nanoseconds that are kept before the newest transform of a frame, as long as tf2's default."""


class TransformError(ValueError):
    """No transform between these frames at this time; the message has the reason."""

    in_future: bool = False
    """Only because the newest transform is older: it may come still."""


def matrix(translation: ArrayLike, quaternion: ArrayLike) -> NDArray[np.float64]:
    """[4, 4] of a translation [3] and a quaternion [4] x, y, z, w of any length but zero."""
    x, y, z, w = np.asarray(quaternion, np.float64)
    s = 2 / (x * x + y * y + z * z + w * w)
    result = np.eye(4)
    result[:3, :3] = (
        (1 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y)),
        (s * (x * y + w * z), 1 - s * (x * x + z * z), s * (y * z - w * x)),
        (s * (x * z - w * y), s * (y * z + w * x), 1 - s * (x * x + y * y)),
    )
    result[:3, 3] = translation
    return result


def quaternion_of(rotation: ArrayLike) -> NDArray[np.float64]:
    """[4] x, y, z, w of a rotation [3, 3]: of unit length, and w is not negative."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = np.asarray(rotation, np.float64)
    outer = np.array(  # four times the products of the quaternion's components
        [
            (1 + xx - yy - zz, xy + yx, xz + zx, zy - yz),
            (xy + yx, 1 - xx + yy - zz, yz + zy, xz - zx),
            (xz + zx, yz + zy, 1 - xx - yy + zz, yx - xy),
            (zy - yz, xz - zx, yx - xy, 1 + xx + yy + zz),
        ]
    )
    row = outer[outer.diagonal().argmax()]  # the others may be nearly zero
    return row / math.copysign(np.linalg.norm(row), row[3])


class TransformBuffer:
    """The recent transforms of a tree of frames; can be used from several threads."""

    def __init__(self) -> None:
        self.last_fault = ""
        """Why the last faulty transform of a message was ignored."""
        self._lock = threading.Lock()
        self._histories: dict[str, _History] = {}  # by child
        self._names: set[str] = set()

    def add(
        self,
        parent: str,
        child: str,
        stamp: int,
        translation: ArrayLike,
        quaternion: ArrayLike,
        static: bool = False,
    ) -> None:
        """Add the pose of `child` in `parent` at `stamp` (ns), or at all times if it is `static`.

        `translation` is [3] in metres, `quaternion` [4] x, y, z, w. Transforms of a child may come
        out of order; one older than its history is taken as a jump back of time, as of a looped
        bag, and replaces the history. Raises ValueError for what is not a transform.
        """
        parent, child = _frame(parent), _frame(child)
        if not parent or not child or parent == child:
            raise ValueError(f"expected two different frames, got {parent!r} and {child!r}")
        sample = _Sample(parent, _finite("translation", translation, 3), _unit(quaternion))
        with self._lock:
            self._names.update((parent, child))
            history = self._histories.get(child)
            if history is None or history.static != static:
                history = self._histories[child] = _History(child, static)
            history.insert(stamp, sample)

    def add_message(self, message: Any, static: bool) -> int:
        """Add the transforms of a tf2_msgs/TFMessage of rclpy or rosbags.

        Returns the number of faulty ones, which are ignored.
        """
        poses = [(item.header, item.child_frame_id, item.transform) for item in message.transforms]
        return sum(
            self._add_stamped(header, child, pose.translation, pose.rotation, static)
            for header, child, pose in poses
        )

    def add_odometry(self, message: Any) -> int:
        """Add the pose of a nav_msgs/Odometry of rclpy or rosbags: child_frame_id in frame_id.

        Returns the number of faulty ones, which are ignored: 0 or 1.
        """
        child, pose = message.child_frame_id, message.pose.pose
        return int(self._add_stamped(message.header, child, pose.position, pose.orientation))

    def lookup(self, target: str, source: str, stamp: int) -> NDArray[np.float64]:
        """[4, 4] that maps points of `source` into `target` at `stamp` (ns).

        Between two transforms it is interpolated. Raises TransformError if a frame is unknown, the
        two are not connected or form a loop, or the stamp is outside of a frame's history.
        """
        target, source = _frame(target), _frame(source)
        if target == source:
            return np.eye(4)
        try:
            with self._lock:
                return self._connect(target, source, stamp)
        except TransformError as error:
            fault = TransformError(
                f"expected a transform from {source!r} to {target!r} at {_seconds(stamp)}: {error}"
            )
            fault.in_future = error.in_future
            raise fault from None

    def clear(self) -> None:
        """Forget all frames, static ones too."""
        with self._lock:
            self._histories.clear()
            self._names.clear()

    def _add_stamped(
        self, header: Any, child: str, position: Any, rotation: Any, static: bool = False
    ) -> bool:
        """Add a transform of a message; returns whether it is faulty."""
        stamp = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
        translation = position.x, position.y, position.z
        quaternion = rotation.x, rotation.y, rotation.z, rotation.w
        try:
            self.add(header.frame_id, child, stamp, translation, quaternion, static)
        except ValueError as error:
            self.last_fault = f"{child!r} in {header.frame_id!r}: {error}"
            return True
        return False

    def _connect(self, target: str, source: str, stamp: int) -> NDArray[np.float64]:
        for frame in (target, source):
            if frame not in self._names:
                raise TransformError(f"frame {frame!r} is unknown")
        from_source, source_fault = self._ascend(source, stamp, {target})
        from_target, target_fault = self._ascend(target, stamp, from_source)
        top = next(reversed(from_target))
        if top in from_source:  # a fault above it does not matter
            pose = np.linalg.solve(from_target[top], from_source[top])
            return pose.astype(np.float64, copy=False)
        roots = f"{next(reversed(from_source))!r} and {top!r}"
        unconnected = TransformError(f"two trees that are not connected, with the roots {roots}")
        raise target_fault or source_fault or unconnected

    def _ascend(
        self, frame: str, stamp: int, ends: Container[str]
    ) -> tuple[dict[str, NDArray[np.float64]], TransformError | None]:
        """From a frame to each of its ancestors [4, 4], up to the first of `ends` or a root.

        Returns the reason too, if an ancestor's transform at that time is missing.
        """
        total = np.eye(4)
        path = {frame: total}
        while frame not in ends and frame in self._histories:
            try:
                sample = self._histories[frame].at(stamp)
            except TransformError as error:
                return path, error
            total = matrix(sample.translation, sample.quaternion) @ total
            frame = sample.parent
            if frame in path:
                raise TransformError(f"the frames form a loop: {' -> '.join([*path, frame])}")
            path[frame] = total
        return path, None


class _Sample(NamedTuple):
    """The pose of a frame in its parent."""

    parent: str
    translation: NDArray[np.float64]
    quaternion: NDArray[np.float64]


@dataclass
class _History:
    """The transforms of one frame, oldest first; of a static one only the last."""

    child: str
    static: bool
    stamps: list[int] = field(default_factory=list)
    samples: list[_Sample] = field(default_factory=list)

    def insert(self, stamp: int, sample: _Sample) -> None:
        if self.stamps:
            start = self.stamps[-1] - HISTORY
            # before the insertion: of a frame that is rarely sent, two stay to interpolate between
            expired = bisect_left(self.stamps, start)
            if self.static or stamp < start:
                expired = len(self.stamps)
            del self.stamps[:expired]
            del self.samples[:expired]
        place = bisect_left(self.stamps, stamp)
        after = place + (self.stamps[place : place + 1] == [stamp])
        self.stamps[place:after] = [stamp]
        self.samples[place:after] = [sample]

    def at(self, stamp: int) -> _Sample:
        """The sample at a time; raises TransformError."""
        if self.static:
            return self.samples[0]
        place = bisect_left(self.stamps, stamp)
        if self.stamps[place : place + 1] == [stamp]:
            return self.samples[place]
        if place in (0, len(self.stamps)):
            fault = TransformError(self._missing(stamp))
            fault.in_future = stamp > self.stamps[-1]
            raise fault
        older, newer = self.samples[place - 1 : place + 1]
        if older.parent != newer.parent:
            return older
        start, end = self.stamps[place - 1 : place + 1]
        return _interpolate(older, newer, (stamp - start) / (end - start))

    def _missing(self, stamp: int) -> str:
        oldest, newest = self.stamps[0], self.stamps[-1]
        late = stamp > newest
        limit = newest if late else oldest
        which = "only" if oldest == newest else "newest" if late else "oldest"
        return (
            f"{self.child!r} in {self.samples[-1 if late else 0].parent!r} would be extrapolated "
            f"{abs(stamp - limit) / 1e6:.3f} ms into the {'future' if late else 'past'}, "
            f"its {which} stamp is {_seconds(limit)}"
        )


def _interpolate(older: _Sample, newer: _Sample, ratio: float) -> _Sample:
    """Linear in the translation, along the shortest arc in the rotation (slerp)."""
    translation = (1 - ratio) * older.translation + ratio * newer.translation
    start, end = older.quaternion, newer.quaternion
    if start @ end < 0:
        end = -end
    # exact for small angles too, where the arc cosine of the product is not
    angle = 2 * math.atan2(np.linalg.norm(end - start), np.linalg.norm(end + start))
    weights = math.sin((1 - ratio) * angle), math.sin(ratio * angle)
    quaternion = weights[0] * start + weights[1] * end if angle else start
    return _Sample(older.parent, translation, quaternion)


def _frame(name: str) -> str:
    """Without the leading slash of ROS 1."""
    return name.lstrip("/")


def _finite(name: str, values: ArrayLike, size: int) -> NDArray[np.float64]:
    """A copy of `size` finite numbers."""
    array = np.array(values, np.float64)
    if array.shape != (size,) or not np.isfinite(array).all():
        raise ValueError(f"expected {name} of {size} finite numbers, got {values!r}")
    return array


def _unit(values: ArrayLike) -> NDArray[np.float64]:
    """A quaternion at unit length."""
    quaternion = _finite("quaternion", values, 4)
    length = math.hypot(*quaternion)
    if not 1e-6 < length < math.inf:
        raise ValueError(f"expected a quaternion of finite length above zero, got {values!r}")
    return quaternion / length


def _seconds(stamp: int) -> str:
    return f"{stamp / 1e9:.3f} s"
