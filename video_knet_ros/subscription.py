"""The image subscription, which follows what the cameras on its topic offer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.event_handler import QoSRequestedIncompatibleQoSInfo, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile, qos_policy_name_from_kind
from rclpy.subscription import Subscription

from . import qos


class ImageSubscription:
    """At most one subscription, made anew when its quality of service has to change."""

    def __init__(self, node: Node, callback: Callable[[Any], None]) -> None:
        self._node = node
        self._callback = callback
        self._subscription: Subscription | None = None
        self._profile: QoSProfile | None = None
        self._follows = False
        self.incompatible = ""
        """Why images of a publisher cannot come, in words; empty if all can."""

    def follow(self, kind: type, topic: str, reliability: str) -> None:
        """Be subscribed as "auto", "reliable" or "best_effort"; cheap when nothing has changed."""
        self._follows = reliability == "auto"
        publishers = self._node.get_publishers_info_by_topic(topic)
        offered = [publisher.qos_profile.reliability for publisher in publishers]
        wanted = qos.newest_image(qos.reliability_to_request(reliability, offered))
        if wanted != self._profile:
            self.drop()
            events = SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible)
            self._subscription = self._node.create_subscription(
                kind, topic, self._callback, wanted, event_callbacks=events
            )
            self._profile = wanted

    def drop(self) -> None:
        """Be subscribed no longer."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._subscription = self._profile = None
        self.incompatible = ""

    def __bool__(self) -> bool:
        """Whether there is a subscription."""
        return self._subscription is not None

    def __str__(self) -> str:
        """Topic and reliability; empty without a subscription."""
        if self._subscription is None or self._profile is None:
            return ""
        return f"{self._subscription.topic_name} ({self._profile.reliability.name.lower()})"

    def _on_incompatible(self, event: QoSRequestedIncompatibleQoSInfo) -> None:
        if self._follows and event.last_policy_kind == QoSPolicyKind.RELIABILITY:
            return  # the next `follow` mends it
        policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
        self.incompatible = f"a publisher offers another {policy} than is asked for"
        if event.last_policy_kind == QoSPolicyKind.RELIABILITY:
            self.incompatible = (
                "a publisher offers best_effort only; set the parameter reliability to auto"
            )
        self._node.get_logger().warning(f"no images can come on {self}: {self.incompatible}")


class RateLimit:
    """Lets through at most so many images per second, evenly: not the first ones of each second."""

    SLACK = 0.1
    """Share of a period by which an image may be early, for cameras are not exact."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = 0.0

    def admits(self, rate: float) -> bool:
        """Whether the image that came now is taken at `rate` per second; 0 = all are."""
        if rate <= 0:
            return True
        now, period = self._clock(), 1.0 / rate
        if now < self._due - self.SLACK * period:
            return False
        # from the schedule, not from now, or each image that is late would slow the rate
        self._due = period + (self._due if now - self._due < period else now)
        return True
