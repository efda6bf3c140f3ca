"""What differs between the ROS 2 distributions, Humble and later; each is found by its feature.

No other module depends on the distribution.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.parameter import Parameter

try:
    import rclpy.event_handler as events
except ImportError:  # Humble
    import rclpy.qos_event as events

HAS_MATCHED_EVENTS = hasattr(events, "QoSPublisherMatchedInfo")
"""Whether a publisher reports its subscribers by events; if not, as in Humble, it counts them."""

LOCALHOST_ONLY = (
    {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    if HAS_MATCHED_EVENTS  # which came in the same distribution
    else {"ROS_LOCALHOST_ONLY": "1"}
)
"""Environment of nodes that are to find no others than those of this machine."""

PROFILES_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""Either names the profiles of Fast DDS. The first one belongs to Fast DDS 2, in Humble and Jazzy;
later distributions warn of it."""
_prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
_is_fast_dds_3 = any(Path(prefix, "share", "fastdds").is_dir() for prefix in _prefixes)
PROFILES_VARIABLE = PROFILES_VARIABLES[_is_fast_dds_3]
"""That of this distribution."""


def publisher_events(on_matched: Callable[[Any], None], **callbacks: Any) -> Any:
    """Event callbacks of a publisher; without matched events `on_matched` is never called."""
    if HAS_MATCHED_EVENTS:
        callbacks["matched"] = on_matched
    return events.PublisherEventCallbacks(**callbacks)


def add_post_set_parameters_callback(
    node: Node, callback: Callable[[Sequence[Parameter]], None]
) -> None:
    """Call `callback` after parameters were set, with those."""
    if hasattr(node, "add_post_set_parameters_callback"):
        node.add_post_set_parameters_callback(callback)
        return
    set_parameters = node._set_parameters_atomically  # of Humble: all ways to set one lead here

    def set_and_call(changes: Sequence[Parameter], *args: Any, **kwargs: Any) -> Any:
        result = set_parameters(changes, *args, **kwargs)
        if result.successful:
            callback(changes)
        return result

    node._set_parameters_atomically = set_and_call
