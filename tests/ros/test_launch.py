"""The launch files, where launch and launch_ros are: in a ROS 2 install, not among its wheels."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest
from harness import RELIABLE, TIMEOUT_S
from video_knet_ros.msg import TrackedInstanceArray

from video_knet_core.user_names import camera_topics


def _has_launch() -> bool:
    """A folder called launch, like ours, imports as well; so look for a module of the real one."""
    try:
        return importlib.util.find_spec("launch_ros.actions") is not None
    except ModuleNotFoundError:
        return False


pytestmark = pytest.mark.skipif(
    not _has_launch(), reason="launch_ros cannot be imported: it comes with a ROS 2 install"
)

FOLDER = Path(__file__).parents[2] / "launch"
CAMERA, CAMERAS = FOLDER / "camera.launch.py", FOLDER / "multi_camera.launch.py"
REPLAY = FOLDER / "replay.launch.py"
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


def description(file: Path):
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    return PythonLaunchDescriptionSource(str(file)).try_get_launch_description_without_context()


def processes(file: Path, **arguments: str) -> list:
    """The node actions that the launch file makes of `arguments`."""
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument

    context = LaunchContext()
    context.launch_configurations.update(arguments)
    for entity in description(file).entities:
        made = entity.visit(context)
        if not isinstance(entity, DeclareLaunchArgument):
            return made
    raise AssertionError("the launch file starts nothing")


def executables(file: Path, **arguments: str) -> list[str]:
    return [node.node_executable for node in processes(file, **arguments)]


def text(substitutions: Iterable) -> str:
    return "".join(part.text for part in substitutions)


def remappings(node) -> dict[str, str]:
    """The topics of a node action, by the names that it gives them."""
    pairs = [(text(name), text(topic)) for name, topic in node._Node__remappings]
    assert len(dict(pairs)) == len(pairs), "a name is remapped twice"
    return dict(pairs)


def parameters(node) -> dict[str, object]:
    """The parameters of a node action, without those of files, as the node reads them."""
    from launch import LaunchContext
    from launch_ros.utilities import evaluate_parameters

    found = evaluate_parameters(LaunchContext(), node._Node__parameters)
    return {name: value for each in found if isinstance(each, dict) for name, value in each.items()}


def inputs(image: str, base: str, odometry: str) -> dict[str, str]:
    """The inputs of a camera node whose images are on `image`, all others beside it in `base`."""
    return {
        "~/image": image,
        "~/image/compressed": f"{image}/compressed",
        "~/depth": f"{base}depth/image_raw",
        "~/depth/compressed": f"{base}depth/image_raw/compressedDepth",
        "~/depth/camera_info": f"{base}depth/camera_info",
        "~/camera_info": f"{base}camera_info",
        "~/odometry": odometry,
    }


def of_node(name: str, topics: dict[str, str]) -> dict[str, str]:
    """Remappings of one node of a process with several."""
    return {f"{name}:{own}": topic for own, topic in topics.items()}


class Launched:
    """A launch file that runs in a process of its own, until the test ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "launch.log"

    def start(self, file: Path, *arguments: str) -> None:
        command = [sys.executable, "-c", RUNNER, str(file), *arguments]
        env = {**os.environ, "ROS_LOG_DIR": str(self._folder)}
        with self._log.open("w") as output:
            self._process = subprocess.Popen(
                command, env=env, stdout=output, stderr=output, start_new_session=True
            )

    def end(self) -> str:
        """Interrupt it; what it has logged, when it ends by itself."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(TIMEOUT_S)
        return self._log.read_text()

    def kill(self) -> None:
        """End what is left of it, with its nodes; pytest shows the log of a test that failed."""
        with suppress(ProcessLookupError):  # all have ended
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        print(self._log.read_text())


@pytest.fixture
def launched(tmp_path):
    launched = Launched(tmp_path)
    yield launched
    launched.kill()


@pytest.mark.parametrize(
    ("file", "own"),
    [
        (CAMERA, {"image", "rviz", "video", "use_sim_time"}),
        (CAMERAS, {"image", "cameras", "video", "use_sim_time"}),
        (REPLAY, {"image", "bag", "delay"}),
    ],
    ids=["camera", "multi_camera", "replay"],
)
def test_every_argument_is_described(file, own):
    arguments = {a.name: a for a in description(file).get_launch_arguments()}
    shared = {"params_file", "model", "backend", "compressed", "rate", "loop"}
    shared |= {"depth", "cloud", "camera_info", "odometry", "target_frame"}
    assert own | shared | {"namespace", "log_level"} == set(arguments)
    assert all(len(a.description) > 10 for a in arguments.values())


def test_the_source_and_rviz_are_started_only_on_request(monkeypatch):
    from video_knet_ros import launching

    monkeypatch.setattr(launching, "get_package_prefix", lambda name: "/anywhere")
    assert executables(CAMERA) == ["camera_node"]
    assert executables(CAMERA, video="0") == ["camera_node", "video_source"]
    assert executables(CAMERA, rviz="true") == ["camera_node", "rviz2"]


def test_nothing_is_started_where_rviz_is_missing(monkeypatch):
    from ament_index_python.packages import PackageNotFoundError

    from video_knet_ros import launching

    def prefix(package: str) -> str:
        if package == "rviz2":
            raise PackageNotFoundError(package)
        return "/anywhere"

    monkeypatch.setattr(launching, "get_package_prefix", prefix)
    with pytest.raises(PackageNotFoundError, match="rviz2"):
        processes(CAMERA, rviz="true")


def test_one_process_serves_all_cameras_and_each_video_has_its_own():
    assert executables(CAMERAS) == ["cameras_node"]
    assert executables(CAMERAS, cameras="left, right,rear") == ["cameras_node"]
    assert executables(CAMERAS, video="synthetic") == ["cameras_node", *2 * ["video_source"]]


@pytest.mark.parametrize(
    ("file", "arguments", "words"),
    [
        (CAMERA, {"video": "0", "rate": "fast"}, "rate: expected a number"),
        (CAMERA, {"video": "0", "rate": "-1"}, "rate: expected a number, 0 or more"),
        (CAMERA, {"video": "0", "rate": "nan"}, "rate: expected a number, 0 or more"),
        (CAMERA, {"params_file": "no/such.yaml"}, "params_file: expected a file"),
        (REPLAY, {"bag": "drive", "rate": "0"}, "rate: expected a number, 0.01 or more"),
        (REPLAY, {"bag": "drive", "delay": "soon"}, "delay: expected a number"),
        (CAMERAS, {"cameras": "front,"}, "cameras: expected different names"),
        (CAMERAS, {"cameras": "front,front"}, "cameras: expected different names"),
        (CAMERAS, {"cameras": "front left"}, "cameras: expected different names"),
        (CAMERAS, {"cameras": "a,b,c", "video": "0,1"}, "one for each of a, b, c"),
    ],
)
def test_arguments_that_cannot_be_used_are_named_with_their_values(file, arguments, words):
    with pytest.raises(ValueError, match=words) as error:
        processes(file, **arguments)
    assert repr(list(arguments.values())[-1]) in str(error.value)


def test_a_name_that_is_almost_an_argument_is_logged(monkeypatch):
    from video_knet_ros import launching

    logged: list[str] = []

    class Logger:
        warning = staticmethod(logged.append)

    monkeypatch.setattr(launching, "get_logger", lambda name: Logger)
    processes(CAMERA, vidoe="0", of_another_file="1")
    (line,) = logged
    assert "'vidoe'" in line and "'video'" in line


@pytest.mark.parametrize("file, more", [(CAMERA, {}), (REPLAY, {"bag": "drive"})])
@pytest.mark.parametrize(
    ("image", "base"),
    [
        ("camera/image_raw", "camera/"),
        ("/front/image_color", "/front/"),
        ("/image", "/"),
        ("image", ""),
    ],
)
def test_inputs_of_a_camera_are_beside_its_images(file, more, image, base):
    camera = processes(file, image=image, **more)[0]
    assert remappings(camera) == inputs(image, base, "odometry")


@pytest.mark.parametrize("file, more", [(CAMERA, {}), (REPLAY, {"bag": "drive"})])
def test_each_input_of_a_camera_may_be_elsewhere(file, more):
    topics = {"cloud": "/lidar/points", "camera_info": "/info", "odometry": "/wheels"}
    camera = processes(file, depth="/stereo/depth/image", **topics, **more)[0]
    assert remappings(camera) == {
        "~/image": "camera/image_raw",
        "~/image/compressed": "camera/image_raw/compressed",
        "~/depth": "/stereo/depth/image",
        "~/depth/compressed": "/stereo/depth/image/compressedDepth",
        "~/depth/camera_info": "/stereo/depth/camera_info",
        "~/camera_info": "/info",
        "~/cloud": "/lidar/points",
        "~/odometry": "/wheels",
    }


def test_inputs_of_each_of_several_cameras_are_beside_its_images():
    expected = of_node("front", inputs("front/image_raw", "front/", "front/odometry"))
    expected |= of_node("rear", inputs("rear/image_raw", "rear/", "rear/odometry"))
    assert remappings(processes(CAMERAS)[0]) == expected


def test_the_name_of_each_camera_may_be_in_any_topic():
    node = processes(
        CAMERAS,
        image="/CAMERA/color/image_raw",
        depth="/CAMERA/aligned/CAMERA_depth",
        cloud="/lidar/points",
        camera_info="/calibration/CAMERA",
        odometry="/wheels",
    )[0]
    expected: dict[str, str] = {}
    for name in ("front", "rear"):
        topics = {
            "~/image": f"/{name}/color/image_raw",
            "~/image/compressed": f"/{name}/color/image_raw/compressed",
            "~/depth": f"/{name}/aligned/{name}_depth",
            "~/depth/compressed": f"/{name}/aligned/{name}_depth/compressedDepth",
            "~/depth/camera_info": camera_topics(f"/{name}/aligned/{name}_depth")[1],
            "~/camera_info": f"/calibration/{name}",
            "~/cloud": "/lidar/points",
            "~/odometry": "/wheels",
        }
        expected |= of_node(name, topics)
    assert remappings(node) == expected


@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        (CAMERA, {"video": "0"}),
        (CAMERA, {"video": "0", "image": "/front/color"}),
        (CAMERAS, {"video": "0"}),
        (CAMERAS, {"video": "0", "image": "/CAMERA/color", "cameras": "left,right"}),
        (CAMERAS, {"video": "0", "odometry": "/CAMERA/wheels", "depth": "CAMERA/z"}),
        (CAMERA, {"video": "0", "odometry": "/wheels", "depth": "/z", "camera_info": "/info"}),
    ],
)
def test_a_camera_node_is_subscribed_to_all_topics_of_its_source(file, arguments):
    camera, *sources = processes(file, **arguments)
    subscribed = set(remappings(camera).values())
    for source in sources:
        assert set(remappings(source).values()) <= subscribed


@pytest.mark.parametrize("file", [CAMERA, CAMERAS])
def test_the_frame_of_positions_is_that_of_the_parameter_file_unless_it_is_given(file):
    assert "target_frame" not in parameters(processes(file)[0])
    assert parameters(processes(file, target_frame="odom")[0])["target_frame"] == "odom"


def test_files_may_be_named_by_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text("/**:\n  ros__parameters:\n    max_rate: 5.0\n")
    assert executables(CAMERA, params_file="~/mine.yaml") == ["camera_node"]
    _, player = processes(REPLAY, bag="~/drive")
    assert str(tmp_path / "drive") in [text(word) for word in player.process_description.cmd]


@pytest.mark.parametrize(
    ("environment", "ours"),
    [
        ({}, True),
        ({"RMW_IMPLEMENTATION": "rmw_fastrtps_cpp"}, True),
        ({"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}, False),
        ({"FASTRTPS_DEFAULT_PROFILES_FILE": "mine.xml"}, False),
        ({"FASTDDS_DEFAULT_PROFILES_FILE": "mine.xml"}, False),
    ],
)
def test_the_large_image_profile_is_for_fast_dds_users_without_their_own(
    monkeypatch, environment, ours
):
    from video_knet_ros import ros_compat

    for name in (*ros_compat.PROFILES_VARIABLES, "RMW_IMPLEMENTATION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for node in processes(CAMERA, video="0") + processes(CAMERAS, video="0"):
        set_variables = [text(name) for name, _ in node.process_description.additional_env or []]
        assert set_variables == [ros_compat.PROFILES_VARIABLE] * ours


def test_a_bag_without_a_delay_begins_at_once():
    _, player = processes(REPLAY, bag="drive", delay="0")
    assert "--delay" not in [text(word) for word in player.process_description.cmd]


@pytest.mark.parametrize("loop", ["true", "false"])
def test_a_bag_is_played_with_its_own_clock_and_the_node_goes_by_it(loop):
    camera, player = processes(REPLAY, bag="drive", loop=loop)
    assert camera.node_executable == "camera_node"
    words = [text(word) for word in player.process_description.cmd]
    expected = ["ros2", "bag", "play", "drive", "--clock", "--rate", "1.0", "--delay", "5.0"]
    assert words == expected + ["--loop"] * (loop == "true")


def subscribe(world, topic: str) -> list[TrackedInstanceArray]:
    got: list[TrackedInstanceArray] = []
    world.tester.create_subscription(TrackedInstanceArray, topic, got.append, RELIABLE)
    return got


def test_masks_come_out_of_a_launched_video(world, launched):
    tables = subscribe(world, "/robot/video_knet/instances")
    launched.start(CAMERA, "namespace:=robot", "video:=synthetic:2")
    world.wait(lambda: len(tables) >= 2, "tables")
    assert any(row.label for row in tables[-1].instances)
    assert "process has died" not in launched.end()


def test_masks_come_out_of_all_launched_cameras(world, launched):
    tables = {name: subscribe(world, f"/robot/{name}/instances") for name in ("front", "rear")}
    launched.start(
        CAMERAS, "namespace:=robot", "image:=CAMERA/color", "video:=synthetic:1,synthetic:2"
    )
    world.wait(lambda: all(len(got) >= 2 for got in tables.values()), "tables")
    for name, got in tables.items():
        assert got[-1].header.frame_id == name
        assert any(row.label for row in got[-1].instances)
        subscriptions = world.tester.get_subscriptions_info_by_topic(f"/robot/{name}/color")
        assert [(s.node_namespace, s.node_name) for s in subscriptions] == [("/robot", name)]
    log = launched.end()
    assert "process has died" not in log
    started = re.findall(r"\[(\w+)-\d+\]: process started", log)
    assert sorted(started) == ["cameras_node", "video_source", "video_source"]
