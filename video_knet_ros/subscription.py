"""The image subscription, which follows what the cameras on its topic offer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

from . import qos


class ImageSubscription:
    """At most one subscription, made anew when its quality of service has to change."""

    def __init__(self, node: Node, callback: Callable[[Any], None]) -> None:
        self._node = node
        self._callback = callback
        self._subscription: Subscription | None = None
        self._profile: QoSProfile | None = None

    def follow(self, kind: type, topic: str, reliability: str) -> None:
        """Be subscribed as "auto", "reliable" or "best_effort"; cheap when nothing has changed."""
        publishers = self._node.get_publishers_info_by_topic(topic)
        offered = [publisher.qos_profile.reliability for publisher in publishers]
        wanted = qos.newest_image(qos.reliability_to_request(reliability, offered))
        if wanted != self._profile:
            self.drop()
            self._subscription = self._node.create_subscription(kind, topic, self._callback, wanted)
            self._profile = wanted

    def drop(self) -> None:
        """Be subscribed no longer."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._subscription = self._profile = None

    def __str__(self) -> str:
        """Topic and reliability; empty without a subscription."""
        if self._subscription is None or self._profile is None:
            return ""
        return f"{self._subscription.topic_name} ({self._profile.reliability.name.lower()})"
