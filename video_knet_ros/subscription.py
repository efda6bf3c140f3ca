"""The image subscription, which follows what the cameras on its topic offer."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from rclpy.event_handler import QoSRequestedIncompatibleQoSInfo, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CompressedImage, Image

from . import qos
from .reasons import Finding, Reason

AnyImage: TypeAlias = Image | CompressedImage


class Transport(NamedTuple):
    """How images come: `compressed` is the value of the parameter that selects it."""

    kind: type
    topic: str
    type_name: str
    compressed: bool

    @property
    def other(self) -> Transport:
        """The one that is not selected."""
        return RAW if self.compressed else COMPRESSED


RAW = Transport(Image, "~/image", "sensor_msgs/msg/Image", False)
COMPRESSED = Transport(
    CompressedImage, "~/image/compressed", "sensor_msgs/msg/CompressedImage", True
)


class ImageSubscription:
    """At most one subscription, created again when its quality of service has to change."""

    def __init__(self, node: Node, callback: Callable[[Any], None]) -> None:
        self._node = node
        self._callback = callback
        self._subscription: Subscription | None = None
        self._profile: QoSProfile | None = None
        self._automatic = False
        self._incompatible_policy = ""
        self.publishers: tuple[str, ...] = ()
        """Full names of the nodes that publish images on the topic, one for each publisher."""
        self.obstacle: Finding | None = None
        """Why images of a publisher cannot come; None if all can."""

    def follow(self, transport: Transport, reliability: str) -> None:
        """Be subscribed as "auto", "reliable" or "best_effort"; cheap when nothing has changed."""
        self._automatic = reliability == "auto"
        found = self._node.get_publishers_info_by_topic(transport.topic)
        images = [p for p in found if p.topic_type == transport.type_name]
        offered = [publisher.qos_profile.reliability for publisher in images]
        expected = qos.newest_image(qos.reliability_to_request(reliability, offered))
        if expected != self._profile:
            self.drop()
            events = SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible)
            self._subscription = self._node.create_subscription(
                transport.kind, transport.topic, self._callback, expected, event_callbacks=events
            )
            self._profile = expected
        if not images:
            self._incompatible_policy = ""  # whoever offered it has left
        self.publishers = tuple(_full_name(publisher) for publisher in images)
        self._note_obstacle(self._find_obstacle(transport, found, offered))

    def drop(self) -> None:
        """Be subscribed no longer."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._subscription = self._profile = None
        self._incompatible_policy, self.publishers, self.obstacle = "", (), None

    def __bool__(self) -> bool:
        """Whether there is a subscription."""
        return self._subscription is not None

    def __str__(self) -> str:
        """Topic and reliability; empty without a subscription."""
        if self._subscription is None or self._profile is None:
            return ""
        return f"{self._subscription.topic_name} ({self._profile.reliability.name.lower()})"

    def _find_obstacle(
        self,
        transport: Transport,
        found: list[TopicEndpointInfo],
        offered: list[ReliabilityPolicy],
    ) -> Finding | None:
        """Why images cannot come from the publishers `found`; `offered` are those of images."""
        assert self._profile is not None
        requested = self._profile.reliability
        best_effort = ReliabilityPolicy.BEST_EFFORT
        if requested == ReliabilityPolicy.RELIABLE and best_effort in offered:
            why = "a publisher offers best_effort only; set the parameter reliability to auto"
            return Finding(Reason.QOS_INCOMPATIBLE, why)
        if self._incompatible_policy:
            why = f"a publisher offers another {self._incompatible_policy} than is requested"
            return Finding(Reason.QOS_INCOMPATIBLE, why)
        wrong = [publisher for publisher in found if publisher.topic_type != transport.type_name]
        if wrong:
            return Finding(Reason.WRONG_TYPE, _wrong_type(transport, wrong[0]))
        if not found:
            return self._images_of_other_transport(transport.other)
        return None

    def _images_of_other_transport(self, other: Transport) -> Finding | None:
        """That images come by the transport that is not selected, if they do."""
        publishers = self._node.get_publishers_info_by_topic(other.topic)
        if not any(publisher.topic_type == other.type_name for publisher in publishers):
            return None
        topic = self._node.resolve_topic_name(other.topic)
        value = str(other.compressed).lower()
        why = f"images are published on {topic}; set the parameter compressed to {value}"
        return Finding(Reason.WRONG_TRANSPORT, why)

    def _note_obstacle(self, obstacle: Finding | None) -> None:
        """Keep it, and log it when it is a new one."""
        if obstacle is not None and obstacle != self.obstacle:
            self._node.get_logger().warning(
                f"no images can come on {self}: {obstacle.message}", throttle_duration_sec=10.0
            )
        self.obstacle = obstacle

    def _on_incompatible(self, event: QoSRequestedIncompatibleQoSInfo) -> None:
        """Keep the policy, for the graph does not show all of them; `follow` reports it."""
        if event.last_policy_kind != QoSPolicyKind.RELIABILITY:  # that one the graph does show
            self._incompatible_policy = qos_policy_name_from_kind(event.last_policy_kind).lower()


