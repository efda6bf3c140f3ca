"""The topics of a bag that a replay needs for results in metres, and which camera each is for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from ..bags.bag import Contents
from ..bags.definitions import COMPRESSED_IMAGE, IMAGE
from ..messages.topics import CAMERA_INFO, CLOUD
from ..messages.view_messages import ODOMETRY
from ..spatial.inputs import SpatialInputs
from ..user_names import camera_topics
from .replay_settings import ReplayError, ReplaySettings

CAMERA = "CAMERA"
"""In the name of a topic: that of the images without its last part, as `front`."""
_SUFFIXES = re.compile(r"/(compressed|compressedDepth)$")
TRANSFORMS = {"/tf": False, "/tf_static": True}
"""Topics of transforms, and whether they hold at all times."""
_TRANSFORM_TYPE = "tf2_msgs/msg/TFMessage"

Add = Callable[[SpatialInputs, Any], None]


class SpatialTopic(NamedTuple):
    """A topic that a camera needs."""

    name: str
    camera: str
    """Topic of its images."""
    add: Add
    types: tuple[str, ...]
    """Of its messages; there may be others on the topic too."""


def depth_topics(contents: Contents, images: Sequence[str], settings: ReplaySettings) -> set[str]:
    """Those of the topics of images that have the depth of another one."""
    depth = {name for topic in images if (name := _depth_topic(settings, topic)) != topic}
    compressed = {f"{name}/compressedDepth" for name in depth}
    return (depth | compressed) & {topic.name for topic in contents.topics}


def spatial_topics(
    contents: Contents, cameras: Sequence[str], settings: ReplaySettings
) -> list[SpatialTopic]:
    """What the bag has of them; ReplayError for one that was named and is not there."""
    types: dict[str, list[str]] = {}
    for topic in contents.topics:
        types.setdefault(topic.name, []).append(topic.type)
    found = []
    for camera in cameras:
        depth, info = _depth_topic(settings, camera), camera_topics(_SUFFIXES.sub("", camera))[1]
        rows: list[tuple[str, str, tuple[str, ...], Add]] = [
            ("depth", depth, (IMAGE, COMPRESSED_IMAGE), SpatialInputs.add_depth),
            ("cloud", _named(settings.cloud, camera), (CLOUD,), SpatialInputs.add_cloud),
            (
                "camera_info",
                _named(settings.camera_info, camera) or info,
                (CAMERA_INFO,),
                SpatialInputs.add_camera_info,
            ),
            (
                "",
                camera_topics(_SUFFIXES.sub("", depth))[1],
                (CAMERA_INFO,),
                SpatialInputs.add_depth_info,
            ),
            (
                "odometry",
                _named(settings.odometry, camera),
                (ODOMETRY,),
                SpatialInputs.add_odometry,
            ),
        ]
        for setting, name, kinds, add in rows:
            if set(kinds).intersection(types.get(name, ())):
                found.append(SpatialTopic(name, camera, add, kinds))
            elif setting and getattr(settings, setting):
                got = " and ".join(types.get(name, ["no such topic"]))
                raise ReplayError(f"{setting}: expected {name} of {' or '.join(kinds)}, got {got}")
        for name, static in TRANSFORMS.items():
            if _TRANSFORM_TYPE in types.get(name, ()):
                add = partial(SpatialInputs.add_transforms, static=static)
                found.append(SpatialTopic(name, camera, add, (_TRANSFORM_TYPE,)))
    return found


def _depth_topic(settings: ReplaySettings, camera: str) -> str:
    return _named(settings.depth, camera) or camera_topics(_SUFFIXES.sub("", camera))[0]


def _named(pattern: str, camera: str) -> str:
    base = _SUFFIXES.sub("", camera).rpartition("/")[0].strip("/")
    named = pattern.replace(CAMERA, base)
    return named if named.startswith("/") or named == pattern else f"/{named}"
