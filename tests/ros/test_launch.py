"""The launch file, where launch and launch_ros are: in a ROS 2 install, not among its wheels."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import RELIABLE
from video_knet_ros.msg import TrackedInstanceArray


def _has_launch() -> bool:
    """A folder called launch, like ours, imports as well; so ask for what is in the real one."""
    try:
        return importlib.util.find_spec("launch_ros.actions") is not None
    except ModuleNotFoundError:
        return False


pytestmark = pytest.mark.skipif(
    not _has_launch(), reason="launch_ros cannot be imported: it comes with a ROS 2 install"
)

FILE = Path(__file__).parents[2] / "launch" / "camera.launch.py"
RUNNER = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

source = PythonLaunchDescriptionSource(sys.argv[1])
arguments = [argument.split(":=", 1) for argument in sys.argv[2:]]
service = LaunchService(argv=sys.argv[2:])
include = IncludeLaunchDescription(source, launch_arguments=arguments)
service.include_launch_description(LaunchDescription([include]))
sys.exit(service.run())
"""


@pytest.fixture
def description():
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    return PythonLaunchDescriptionSource(str(FILE)).try_get_launch_description_without_context()


def processes(description, **arguments: str) -> dict:
    """The node actions that the launch file makes of `arguments`, by executable."""
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument

    context = LaunchContext()
    context.launch_configurations.update(arguments)
    for entity in description.entities:
        made = entity.visit(context)
        if not isinstance(entity, DeclareLaunchArgument):
            return {node.node_executable: node for node in made}
    raise AssertionError("the launch file starts nothing")


def test_every_argument_is_described(description):
    arguments = {a.name: a for a in description.get_launch_arguments()}
    expected = {"image", "params_file", "model", "backend", "compressed", "video", "rate", "loop"}
    assert expected <= set(arguments)
    assert all(len(a.description) > 10 for a in arguments.values())


def test_the_source_and_rviz_are_started_only_when_asked_for(description):
    assert set(processes(description)) == {"camera_node"}
    assert set(processes(description, video="0")) == {"camera_node", "video_source"}
    assert set(processes(description, rviz="true")) == {"camera_node", "rviz2"}


@pytest.mark.parametrize(
    ("environment", "ours"),
    [
        ({}, True),
        ({"RMW_IMPLEMENTATION": "rmw_fastrtps_cpp"}, True),
        ({"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}, False),
        ({"FASTRTPS_DEFAULT_PROFILES_FILE": "mine.xml"}, False),
    ],
)
def test_the_large_image_profile_is_for_fast_dds_users_without_their_own(
    description, monkeypatch, environment, ours
):
    for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "RMW_IMPLEMENTATION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for node in processes(description, video="0").values():
        set_variables = [
            "".join(part.text for part in name)
            for name, _ in node.process_description.additional_env or []
        ]
        assert (set_variables == ["FASTRTPS_DEFAULT_PROFILES_FILE"]) == ours


@pytest.mark.parametrize("loop", ["true", "false"])
def test_a_bag_is_played_with_its_own_clock_and_the_node_goes_by_it(loop):
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    source = PythonLaunchDescriptionSource(str(FILE.with_name("replay.launch.py")))
    description = source.try_get_launch_description_without_context()
    context = LaunchContext()
    context.launch_configurations.update({"bag": "drive", "loop": loop})
    for entity in description.entities:
        made = entity.visit(context)
        assert made is None or not isinstance(entity, DeclareLaunchArgument)
    camera, player = made
    assert camera.node_executable == "camera_node"
    words = ["".join(part.text for part in word) for word in player.process_description.cmd]
    wanted = ["ros2", "bag", "play", "drive", "--clock", "--rate", "1.0", "--delay", "5.0"]
    assert words == wanted + ["--loop"] * (loop == "true")


def test_masks_come_out_of_a_launched_video(world, tmp_path):
    tables: list[TrackedInstanceArray] = []
    world.tester.create_subscription(
        TrackedInstanceArray, "/robot/video_knet/instances", tables.append, RELIABLE
    )
    arguments = ["namespace:=robot", "video:=synthetic:2"]
    command = [sys.executable, "-c", RUNNER, str(FILE), *arguments]
    log = tmp_path / "launch.log"
    env = {**os.environ, "ROS_LOG_DIR": str(tmp_path)}
    with log.open("w") as output:
        launch = subprocess.Popen(command, env=env, stdout=output, stderr=output)
    try:
        world.wait(lambda: len(tables) >= 2, "tables", timeout=60)
        assert any(row.label for row in tables[-1].instances)
        launch.send_signal(signal.SIGINT)
        launch.wait(20)
        assert "process has died" not in log.read_text()
    finally:
        launch.kill()
        launch.wait()
