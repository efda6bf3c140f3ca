"""The image subscription, which follows what the cameras on its topic offer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CompressedImage, Image

from .diagnostics import Finding, Reason
from .ros_compat import events

AnyImage: TypeAlias = Image | CompressedImage


class Transport(NamedTuple):
    """How images arrive: `compressed` is the value of the parameter that selects it."""

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
        self._incompatible_policy = ""
        self.publishers: tuple[str, ...] = ()
        """Full names of the nodes that publish images on the topic, one for each publisher."""
        self.obstacle: Finding | None = None
        """Why images of a publisher cannot arrive; None if all can."""

    def follow(self, transport: Transport, reliability: str) -> None:
        """Be subscribed as "auto", "reliable" or "best_effort"; cheap when nothing has changed."""
        found = self._node.get_publishers_info_by_topic(transport.topic)
        images = [p for p in found if p.topic_type == transport.type_name]
        offered = [publisher.qos_profile.reliability for publisher in images]
        # depth 1: only the newest image is kept
        profile = QoSProfile(depth=1, reliability=reliability_of(reliability, offered))
        if profile != self._profile:
            self.drop()
            callbacks = events.SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible)
            self._subscription = self._node.create_subscription(
                transport.kind, transport.topic, self._callback, profile, event_callbacks=callbacks
            )
            self._profile = profile
        if not images:
            self._incompatible_policy = ""  # its publisher has left
        self.publishers = tuple(_full_name(publisher) for publisher in images)
        self.obstacle = self._find_obstacle(transport, found, offered)

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
        """Why images cannot arrive from the publishers `found`; `offered` are those of images."""
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
        other = transport.other
        if found or not any(
            publisher.topic_type == other.type_name
            for publisher in self._node.get_publishers_info_by_topic(other.topic)
        ):
            return None
        topic = self._node.resolve_topic_name(other.topic)
        why = f"images are published on {topic}; {_select(other)}"
        return Finding(Reason.WRONG_TRANSPORT, why)

    def _on_incompatible(self, event: events.QoSRequestedIncompatibleQoSInfo) -> None:
        """Keep the policy, for the graph does not show all of them; `follow` reports it."""
        if event.last_policy_kind != QoSPolicyKind.RELIABILITY:  # that one the graph does show
            self._incompatible_policy = qos_policy_name_from_kind(event.last_policy_kind).lower()


def reliability_of(setting: str, offered: Sequence[ReliabilityPolicy]) -> ReliabilityPolicy:
    """Reliability of the subscription for the parameter `setting` and the publishers' offers.

    A reliable subscription gets nothing from a best-effort publisher; a best-effort one gets images
    from every publisher but loses large ones. So "auto" requests what all publishers offer.
    """
    if setting != "auto":
        return ReliabilityPolicy[setting.upper()]
    if offered and all(policy == ReliabilityPolicy.RELIABLE for policy in offered):
        return ReliabilityPolicy.RELIABLE
    return ReliabilityPolicy.BEST_EFFORT


def _full_name(publisher: TopicEndpointInfo) -> str:
    return f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"


def _select(transport: Transport) -> str:
    return f"set the parameter compressed to {str(transport.compressed).lower()}"


def _wrong_type(transport: Transport, publisher: TopicEndpointInfo) -> str:
    name, kind, other = _full_name(publisher), publisher.topic_type, transport.other
    why = f"{name} publishes {kind}, expected {transport.type_name}"
    return f"{why}; {_select(other)} and remap {other.topic}" if kind == other.type_name else why
