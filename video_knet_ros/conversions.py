"""The conversions of the core, for the message classes of rclpy."""

from __future__ import annotations

from array import array
from importlib import import_module
from importlib.util import find_spec

from video_knet_core.messages.result_messages import Conversions


def _sequence(code: str, data: memoryview) -> array:
    """rclpy takes an array as it is; an ndarray it would check value by value."""
    values = array(code)
    values.frombytes(data)
    return values


def has_type(name: str) -> bool:
    """Whether the package of a message type is installed; vision_msgs is optional."""
    return find_spec(name.partition("/")[0]) is not None


def _find(name: str) -> type:
    package, _, kind = name.split("/")
    found: type = getattr(import_module(f"{package}.msg"), kind)
    return found


CONVERSIONS = Conversions(_find, _sequence)
"""To messages of rclpy."""
