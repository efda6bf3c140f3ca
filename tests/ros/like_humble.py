"""A pytest plugin that takes from rclpy what that of ROS 2 Humble lacks, over the real middleware.

python -m pytest -p like_humble tests/ros     # with tests/ros in PYTHONPATH
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import rclpy
import rclpy.event_handler as events
import rclpy.lifecycle  # noqa: F401 - it imports what is taken away below
from rclpy.node import Node
from rclpy.subscription import Subscription


class PublisherEventCallbacks(events.PublisherEventCallbacks):
    """With the arguments of Humble's."""

    def __init__(
        self,
        *,
        deadline: Any = None,
        liveliness: Any = None,
        incompatible_qos: Any = None,
        use_default_callbacks: bool = True,
    ) -> None:
        super().__init__(
            deadline=deadline,
            liveliness=liveliness,
            incompatible_qos=incompatible_qos,
            use_default_callbacks=use_default_callbacks,
        )


qos_event = ModuleType("rclpy.qos_event")
for name, value in vars(events).items():
    if "Matched" not in name:
        setattr(qos_event, name, value)
qos_event.PublisherEventCallbacks = PublisherEventCallbacks  # type: ignore[attr-defined]
rclpy.qos_event = sys.modules["rclpy.qos_event"] = qos_event
sys.modules["rclpy.event_handler"] = None  # type: ignore[assignment]  # an import raises ImportError
del rclpy.event_handler
del Node.add_post_set_parameters_callback
del Subscription.get_publisher_count
