"""The conversions of the core, bound to the message classes of rclpy."""

from __future__ import annotations

from array import array

from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from video_knet_core.ros_messages.conversions import Conversions, MessageTypes
from video_knet_core.ros_messages.conversions import latency_ms as latency_ms
from video_knet_core.ros_messages.conversions import nanoseconds as nanoseconds
from video_knet_core.ros_messages.image_decoding import ImageError as ImageError
from video_knet_core.ros_messages.image_decoding import to_rgb as to_rgb

from .msg import ClassInfo, ClassMap, TrackedInstance, TrackedInstanceArray


def _sequence(code: str, data: memoryview) -> array:
    """rclpy takes an array as it is; an ndarray it would check value by value."""
    values = array(code)
    values.frombytes(data)
    return values


_conversions = Conversions(
    MessageTypes(
        Time=Time,
        Header=Header,
        Image=Image,
        RegionOfInterest=RegionOfInterest,
        ClassInfo=ClassInfo,
        ClassMap=ClassMap,
        TrackedInstance=TrackedInstance,
        TrackedInstanceArray=TrackedInstanceArray,
        sequence=_sequence,
    )
)
image_message = _conversions.image_message
instance_array = _conversions.instance_array
class_map = _conversions.class_map
time_message = _conversions.time_message
