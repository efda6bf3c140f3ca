"""The subscriptions that the outputs in metres need, while one of those has subscribers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.subscription import Subscription

from video_knet_core.spatial.inputs import SpatialInputs

from .outputs import LATCHED, find_type, has_type
from .subscription import reliability_of

_TRANSFORMS = "tf2_msgs/msg/TFMessage"
_STATIC = QoSProfile(depth=100, reliability=LATCHED.reliability, durability=LATCHED.durability)


class _Input(NamedTuple):
    """A topic, the type of its messages, and what takes them."""

    topic: str
    kind: str
    take: Callable[[SpatialInputs, Any], None]
    profile: QoSProfile | None = None
    """None = as reliable as its publishers."""
    unless: str = ""
    """A topic in whose place it is used: not if that has publishers."""


_INPUTS = (
    _Input("~/camera_info", "sensor_msgs/msg/CameraInfo", SpatialInputs.add_camera_info),
    _Input("~/depth", "sensor_msgs/msg/Image", SpatialInputs.add_depth),
    _Input(
        "~/depth/compressed",
        "sensor_msgs/msg/CompressedImage",
        SpatialInputs.add_depth,
        unless="~/depth",  # which costs the camera no encoding
    ),
    _Input("~/depth/camera_info", "sensor_msgs/msg/CameraInfo", SpatialInputs.add_depth_info),
    _Input("~/cloud", "sensor_msgs/msg/PointCloud2", SpatialInputs.add_cloud),
    _Input("~/odometry", "nav_msgs/msg/Odometry", SpatialInputs.add_odometry),
    _Input("/tf", _TRANSFORMS, SpatialInputs.add_transforms, QoSProfile(depth=100)),
    _Input("/tf_static", _TRANSFORMS, partial(SpatialInputs.add_transforms, static=True), _STATIC),
)
"""Of messages whose package is not installed, such as tf2_msgs, there is no subscription."""
_DEPTH = 5


class SpatialSubscriptions:
    """All of them or none; each is created again when its quality of service has to change."""

    def __init__(self, node: Node, on_input: Callable[[], None]) -> None:
        """`on_input` is called after each message that was taken."""
        self._node = node
        self._on_input = on_input
        self._found: dict[str, tuple[Subscription, QoSProfile]] = {}

    def follow(self, inputs: SpatialInputs) -> None:
        """Fill `inputs`; cheap when nothing has changed."""
        for row in _INPUTS:
            if not has_type(row.kind):
                continue
            if row.unless and self._node.get_publishers_info_by_topic(row.unless):
                self._drop(row.topic)
                continue
            profile = row.profile or self._profile(row)
            if row.topic in self._found and self._found[row.topic][1] == profile:
                continue
            self._drop(row.topic)
            subscription = self._node.create_subscription(
                find_type(row.kind), row.topic, partial(self._take, row, inputs), profile
            )
            self._found[row.topic] = subscription, profile

    def _take(self, row: _Input, inputs: SpatialInputs, message: Any) -> None:
        row.take(inputs, message)
        self._on_input()

    def drop(self) -> None:
        """Be subscribed no longer."""
        for topic in list(self._found):
            self._drop(topic)

    def __bool__(self) -> bool:
        """Whether there are subscriptions."""
        return bool(self._found)

    def _drop(self, topic: str) -> None:
        if found := self._found.pop(topic, None):
            self._node.destroy_subscription(found[0])

    def _profile(self, row: _Input) -> QoSProfile:
        found = self._node.get_publishers_info_by_topic(row.topic)
        offered = [p.qos_profile for p in found if p.topic_type == row.kind]
        latched = bool(offered) and all(p.durability == LATCHED.durability for p in offered)
        return QoSProfile(
            depth=_DEPTH,
            reliability=reliability_of("auto", [p.reliability for p in offered]),
            # a camera info may be sent once
            durability=LATCHED.durability if latched else DurabilityPolicy.VOLATILE,
        )
