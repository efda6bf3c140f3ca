#!/usr/bin/env python3
"""What a planner makes of Video K-Net: free road ahead, and the nearest tracked obstacle. Copy it.

Start it beside the camera node, with a model of task panoptic: python3 planner.py
"""

import math

import cv2
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import Image
from video_knet_ros.msg import TrackedInstanceArray, TrackedObjectArray

TABLE, LABELS = "/video_knet/instances", "/video_knet/panoptic/image"
OBJECTS = "/video_knet/objects"  # in metres; none without depth, cloud or camera info
CLASSES = "/video_knet/class_map"  # every model has it
CORRIDOR = np.array([[0.45, 0.5], [0.55, 0.5], [0.8, 1.0], [0.2, 1.0]])  # x, y in 0..1
PENDING = 10  # messages that wait for their partner; older ones have lost it on the way


class Planner(Node):
    """Pairs the messages of one camera image by their stamp, which is the same."""

    def __init__(self, **kwargs):
        super().__init__("planner", **kwargs)
        kinds = {OBJECTS: TrackedObjectArray, TABLE: TrackedInstanceArray, LABELS: Image}
        self._waiting = {topic: {} for topic in kinds}
        self._measured = False  # whether objects come: they do after the table and the labels
        for topic, kind in kinds.items():
            self.create_subscription(kind, topic, lambda m, t=topic: self._receive(t, m), PENDING)
        self.create_timer(5.0, self._look_for_publishers)

    def _receive(self, topic, message):
        stamp = message.header.stamp.sec, message.header.stamp.nanosec
        self._waiting[topic][stamp] = message
        self._measured |= topic == OBJECTS
        for pair in sorted(self._waiting[TABLE].keys() & self._waiting[LABELS].keys()):
            has_objects = pair in self._waiting[OBJECTS]
            if has_objects or not self._measured or pair < stamp:  # else they are on the way
                self._measured = has_objects
                objects, table, labels = (w.pop(pair, None) for w in self._waiting.values())
                print(f"{pair[0]}.{pair[1]:09}: {describe(table, labels, objects)}", flush=True)
        if len(self._waiting[topic]) > PENDING:
            del self._waiting[topic][next(iter(self._waiting[topic]))]  # the one that came first

    def _look_for_publishers(self):
        ready = self.count_publishers(CLASSES)
        why = ": a model of task semantic has no instances, choose a panoptic one" if ready else ""
        for topic in (TABLE, LABELS):
            if not self.count_publishers(topic):
                self.get_logger().warning(f"no publisher of {topic}{why}")


def describe(table, image, objects=None):
    """One line on the road ahead, from the messages of one camera image."""
    order = ">u2" if image.is_bigendian else "<u2"
    shape, strides = (image.height, image.width), (image.step, 2)
    labels = np.ndarray(shape, order, image.data, strides=strides)
    corridor = np.zeros(shape, np.uint8)
    cv2.fillConvexPoly(corridor, (CORRIDOR * shape[::-1]).astype(np.int32), 1)
    pixels = np.bincount(labels[corridor == 1], minlength=65536)  # of each label, in the corridor
    road = sum(pixels[i.label] for i in table.instances if i.label and i.class_name == "road")
    free = f"{road / pixels.sum():.0%} of the corridor is free road"
    # A coasted track is remembered but has no pixels: its label is 0.
    ahead = [i for i in table.instances if i.track_id and i.label and pixels[i.label]]
    if not ahead:
        return f"{free}, no obstacle"
    lowest = max(ahead, key=lambda i: i.roi.y_offset + i.roi.height)  # stands lowest in the image
    placed = {o.track_id: o for o in objects.objects if not o.predicted} if objects else {}
    if lowest.track_id in placed:  # else it is the nearest: too near for the sensor, maybe
        nearest = min((placed[i.track_id] for i in ahead if i.track_id in placed), key=range_of)
        v = nearest.velocity
        speed = math.hypot(v.x, v.y, v.z)  # relative to the frame of the header; NaN = unknown
        moves = "" if math.isnan(speed) else f", {speed:.1f} m/s"
        where = f" at {nearest.range:.1f} m{moves}"
    else:
        nearest = lowest
        where = f", seen in {nearest.age} frames"
    return f"{free}, nearest: {nearest.class_name} {nearest.track_id}{where}"


def range_of(tracked):
    return tracked.range


def main():
    rclpy.init()
    try:
        rclpy.spin(Planner())
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():
            raise  # else a signal came just before a wait, and there is nothing to wait on any more


if __name__ == "__main__":
    main()
