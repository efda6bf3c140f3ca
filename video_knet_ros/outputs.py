"""The node's outputs: a message is published only while its topic has subscribers."""

from __future__ import annotations

from array import array
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import (
    DurabilityPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from video_knet_core.engine.base import ModelInfo
from video_knet_core.messages.result_messages import (
    CLASS_MAP,
    LABEL_INFO,
    Conversions,
    FrameToPublish,
)
from video_knet_core.messages.topics import ImageOutput, MessageOutput, outputs_of
from video_knet_core.tasks import TASKS

from .ros_compat import HAS_MATCHED_EVENTS, events, publisher_events

RELIABLE = QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE)
"""For each frame: reliable matches every subscriber; shallow, for old results are worthless."""
LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""A subscriber that comes late still gets the last message."""


def has_type(name: str) -> bool:
    """Whether the package of a message type is installed; vision_msgs is optional."""
    return find_spec(name.partition("/")[0]) is not None


def find_type(name: str) -> type:
    package, _, kind = name.split("/")
    found: type = getattr(import_module(f"{package}.msg"), kind)
    return found


def _sequence(code: str, data: memoryview) -> array:
    """rclpy takes an array as it is; an ndarray it would check value by value."""
    values = array(code)
    values.frombytes(data)
    return values


CONVERSIONS = Conversions(find_type, _sequence)
"""To messages of rclpy."""


class Topic:
    """A publisher with the number of its subscribers, which the middleware reports or counts."""

    def __init__(
        self, node: LifecycleNode, kind: type, name: str, profile: QoSProfile = RELIABLE
    ) -> None:
        self._node = node
        self._matched = 0
        self.published = 0
        """Messages published so far."""
        self._incompatible_policy = ""
        callbacks = publisher_events(self._on_matched, incompatible_qos=self._on_incompatible)
        self._publisher = node.create_lifecycle_publisher(
            kind, name, profile, event_callbacks=callbacks
        )

    @property
    def subscribers(self) -> int:
        """Subscribers now."""
        return self._matched if HAS_MATCHED_EVENTS else self._publisher.get_subscription_count()

    @property
    def has_subscribers(self) -> bool:
        """Whether a message would reach a subscriber."""
        return self._publisher.is_activated and self.subscribers > 0

    @property
    def obstacle(self) -> str:
        """Why messages cannot reach a subscriber of this topic; empty if they reach all."""
        name, policy = self._publisher.topic_name, self._incompatible_policy
        if not policy or self._node.count_subscribers(name) <= self.subscribers:
            return ""  # the subscriber is gone
        return f"a subscriber of {name} requests another {policy} than is offered"

    def publish(self, message: Any) -> None:
        """Send a message."""
        self.published += 1
        self._publisher.publish(message)

    def destroy(self) -> None:
        """Take the topic off the graph."""
        self._node.destroy_lifecycle_publisher(self._publisher)

    def _on_matched(self, event: events.QoSPublisherMatchedInfo) -> None:
        self._matched = event.current_count

    def _on_incompatible(self, event: events.QoSOfferedIncompatibleQoSInfo) -> None:
        self._incompatible_policy = qos_policy_name_from_kind(event.last_policy_kind).lower()


class ImageTopic(Topic):
    """A topic of images: one message is reused for all frames of the same size."""

    def __init__(self, node: LifecycleNode, name: str, output: ImageOutput) -> None:
        super().__init__(node, Image, name)
        self._output = output
        self._message = Image(encoding=output.encoding)
        self._pixels = output.blank((0, 0))

    def draw(self, result: FrameToPublish) -> None:
        """Send the output of a frame, which is drawn into the memory of the message."""
        size = self._output.size(result)
        if self._pixels.shape[:2] != size:
            self._resize(size)
        self._message.header = result.header
        self._output.draw(result, self._pixels)
        self.publish(self._message)

    def _resize(self, size: tuple[int, int]) -> None:
        blank = self._output.blank(size)
        self._message.data = _sequence("B", blank.view(np.uint8).data)
        self._message.height, self._message.width = size
        self._message.step = blank.nbytes // size[0]
        self._pixels = np.frombuffer(self._message.data, blank.dtype).reshape(blank.shape)


class Outputs:
    """Publishers of one configured node, from configure to cleanup: those of its model's task."""

    def __init__(self, node: LifecycleNode, info: ModelInfo, mask_classes: str = "") -> None:
        self._node, self.classes = node, info.classes
        self._outputs = outputs_of(TASKS[info.task], info.classes, mask_classes)
        self._topics: dict[str, Topic] = {}
        self._frame_topics: dict[str, Topic] = {}
        try:
            for name, output in self._outputs.items():
                if has_type(output.type):
                    self._topics[name] = self._frame_topics[name] = self._create(output)
            for name, kind in (("class_map", CLASS_MAP), ("label_info", LABEL_INFO)):
                if has_type(kind):
                    self._topics[name] = Topic(node, CONVERSIONS.find(kind), f"~/{name}", LATCHED)
        except BaseException:
            self.destroy()
            raise

    def _create(self, output: ImageOutput | MessageOutput) -> Topic:
        topic = f"~/{output.topic}"
        if isinstance(output, ImageOutput):
            return ImageTopic(self._node, topic, output)
        return Topic(self._node, CONVERSIONS.find(output.type), topic)

    @property
    def published(self) -> dict[str, int]:
        """Messages published since configure, by output."""
        return {name: topic.published for name, topic in self._topics.items()}

    @property
    def subscribers(self) -> dict[str, int]:
        """Subscribers now, by output."""
        return {name: topic.subscribers for name, topic in self._topics.items()}

    @property
    def frame_subscribers(self) -> int:
        """Subscribers now, of the outputs that are published for each frame."""
        return sum(topic.subscribers for topic in self._frame_topics.values())

    @property
    def obstacle(self) -> str:
        """Why an output cannot reach one of its subscribers; empty if all can be reached."""
        return next((topic.obstacle for topic in self._topics.values() if topic.obstacle), "")

    def publish_classes(self) -> None:
        """Latch the class table; the publishers must be active."""
        self._topics["class_map"].publish(CONVERSIONS.class_map(self.classes))
        if "label_info" in self._topics:
            now = Header(stamp=self._node.get_clock().now().to_msg())
            self._topics["label_info"].publish(CONVERSIONS.label_info(now, self.classes))

    def has_subscribers(self, *, spatial: bool = False, semantic: bool = False) -> bool:
        """Whether an output in space, or one of the size of the class image, has subscribers."""
        for name, topic in self._frame_topics.items():
            output = self._outputs[name]
            chosen = (spatial and output.spatial) or (semantic and output.semantic)
            if chosen and topic.has_subscribers:
                return True
        return False

    def publish(self, result: FrameToPublish, *, spatial: bool = False) -> None:
        """Publish what has subscribers of the outputs in space, or of those in the image.

        What one of those in space raises is raised after the others are published.
        """
        errors: list[Exception] = []
        for name, topic in self._frame_topics.items():
            output = self._outputs[name]
            if output.spatial != spatial or not topic.has_subscribers:
                continue
            try:
                if isinstance(topic, ImageTopic):
                    topic.draw(result)
                elif (message := output.make(CONVERSIONS, result)) is not None:
                    topic.publish(message)
            except Exception as error:
                if not spatial:
                    raise
                errors.append(error)
        if errors:
            raise errors[0]

    def destroy(self) -> None:
        """Take the topics off the graph; one that fails does not keep the others there."""
        with ExitStack() as stack:
            for topic in self._topics.values():
                stack.callback(topic.destroy)
