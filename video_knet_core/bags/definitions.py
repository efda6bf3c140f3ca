"""Message types: the standard ones as rosbags has them, ours from `msg/`, some of vision_msgs."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys import (
    Stores,
    TypesysError,
    get_types_from_idl,
    get_types_from_msg,
    get_typestore,
)
from rosbags.typesys.msg import normalize_msgtype
from rosbags.typesys.store import Typestore

from ..installation import shared_file
from ..messages.result_messages import IMAGE, Conversions
from .bag import CDR, ROS1, BagError, Message, RecordedTopic

COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
IMAGE_TYPES = (IMAGE, COMPRESSED_IMAGE)
IDL = "=" * 80 + "\nIDL: "
"""What goes before each part of a definition in the language IDL."""

VISION_MESSAGES = {
    "Point2D": "float64 x\nfloat64 y",
    "Pose2D": "vision_msgs/Point2D position\nfloat64 theta",
    "BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y",
    "ObjectHypothesis": "string class_id\nfloat64 score",
    "ObjectHypothesisWithPose": "vision_msgs/ObjectHypothesis hypothesis\n"
    "geometry_msgs/PoseWithCovariance pose",
    "Detection2D": "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
    "vision_msgs/BoundingBox2D bbox\nstring id",
    "Detection2DArray": "std_msgs/Header header\nvision_msgs/Detection2D[] detections",
    "BoundingBox3D": "geometry_msgs/Pose center\ngeometry_msgs/Vector3 size",
    "Detection3D": "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
    "vision_msgs/BoundingBox3D bbox\nstring id",
    "Detection3DArray": "std_msgs/Header header\nvision_msgs/Detection3D[] detections",
    "VisionClass": "uint16 class_id\nstring class_name",
    "LabelInfo": "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold",
}
"""Fields of the messages of vision_msgs 4 that a replay writes; rosbags does not know them."""
UNKNOWN_HASH = f"RIHS01_{0:064}"
"""Of a type whose definition cannot be understood."""
_NO_CODE = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
"""Texts and comments of IDL."""
_COSTLY = re.compile(r"\([^()]*\(|<<|\bsequence\s*<\s*sequence\b|\*")
"""What the parser of rosbags takes minutes for, or makes huge numbers of."""
DEFINITION_ERRORS = (
    *(TypesysError, KeyError, ValueError, AttributeError, AssertionError),
    *(RecursionError, SyntaxError, NameError, MemoryError),
)
"""What rosbags raises for a definition that it cannot parse, that lacks a type or is empty, or that
has itself inside, a name that is none, or a number that is too large."""


class MessageError(ValueError):
    """The bytes of a message are not those of its type."""


@lru_cache(maxsize=1)
def ros2_types() -> Typestore:
    """The types of ROS 2 Jazzy, ours, and `VISION_MESSAGES`."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for name, fields in VISION_MESSAGES.items():
        store.register(get_types_from_msg(fields, f"vision_msgs/msg/{name}"))
    ours: dict = {}
    for file in sorted(shared_file("msg/TrackedInstanceArray.msg").parent.glob("*.msg")):
        ours |= get_types_from_msg(file.read_text(), f"video_knet_ros/msg/{file.stem}")
    store.register(ours)
    return store


@lru_cache(maxsize=1)
def ros1_types() -> Typestore:
    """The types of ROS 1 Noetic."""
    return get_typestore(Stores.ROS1_NOETIC)


def conversions(store: Typestore | None = None) -> Conversions:
    """To messages that rosbags can serialise with a store; by default with that of ROS 2."""
    types: dict[str, Any] = (store or ros2_types()).types
    return Conversions(types.__getitem__, lambda code, data: np.frombuffer(data, code))


def type_name(name: str) -> str:
    """sensor_msgs/msg/Image, also of sensor_msgs/Image (ROS 1, first versions of ROS 2)."""
    return normalize_msgtype(name) if "/" in name else name


def decode(message: Message) -> Any:
    """The message as an object of rosbags; its type must be a standard one.

    MessageError if the bytes do not fit the type.
    """
    kind, data = message.topic.type, message.data
    with _message_errors(kind, data):
        if message.topic.encoding == ROS1:
            return ros1_types().deserialize_ros1(data, kind)
        return read_cdr(data, kind)


@contextmanager
def _message_errors(kind: str, data: bytes) -> Iterator[None]:
    """Turn what rosbags raises for the bytes of a message into a MessageError."""
    try:
        yield
    except (SerdeError, struct.error, ValueError, AssertionError, IndexError) as error:
        raise MessageError(f"its {len(data)} bytes are no {kind}: {error}") from None


