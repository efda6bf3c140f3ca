"""The topics of depth, clouds and cameras in a bag, by camera."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from video_knet_core.bags.bag import Contents, RecordedTopic
from video_knet_core.replay.replay_settings import ReplayError, ReplaySettings
from video_knet_core.replay.selection import choose_topics
from video_knet_core.replay.spatial_topics import depth_topics, spatial_topics
from video_knet_core.spatial.inputs import SpatialInputs

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
INFO, CLOUD = "sensor_msgs/msg/CameraInfo", "sensor_msgs/msg/PointCloud2"
ODOMETRY, TF = "nav_msgs/msg/Odometry", "tf2_msgs/msg/TFMessage"
FRONT = "/front/image_raw"


def contents(**topics: str) -> Contents:
    """Of a bag with topics "/a/b" as a__b."""
    names = {f"/{name.replace('__', '/')}": kind for name, kind in topics.items()}
    found = tuple(RecordedTopic(name, kind) for name, kind in names.items())
    return Contents(found, dict.fromkeys(names, 1), 0, 1)


USUAL = contents(
    front__image_raw=IMAGE,
    front__camera_info=INFO,
    front__depth__image_raw=IMAGE,
    front__depth__camera_info=INFO,
    odometry=ODOMETRY,
    tf=TF,
    tf_static=TF,
)


def topics(found: Contents, cameras=(FRONT,), **settings: str) -> list[tuple[str, str, str]]:
    """Name, camera and what takes the messages."""
    rows = spatial_topics(found, cameras, ReplaySettings(**settings))
    return [(row.name, row.camera, _name(row.add)) for row in rows]


def _name(add) -> str:
    if isinstance(add, partial):
        return f"{add.func.__name__} {add.keywords['static']}"
    return add.__name__


def test_depth_and_camera_infos_beside_the_images_are_used_and_tf():
    assert topics(USUAL) == [
        ("/front/depth/image_raw", FRONT, "add_depth"),
        ("/front/camera_info", FRONT, "add_camera_info"),
        ("/front/depth/camera_info", FRONT, "add_depth_info"),
        ("/tf", FRONT, "add_transforms False"),
        ("/tf_static", FRONT, "add_transforms True"),
    ]


def test_odometry_and_clouds_are_used_only_if_they_are_named():
    found = contents(front__image_raw=IMAGE, odometry=ODOMETRY, lidar__points=CLOUD)
    assert topics(found) == []
    assert topics(found, odometry="/odometry", cloud="/lidar/points") == [
        ("/lidar/points", FRONT, "add_cloud"),
        ("/odometry", FRONT, "add_odometry"),
    ]


def test_compressed_images_have_the_topics_of_the_raw_ones():
    compressed = "/front/image_raw/compressed"
    found = contents(front__image_raw__compressed=COMPRESSED, front__camera_info=INFO)
    assert topics(found, [compressed]) == [("/front/camera_info", compressed, "add_camera_info")]


def test_camera_in_a_name_is_that_of_each_camera():
    found = contents(
        front__image_raw=IMAGE, rear__image_raw=IMAGE, front__z=IMAGE, rear__z=COMPRESSED
    )
    both = (FRONT, "/rear/image_raw")
    assert topics(found, both, depth="CAMERA/z") == [
        ("/front/z", FRONT, "add_depth"),
        ("/rear/z", "/rear/image_raw", "add_depth"),
    ]


def test_a_topic_may_be_that_of_several_cameras():
    found = contents(front__image_raw=IMAGE, rear__image_raw=IMAGE, tf=TF)
    both = (FRONT, "/rear/image_raw")
    assert [(name, camera) for name, camera, _ in topics(found, both)] == [
        ("/tf", FRONT),
        ("/tf", "/rear/image_raw"),
    ]


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("depth", "/front/z"),
        ("cloud", "CAMERA/points"),
        ("camera_info", "/info"),
        ("odometry", "/odom"),
    ],
)
def test_a_named_topic_that_is_missing_is_an_error(setting, name):
    with pytest.raises(ReplayError, match=f"^{setting}: .*{name.replace('CAMERA', '/front')}"):
        topics(USUAL, **{setting: name})


def test_a_named_topic_of_another_type_is_an_error():
    with pytest.raises(ReplayError, match=f"cloud: expected /odometry of {CLOUD}, got {ODOMETRY}"):
        topics(USUAL, cloud="/odometry")


def test_a_usual_topic_of_another_type_is_not_used():
    assert topics(contents(front__image_raw=IMAGE, front__camera_info=ODOMETRY, tf=INFO)) == []


def test_depth_is_no_second_camera():
    assert depth_topics(USUAL, [FRONT, "/front/depth/image_raw"], ReplaySettings()) == {
        "/front/depth/image_raw"
    }
    assert choose_topics(USUAL, ReplaySettings()) == (FRONT,)
    named = contents(front__image_raw=IMAGE, front__z=IMAGE)
    assert choose_topics(named, ReplaySettings(depth="CAMERA/z")) == (FRONT,)


def test_a_depth_topic_can_be_chosen_as_a_camera():
    settings = replace(ReplaySettings(), topics=("/front/depth/image_raw",))
    assert choose_topics(USUAL, settings) == ("/front/depth/image_raw",)


def test_all_inputs_can_be_filled():
    """Each `add` is called with the inputs of a camera and a message."""
    inputs = SpatialInputs()
    for row in spatial_topics(USUAL, [FRONT], ReplaySettings(odometry="/odometry")):
        name = row.add.func.__name__ if isinstance(row.add, partial) else row.add.__name__
        assert callable(getattr(inputs, name))
