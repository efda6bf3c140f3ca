#!/usr/bin/env python3
"""The camera image with its masks: the mean colour of each confirmed track. Copy it.

Start it beside the camera node, with a model of task panoptic or instance: python3 synchronized.py
Another camera: python3 synchronized.py --ros-args -r /camera/image_raw:=/front/image_raw
"""

import numpy as np
import rclpy
from message_filters import Subscriber, TimeSynchronizer
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from video_knet_ros.msg import TrackedInstance, TrackedInstanceArray

from video_knet_core.messages.image_messages import to_rgb

CAMERA = "/camera/image_raw"
TABLE, LABELS = "/video_knet/instances", "/video_knet/panoptic/image"
PENDING = 30  # more than the images that arrive until the node has processed one of them


class Synchronized(Node):
    def __init__(self):
        super().__init__("synchronized")
        best_effort = QoSProfile(depth=PENDING, reliability=ReliabilityPolicy.BEST_EFFORT)
        camera = Subscriber(self, Image, CAMERA, qos_profile=best_effort)  # matches every camera
        table = Subscriber(self, TrackedInstanceArray, TABLE, qos_profile=PENDING)
        labels = Subscriber(self, Image, LABELS, qos_profile=PENDING)
        self._frames = TimeSynchronizer([camera, table, labels], PENDING)  # equal stamps
        self._frames.registerCallback(lambda *frame: print(describe(*frame), flush=True))


def describe(camera, table, image):
    """One line on the tracks of a frame: class, track id, pixels and mean colour of each mask."""
    rgb = to_rgb(camera)  # of any encoding; as large as the label image
    labels = np.ndarray((image.height, image.width), "<u2", image.data, strides=(image.step, 2))
    found = []
    for track in table.instances:
        mask = labels == track.label
        if track.track_id and track.state == TrackedInstance.CONFIRMED and mask.any():
            red, green, blue = rgb[mask].mean(axis=0).round().astype(int)
            name = f"{track.class_name} {track.track_id}"
            found.append(f"{name}: {mask.sum()} px, rgb({red}, {green}, {blue})")
    stamp = table.header.stamp
    return f"{stamp.sec}.{stamp.nanosec:09} " + ("; ".join(found) or "no confirmed track")


def main():
    rclpy.init()
    try:
        rclpy.spin(Synchronized())
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():
            raise  # else a signal came just before a wait, and there is nothing to wait on any more


if __name__ == "__main__":
    main()