def _full_name(publisher: TopicEndpointInfo) -> str:
    return f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"


def _wrong_type(transport: Transport, publisher: TopicEndpointInfo) -> str:
    why = (
        f"{_full_name(publisher)} publishes {publisher.topic_type}, expected {transport.type_name}"
    )
    if publisher.topic_type == transport.other.type_name:
        value = str(transport.other.compressed).lower()
        return f"{why}; set the parameter compressed to {value} and remap {transport.other.topic}"
    return why


class RateLimit:
    """Lets through at most so many images per second, evenly: not the first ones of each second."""

    SLACK = 0.1
    """Share of a period by which an image may be early, for cameras are not exact."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rate: float | None = None
        self._due: float | None = None

    def restart(self) -> None:
        """Begin a new schedule with the next image."""
        self._due = None

    def admits(self, rate: float) -> bool:
        """Whether the image that came now is taken at `rate` per second; 0 = all are.

        Another rate than the last one's begins a new schedule.
        """
        if rate != self._rate:
            self._rate, self._due = rate, None
        if rate <= 0:
            return True
        now, period = self._clock(), 1.0 / rate
        due = now if self._due is None else self._due
        if now < due - self.SLACK * period:
            return False
        # from the schedule, not from now, or each image that is late would slow the rate
        self._due = period + (due if now - due < period else now)
        return True


@dataclass(eq=False)
class _Camera:
    """What is known of the images of one camera."""

    kind: Hashable
    """`frame_id`, and size as far as the message has it."""
    stamp: int
    seen: float
    """When the last one came."""

    def continues(self, kind: Hashable, stamp: int) -> bool:
        """Whether an image may be the next one: the tracker would be reset by another stamp."""
        return kind == self.kind and -0.5e9 <= stamp - self.stamp <= 5e9


class OneCamera:
    """Lets through the images of one camera when those of several come on one topic in turn.

    The images of a camera have `frame_id` and size in common, and stamps that follow each other. A
    camera may change all of them, and change back; but when images of two come in turn, those of
    one are dropped, or ids would be lost with each image.
    """

    HOLD_S = 2.0
    """Seconds without images after which a camera is taken to have left."""
    MAX_CHANGES = 2
    """Changes of camera within `HOLD_S` that are followed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._current: _Camera | None = None
        self._cameras: list[_Camera] = []
        self._changes: deque[float] = deque(maxlen=self.MAX_CHANGES)

    def admits(self, message: AnyImage, stamp: int) -> bool:
        """Whether an image that came now is taken; `stamp` in nanoseconds."""
        now = self._clock()
        self._cameras = [c for c in self._cameras if now - c.seen <= self.HOLD_S]
        camera, returns = self._camera_of(message, stamp), True
        if camera is None:
            camera, returns = _Camera(_kind(message), stamp, now), False
            self._cameras.append(camera)
        camera.stamp, camera.seen = max(camera.stamp, stamp), now
        if self._current in (None, camera):
            self._current = camera
            return True
        in_turn = len(self._changes) == self.MAX_CHANGES and now - self._changes[0] <= self.HOLD_S
        self._changes.append(now)
        if in_turn and returns and self._current in self._cameras:
            return False
        self._current = camera
        return True

    def _camera_of(self, message: AnyImage, stamp: int) -> _Camera | None:
        """The camera whose last image is the nearest of those that this one may follow."""
        kind = _kind(message)
        fitting = [camera for camera in self._cameras if camera.continues(kind, stamp)]
        return min(fitting, key=lambda camera: abs(stamp - camera.stamp), default=None)


def _kind(message: AnyImage) -> Hashable:
    size = (message.height, message.width) if isinstance(message, Image) else ()
    return message.header.frame_id, *size
