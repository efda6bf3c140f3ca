"""Quality of service: what the node asks of cameras and offers to its readers."""

from __future__ import annotations

from collections.abc import Sequence

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

OUTPUT = QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE)
"""Per-frame outputs: reliable matches every reader; shallow, because old results are worthless."""

LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""Whoever comes late still gets the last message."""


def newest_image(reliability: ReliabilityPolicy) -> QoSProfile:
    """Profile of an image subscription: only the newest image is kept."""
    return QoSProfile(depth=1, reliability=reliability, durability=DurabilityPolicy.VOLATILE)


def reliability_to_request(setting: str, offered: Sequence[ReliabilityPolicy]) -> ReliabilityPolicy:
    """Reliability of the image subscription.

    A reliable subscription never hears a best-effort publisher; a best-effort one hears every
    publisher but loses large images. So "auto" asks for what all publishers offer.

    Args:
        setting: "auto", "reliable" or "best_effort".
        offered: what the publishers on the topic offer at present.
    """
    if setting != "auto":
        return ReliabilityPolicy[setting.upper()]
    if offered and all(policy == ReliabilityPolicy.RELIABLE for policy in offered):
        return ReliabilityPolicy.RELIABLE
    return ReliabilityPolicy.BEST_EFFORT
