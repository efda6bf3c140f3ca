"""The executables as users run them: processes of their own, real DDS, the shipped model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from ament_index_python.packages import get_package_prefix
from harness import RELIABLE, TIMEOUT_S, World, image_message, reserved_domain, stamps, street
from sensor_msgs.msg import Image
from video_knet_ros.msg import TrackedInstanceArray

from video_knet_core.engine.selector import default_model_path
from video_knet_core.messages.result_messages import nanoseconds

ROOT = Path(__file__).parents[2]
NODE, SOURCE = "video_knet_ros.node", "video_knet_ros.video_source"


class Processes:
    """Starts executables and ends those that still run; their output goes to files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[subprocess.Popen] = []

    def start(self, module: str, *ros_args: str, **variables: str) -> subprocess.Popen:
        code = f"import sys; from {module} import main; sys.exit(main())"
        command = [sys.executable, "-c", code, "--ros-args", *ros_args]
        with self.log(module).open("w") as log:
            path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
            env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **variables}
            process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
        self._running.append(process)
        return process

    def log(self, module: str) -> Path:
        return self._folder / f"{module}.log"

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()


@pytest.fixture
def processes(ros, tmp_path):
    processes = Processes(tmp_path)
    yield processes
    processes.close()


@pytest.fixture
def video(tmp_path) -> Path:
    """A folder with eight images of a moving block."""
    folder = tmp_path / "video"
    folder.mkdir()
    for i in range(8):
        image = np.full((90, 160, 3), 90, np.uint8)
        image[50:70, 10 * i : 10 * i + 30] = (20, 20, 160)
        cv2.imwrite(str(folder / f"{i}.png"), image)
    return folder


def test_no_other_test_run_on_this_machine_gets_the_same_domain(ros):
    own = int(os.environ["ROS_DOMAIN_ID"])
    with pytest.raises(RuntimeError, match="free ROS domain"), reserved_domain(lambda: own):
        pass


def subscribe(world: World, kind: type, topic: str) -> list:
    got: list = []
    world.tester.create_subscription(kind, topic, got.append, RELIABLE)
    return got


@pytest.mark.slow
def test_source_and_node_with_the_shipped_model(world, processes, video):
    images = subscribe(world, Image, "/camera/image_raw")
    tables = subscribe(world, TrackedInstanceArray, "/video_knet/instances")
    panoptic = subscribe(world, Image, "/video_knet/panoptic/image")
    camera = processes.start(
        NODE, "-r", "~/image:=/camera/image_raw", "-p", f"model:={default_model_path()}"
    )
    source = processes.start(SOURCE, "-p", f"source:={video}", "-p", "rate:=10")
    some = images, tables, panoptic  # on a busy machine any of the three may be found last
    world.wait(lambda: all(len(found) >= 3 for found in some), "results")
    by_stamp = dict(zip(stamps(panoptic), panoptic, strict=True))
    shared = [t for t in tables if nanoseconds(t.header.stamp) in by_stamp]
    assert len(shared) >= 2
    for table in shared:
        message = by_stamp[nanoseconds(table.header.stamp)]
        labels = np.frombuffer(message.data, "<u2").reshape(90, 160)
        found = dict(zip(*np.unique(labels, return_counts=True), strict=True))
        found.pop(0, None)
        assert found == {row.label: row.area for row in table.instances if row.label}
        assert table.latency_ms > table.inference_ms > 0
    seen = [stamp for stamp in stamps(tables) if stamp >= stamps(images)[0]]
    world.wait(lambda: set(seen) <= set(stamps(images)), "the images of all tables")
    assert stamps(images) == sorted(set(stamps(images))), "stamps of a camera only grow"
    for process in (camera, source):
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0


@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [
        (SOURCE, ("-p", "source:=no/such/video.mp4"), "no video 'no/such/video.mp4'"),
        (SOURCE, ("-r", "image:=bad//topic"), "Couldn't parse remap rule: '-r image:=bad//topic'"),
        (NODE, ("-p", "threads:=0"), "Parameter threads out of range"),
        (NODE, ("-p", "use_sim_time:=perhaps"), "use_sim_time"),
        (NODE, ("-r", "__ns:=/robot/"), "invalid node namespace"),
    ],
)
def test_arguments_that_cannot_be_used_end_the_process_in_one_line(
    processes, module, arguments, words
):
    assert processes.start(module, *arguments).wait(TIMEOUT_S) == 1
    lines = processes.log(module).read_text().strip().splitlines()
    assert words in lines[-1]
    assert len(lines) == 1 or "-r" in arguments, "rclpy adds lines of its own to a bad remapping"


def test_a_video_that_ends_ends_its_process(world, processes, video):
    images = subscribe(world, Image, "/camera/image_raw")
    process = processes.start(
        SOURCE, "-p", f"source:={video}", "-p", "rate:=50", "-p", "loop:=false"
    )
    world.wait(lambda: process.poll() is not None, "the end")
    assert process.returncode == 0
    assert "the video has ended" in processes.log(SOURCE).read_text()
    assert len(images) <= 8


@pytest.mark.parametrize("name", ["camera_node", "cameras_node", "video_source"])
def test_ctrl_c_while_an_executable_is_loaded_is_silent(name, tmp_path):
    (tmp_path / "rclpy.py").write_text("import signal; signal.raise_signal(signal.SIGINT)")
    command = [Path(get_package_prefix("video_knet_ros"), "lib/video_knet_ros", name), "front"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ['PYTHONPATH']}"}
    ended = subprocess.run(command, env=environment, capture_output=True, timeout=TIMEOUT_S)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, b"")


@pytest.mark.slow
def test_ctrl_c_again_and_again_ends_a_process_as_one_does(world, processes):
    process = processes.start(SOURCE)
    log = processes.log(SOURCE)
    world.wait(lambda: "images/s on" in log.read_text(), "the start")

    def ended() -> bool:
        process.send_signal(signal.SIGINT)
        return process.poll() is not None

    world.wait(ended, "the end")
    assert process.returncode == 0 and "Traceback" not in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "endings"),
    [
        *((fault, [signal.SIGINT]) for fault in ("open", "step", "close", "close raises")),
        ("step", [signal.SIGTERM]),
        ("close", [signal.SIGINT, signal.SIGINT]),
    ],
)
def test_a_process_ends_whatever_its_engine_does(world, processes, fault, endings):
    process = processes.start("faulty_node", FAULT=fault)
    log = processes.log("faulty_node")
    camera_topic = world.tester.create_publisher(Image, "/video_knet/image", RELIABLE)
    if fault == "open":
        world.wait(lambda: "opening" in log.read_text(), "the opening")
    else:
        world.wait(camera_topic.get_subscription_count, "the subscription")
        image = image_message(street())
        world.wait(lambda: camera_topic.publish(image) or "in a step" in log.read_text(), "a step")
    for ending in endings:
        process.send_signal(ending)
    assert process.wait(TIMEOUT_S) == 0
    text = log.read_text()
    assert "Traceback" not in text
    reason = "the GPU is gone" if fault == "close raises" else "busy for"
    assert sum(reason in line for line in text.splitlines()) >= 1
