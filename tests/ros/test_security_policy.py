"""The example of a security policy allows all that the node publishes, subscribes to and serves."""

from __future__ import annotations

import os
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from xml.etree import ElementTree

import pytest
from harness import World
from rclpy.node import NodeNameNonExistentError
from rclpy.parameter import Parameter
from video_knet_ros.msg import TrackedObjectArray

from video_knet_ros import node
from video_knet_ros.engines import EnginePool
from video_knet_ros.video_source import VideoSource

POLICY = Path(__file__).parents[2] / "config" / "sros2" / "video_knet.policy.xml"
REMAPPED = {
    "~/image": "/camera/image_raw",
    "~/image/compressed": "/camera/image_raw/compressed",
    "~/camera_info": "/camera/camera_info",
    "~/depth": "/camera/depth/image_raw",
    "~/depth/compressed": "/camera/depth/image_raw/compressedDepth",
    "~/depth/camera_info": "/camera/depth/camera_info",
    "~/cloud": "/points",
    "~/odometry": "/odometry",
}
"""As `camera.launch.py` does it, with `cloud:=/points`."""
NAME = f"secured_{os.getpid()}"
"""Of the node that is looked up: no other may have it."""
OTHERS = ["/cmd_vel", "/other_node/set_parameters", "/camera/image_raw"]


def allowed(enclave: str, right: str, name: str = "") -> list[str]:
    """The topics and services, which may have wildcards, that an enclave has a right to.

    With `name`, those of a node that is called so instead of as in the policy.
    """
    profile = ElementTree.parse(POLICY).find(
        f"enclaves/enclave[@path='{enclave}']/profiles/profile"
    )
    assert profile is not None
    own = f"/{name or profile.get('node')}"
    names = [e.text or "" for e in profile.iterfind(f"*[@{right}='ALLOW']/*")]
    return [name.replace("~", own, 1) for name in names]


def rejected(names: list[str], enclave: str, right: str, name: str = "") -> list[str]:
    rules = allowed(enclave, right, name)
    return [name for name in names if not any(fnmatchcase(name, rule) for rule in rules)]


def check_graph(world: World, name: str, enclave: str, right: str, expected: set[str]) -> None:
    """All that a node has is allowed, once it has the `expected` names."""
    tester = world.tester
    listed = {
        "publish": tester.get_publisher_names_and_types_by_node,
        "subscribe": tester.get_subscriber_names_and_types_by_node,
        "reply": tester.get_service_names_and_types_by_node,
    }

    def names(right: str) -> list[str]:
        with suppress(NodeNameNonExistentError):  # DDS has not discovered it yet
            return [topic for topic, _ in listed[right](name, "/")]
        return []

    world.wait(lambda: expected <= set(names(right)), f"{expected} of {name}")
    assert {r: rejected(names(r), enclave, r, name) for r in listed} == dict.fromkeys(listed, [])


@pytest.mark.parametrize("compressed", [False, True])
def test_the_camera_node_may_do_what_it_does(world, compressed):
    remapped = REMAPPED | {"__node": NAME}
    rules = [part for rule in remapped.items() for part in ("-r", ":=".join(rule))]
    values = {"model": "painted.onnx", "mask_classes": "person", "compressed": compressed}
    camera = world.add(
        node.CameraNode(
            EnginePool(world.open_painted),
            parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
            cli_args=["--ros-args", *rules],
        )
    )
    world.wait(lambda: camera.status.state == "active", "the start")
    world.tester.create_subscription(TrackedObjectArray, f"/{NAME}/objects", print, 1)
    image, compressed_image, *others = REMAPPED.values()
    inputs = {compressed_image if compressed else image, *others}
    check_graph(world, NAME, "/video_knet", "subscribe", inputs)


def test_the_camera_may_do_what_the_video_source_does(world):
    overrides = [Parameter("source", value="synthetic")]
    cli_args = ["--ros-args", "-r", f"__node:={NAME}"]
    world.add(VideoSource(parameter_overrides=overrides, cli_args=cli_args))
    outputs = {"/camera/image_raw", "/camera/depth/image_raw", "/camera/camera_info", "/odometry"}
    check_graph(world, NAME, "/camera", "publish", outputs)


def test_nobody_may_do_more_than_needed():
    assert rejected(OTHERS, "/video_knet", "publish") == OTHERS
    assert rejected(OTHERS, "/video_knet", "reply") == OTHERS
    assert rejected(["/video_knet/objects"], "/camera", "publish") == ["/video_knet/objects"]
    assert allowed("/camera", "request") == allowed("/video_knet", "request") == []
