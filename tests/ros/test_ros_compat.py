"""The node with what the rclpy of ROS 2 Humble has. In this process, on Humble itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import image_message, street
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from video_knet_ros.msg import TrackedInstanceArray

from video_knet_ros import ros_compat

HERE = Path(__file__).parent
FILES = ("test_ros_compat.py", "test_node_outputs.py", "test_node_control.py")


@pytest.mark.slow
@pytest.mark.skipif(not ros_compat.HAS_MATCHED_EVENTS, reason="this is Humble already")
def test_the_node_does_the_same_with_the_rclpy_of_humble(ros):
    options = ["-q", "-p", "like_humble", "-p", "no:cacheprovider", "-p", "no:randomly"]
    files = [str(HERE / name) for name in FILES]
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    assert "this is Humble already" in done.stdout


def test_subscribers_come_and_go_and_get_results_only_while_they_are_there(world):
    world.camera_node()
    publisher = world.publisher()

    def published(processed: int) -> str:
        """What diagnostics count when `processed` images were processed."""
        message = image_message(street(processed), 1.0 + processed)
        publisher.publish(message)
        return world.report(lambda v: v["processed"] == str(processed))[2]["published instances"]

    assert published(1) == "0"
    subscription = world.tester.create_subscription(
        TrackedInstanceArray, "/video_knet/instances", (got := []).append, 10
    )
    world.wait(lambda: world.subscribers("instances") == 1, "the subscriber")
    assert published(2) == "1"
    world.wait(lambda: len(got) == 1, "a table")
    world.tester.destroy_subscription(subscription)
    world.wait(lambda: world.subscribers("instances") == 0, "the subscriber to leave")
    assert published(3) == "1"


def test_parameters_are_applied_once_they_are_set_and_not_if_one_is_rejected(world):
    camera = world.camera_node()
    applied: list[str] = []
    ros_compat.add_post_set_parameters_callback(
        camera, lambda changes: applied.extend(f"{c.name} {c.value}" for c in changes)
    )
    assert world.set_parameter("max_rate", 5.0).successful
    assert not world.set_parameter("max_rate", -1.0).successful
    both = [Parameter("rle", value=True), Parameter("max_rate", value=7.0)]
    request = SetParametersAtomically.Request(parameters=[p.to_parameter_msg() for p in both])
    assert world.call(SetParametersAtomically, "set_parameters_atomically", request)
    assert applied == ["max_rate 5.0", "rle True", "max_rate 7.0"]
    assert camera.get_parameter("max_rate").value == 7.0
