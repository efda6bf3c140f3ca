"""Which topics are replayed, the nodes that would subscribe to them, and their outputs."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Mapping, Sequence

from ..bags.bag import CDR, ROS1, BagError, Contents, RecordedTopic
from ..bags.definitions import IMAGE_TYPES, Embedded
from ..engine.base import ModelInfo
from ..messages.topics import OUTPUTS
from ..tasks import TASKS
from .replay_settings import EmptyReplayError, ReplayError, ReplaySettings
from .spatial_topics import depth_topics

_log = logging.getLogger(__name__)
NODE = "/video_knet"
"""Name of the node of a single camera, as `camera.launch.py` starts it."""
LATCHED = ("class_map", "label_info")
"""Outputs that come once."""
TimeRange = tuple[int | None, int | None]
"""First receive time, and the one that ends it [ns]; None = no limit."""


def time_range(contents: Contents, settings: ReplaySettings) -> TimeRange:
    """The chosen time; EmptyReplayError if the bag ends before it."""
    start, whole = contents.start, contents.seconds
    if start is None:  # an index may be wrong: nothing is left out
        return None, None
    if settings.start > whole:
        raise EmptyReplayError(f"expected a start within its {whole:.3f} s, got {settings.start} s")
    since = start + round(settings.start * 1e9) if settings.start else None
    if settings.duration is None or settings.start + settings.duration > whole:
        return since, None
    return since, start + round((settings.start + settings.duration) * 1e9)


def choose_topics(contents: Contents, settings: ReplaySettings) -> tuple[str, ...]:
    """The chosen topics, or the only one of images beside its depth.

    ReplayError, which lists what is there, if one is missing or has no images, or if none is
    chosen and there is not exactly one.
    """
    chosen = settings.topics
    images = {topic.name: topic for topic in contents.topics if has_images(topic)}
    for name in depth_topics(contents, list(images), settings).difference(chosen):
        images.pop(name, None)
    topics = {topic.name: topic for topic in contents.topics} | images
    if not images:
        raise ReplayError(f"there are no images in it, only {_listed(contents, topics)}")
    for name in chosen:
        if name not in topics:
            raise ReplayError(
                f"there is no topic {name}; images are on {_listed(contents, images)}"
            )
        if name not in images:
            raise ReplayError(
                f"{name} is {topics[name].type} as {topics[name].encoding}, expected one of "
                f"images: {_listed(contents, images)}"
            )
    if not chosen and len(images) > 1:
        raise ReplayError(f"name one or more of its topics: {_listed(contents, images)}")
    return tuple(dict.fromkeys(chosen)) or tuple(images)


def choose_outputs(info: ModelInfo, chosen: Sequence[str]) -> tuple[str, ...]:
    """The chosen outputs, or the usual ones of the model's task.

    ReplayError, which lists those of the task, if one is none of them.
    """
    task = TASKS[info.task]
    for name in chosen:
        if name not in task.outputs:
            raise ReplayError(
                f"{info.name} is a model of task {info.task}, which has no output {name}; "
                f"it has {', '.join(task.outputs)}"
            )
    return tuple(dict.fromkeys(chosen)) or task.default_outputs


def node_names(topics: Sequence[str]) -> dict[str, str]:
    """RecordedTopic -> node whose outputs it gets, with a slash before it.

    A single camera gets those of `/video_knet`. Of several, each gets those of a node called after
    the camera, which is the topic without its last part: `/front` for `/front/image_raw`. If two
    would be called the same, the whole topic is the name, and if that is no help (`/a b`, `/a_b`)
    with a number.
    """
    if len(topics) == 1:
        return {topics[0]: NODE}
    names = {topic: _camera(topic) for topic in topics}
    if len(set(names.values())) < len(topics):
        names = _numbered({topic: _plain(topic) for topic in topics})
    return names


def topics_to_copy(contents: Contents, nodes: Mapping[str, str]) -> dict[str, Embedded]:
    """All topics that one recording can hold beside the results; what cannot be copied is logged.

    `nodes` are those of `node_names`.
    """
    ours = tuple(f"{node}/" for node in nodes.values())
    made = (*LATCHED, *(output.topic for output in OUTPUTS.values()))
    outputs = {node + name for node in ours for name in made}
    found: dict[str, Embedded] = {}
    types: dict[str, Embedded] = {}
    for topic in sorted(contents.topics, key=has_images, reverse=True):
        if topic.name in outputs or (topic.name.startswith(ours) and topic.name not in nodes):
            _log.warning("%s is not copied: the replay makes topics there", topic.name)
            continue
        try:
            embedded = Embedded(topic)
            embedded.check_clash(found.get(topic.name) or types.setdefault(topic.type, embedded))
            found[topic.name] = embedded
        except BagError as error:
            _log.warning("not copied: %s", error)
    order = dict.fromkeys(topic.name for topic in contents.topics)
    return {name: found[name] for name in order if name in found}


def has_images(topic: RecordedTopic) -> bool:
    """Whether the messages of a topic are images that can be decoded."""
    return topic.type in IMAGE_TYPES and topic.encoding in (CDR, ROS1)


def _listed(contents: Contents, topics: dict[str, RecordedTopic]) -> str:
    rows = [
        f"{name} ({topic.type}, {contents.counts.get(name, 0)} messages)"
        for name, topic in sorted(topics.items())
    ]
    return ", ".join(rows) or "nothing"


def _numbered(names: Mapping[str, str]) -> dict[str, str]:
    """The names, but of equal ones the later with a number behind that no other has."""
    taken = set(names.values())
    result: dict[str, str] = {}
    for topic, name in names.items():
        if name in result.values():
            name = next(n for i in itertools.count(2) if (n := f"{name}_{i}") not in taken)
            taken.add(name)
        result[topic] = name
    return result


def _camera(topic: str) -> str:
    name = _plain(topic).removesuffix("/compressed")
    return name.rpartition("/")[0] or name


def _plain(topic: str) -> str:
    """Only what may be in a name: bags come from anywhere, and the names become paths."""
    parts = re.sub(r"[^A-Za-z0-9_/]", "_", topic).split("/")
    return "/" + "/".join(part for part in parts if part)
