"""The node's outputs: a message is made only while somebody listens to its topic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from video_knet_core import visualize
from video_knet_core.types import ClassTable, PanopticFrame

from . import conversions, qos
from .msg import ClassMap, TrackedInstanceArray


class Outputs:
    """Publishers of one configured node, from configure to cleanup."""

    def __init__(self, node: LifecycleNode, classes: ClassTable) -> None:
        self._node = node
        self._classes = classes
        create = node.create_lifecycle_publisher
        self._instances = create(TrackedInstanceArray, "~/instances", qos.OUTPUT)
        self._panoptic = create(Image, "~/panoptic/image", qos.OUTPUT)
        self._semantic = create(Image, "~/semantic/image", qos.OUTPUT)
        self._overlay = create(Image, "~/overlay/image", qos.OUTPUT)
        self._class_map = create(ClassMap, "~/class_map", qos.LATCHED)

    def publish_classes(self) -> None:
        """Latch the class table; the publishers must be active."""
        self._class_map.publish(conversions.class_map(self._classes))

    def publish(
        self,
        header: Header,
        image: NDArray[np.uint8],
        frame: PanopticFrame,
        sequence: int,
        skipped: int,
    ) -> float:
        """Publish what is listened to, the table first and the overlay, which takes longest, last.

        Args:
            header: the image message's, copied onto every output.
            image: RGB uint8 [H, W, 3].
            frame: its result.
            sequence: number of the frame since activation.
            skipped: images dropped since the last frame.

        Returns:
            Latency of the table in milliseconds, from the header's stamp; NaN if unknown.
        """
        stamp = conversions.nanoseconds(header.stamp)
        latency = conversions.latency_ms(stamp, self._node.get_clock().now().nanoseconds)

        def table() -> TrackedInstanceArray:
            message = conversions.instance_array(header, frame, self._classes, sequence, skipped)
            message.latency_ms = latency
            return message

        def overlay() -> Image:
            drawn = visualize.overlay(image, frame, self._classes)
            return conversions.image_message(header, "rgb8", drawn)

        _publish(self._instances, table)
        _publish(self._panoptic, lambda: conversions.panoptic_image(header, frame))
        _publish(self._semantic, lambda: conversions.semantic_image(header, frame))
        _publish(self._overlay, overlay)
        return latency

    def destroy(self) -> None:
        """Take the topics off the graph."""
        for publisher in (
            self._instances,
            self._panoptic,
            self._semantic,
            self._overlay,
            self._class_map,
        ):
            self._node.destroy_lifecycle_publisher(publisher)


def _publish(publisher: LifecyclePublisher, make: Callable[[], object]) -> None:
    if publisher.is_activated and publisher.get_subscription_count():
        publisher.publish(make())