def read_cdr(data: bytes | memoryview, kind: str) -> Any:
    """Message of one of `ros2_types`; what comes after its end is ignored, as ROS 2 does it.

    rosbags rejects that, but Python programs that record what `serialize_message` of rclpy gives
    leave some bytes there. Raises what rosbags does.
    """
    if len(data) < 4 or bytes(data[:2]) not in (b"\0\0", b"\0\1"):
        raise ValueError(f"expected CDR, got bytes that begin with {bytes(data[:2])!r}")
    store = ros2_types()
    form = store.get_msgdef(kind)
    read = form.deserialize_cdr_le if data[1] else form.deserialize_cdr_be
    return read(data[4:], 0, form.cls, store)[0]


class Embedded:
    """A topic of a bag as ROS 2 has it, by the definition that is embedded in the bag.

    BagError if the encoding is unknown, there is no definition, or messages of ROS 1 have one that
    cannot be understood.
    """

    def __init__(self, topic: RecordedTopic) -> None:
        if topic.encoding not in (CDR, ROS1):
            raise BagError(
                f"{topic.name}: expected the encoding {CDR} or {ROS1}, got {topic.encoding!r}"
            )
        self.topic = topic
        self.definition = topic.definition.replace("\r\n", "\n").replace("\r", "\n")
        self.hash = UNKNOWN_HASH
        generated = topic.encoding == ROS1 or not topic.definition  # old bags of ROS 2 have none
        self._store = get_typestore(Stores.EMPTY) if topic.definition else ros2_types()
        try:
            if topic.definition:
                self._store.register(_types(self.definition, topic))
            if generated:
                self.definition, _ = self._store.generate_msgdef(topic.type, ros_version=2)
            self.hash = self._store.hash_rihs01(topic.type)
        except DEFINITION_ERRORS as error:
            if generated:
                raise BagError(
                    f"{topic.name}: no usable definition of {topic.type!r}: {error!r}"
                ) from None  # others are copied as they are, nothing has to be understood

    def check_clash(self, other: Embedded) -> None:
        """BagError if no recording holds both: a type has one definition, a topic one type."""
        name, kind = self.topic.name, self.topic.type
        if name == other.topic.name and not self.is_of(other.topic):
            raise BagError(f"{name} as {kind}: it is copied as {other.topic.type}")
        if kind == other.topic.type and self._identity != other._identity:
            raise BagError(f"{name}: its definition of {kind} is not that of {other.topic.name}")

    @property
    def _identity(self) -> str:
        return self.definition if self.hash == UNKNOWN_HASH else self.hash

    def is_of(self, topic: RecordedTopic) -> bool:
        """Whether messages of a topic of this name are of this type."""
        return (topic.type, topic.encoding) == (self.topic.type, self.topic.encoding)

    def to_cdr(self, data: bytes) -> bytes:
        """Bytes of a message as ROS 2 has them; MessageError if they do not fit the type."""
        if self.topic.encoding == CDR:
            return data
        with _message_errors(self.topic.type, data):
            return bytes(self._store.ros1_to_cdr(data, self.topic.type))


def _check_elements(types: dict) -> None:
    """ValueError if elements of an array have no bytes: four bytes can declare billions."""

    @cache
    def has_no_bytes(name: str) -> bool:
        return name in types and all(is_empty(node) for _, node in types[name][1])

    def is_empty(node: tuple) -> bool:
        kind, inner = node
        if kind == Nodetype.ARRAY:
            return inner[1] == 0 or is_empty(inner[0])
        return kind == Nodetype.NAME and has_no_bytes(inner)

    for name, (_, fields) in types.items():
        for field, (kind, inner) in fields:
            if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE) and is_empty(inner[0]):
                raise ValueError(f"{name}: {field}: expected elements with content")


def _types(definition: str, topic: RecordedTopic) -> dict:
    """Types of an embedded definition; ROS 2 has no `seq` in a header."""
    if definition.startswith(IDL):
        types: dict = {}
        for part in definition.split(IDL)[1:]:
            if _COSTLY.search(_NO_CODE.sub(" ", part)):
                raise ValueError("expected no nested brackets or sequences, shifts or products")
            types |= get_types_from_idl(part.partition("\n")[2])
        return types
    types = get_types_from_msg(definition, topic.type)
    if topic.encoding == ROS1:
        _check_elements(types)
    if topic.encoding == ROS1 and (header := types.get("std_msgs/msg/Header")):
        constants, fields = header
        types["std_msgs/msg/Header"] = (constants, [f for f in fields if f[0] != "seq"])
    return types
