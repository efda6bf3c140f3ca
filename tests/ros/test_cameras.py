"""Several cameras in one process: one engine, tracks of their own, turns for all."""

from __future__ import annotations

import numpy as np
import pytest
from harness import RELIABLE, PaintedRuntime, image_message, street
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.exceptions import InvalidNodeNameException
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import Image
from video_knet_ros.msg import TrackedInstanceArray

from video_knet_core.engine.selector import open_runtime
from video_knet_ros import cameras, lifecycle, node
from video_knet_ros.engines import EnginePool


class Rig:
    """Cameras of one process, each with a publisher of images and what came out of it."""

    def __init__(self, world, *names: str) -> None:
        self.world, self.progress = world, []
        made = cameras.create_cameras(names, EnginePool(lambda *a, **k: self.open(*a, **k)))
        self.nodes = {camera.get_name(): camera for camera in made}
        for camera in made:
            world.add(camera)
        self.tables: dict[str, list] = {name: [] for name in names}
        for name, got in self.tables.items():
            world.tester.create_subscription(
                TrackedInstanceArray, f"/{name}/instances", got.append, RELIABLE
            )
        self.topics = {
            name: world.tester.create_publisher(Image, f"/{name}/image", RELIABLE) for name in names
        }
        for name in names:
            self.wait_for(name)

    def wait_for(self, name: str) -> None:
        """Wait until the camera and this test have found each other, for good."""

        def connected() -> bool:
            found = self.world.tester.get_subscriptions_info_by_topic(f"/{name}/image")
            reliable = [s.qos_profile.reliability for s in found] == [ReliabilityPolicy.RELIABLE]
            outputs = self.nodes[name].outputs
            reader = outputs is not None and outputs.subscribers["instances"] > 0
            return reliable and reader and self.topics[name].get_subscription_count() > 0

        self.world.wait(connected, f"camera {name}")

    def open(self, path, progress, **options) -> PaintedRuntime:
        self.progress.append(progress)
        return self.world.open_painted(path, **options)

    def send(self, name: str, pixels, stamp: float) -> TrackedInstanceArray:
        before = len(self.tables[name])
        self.topics[name].publish(image_message(pixels, stamp))
        self.world.wait(lambda: len(self.tables[name]) > before, f"a table of {name}")
        return self.tables[name][-1]

    def close(self) -> None:
        for each in self.nodes.values():
            each.destroy_node()
            self.world.executor.remove_node(each)


@pytest.fixture
def rig(world):
    rig = Rig(world, "front", "rear")
    yield rig
    for runtime in world.runtimes:
        runtime.gate.set()
    rig.close()


def test_cameras_share_an_engine_and_have_tracks_of_their_own(world, rig):
    assert len(world.runtimes) == 1
    for i in range(3):
        front = rig.send("front", street(i), 1 + 0.1 * i)
    rear = rig.send("rear", street(0), 50.0)
    assert {r.age for r in front.instances if r.is_thing} == {3}
    assert {r.age for r in rear.instances if r.is_thing} == {1}
    assert front.sequence == 2 and rear.sequence == 0
    assert len(world.runtimes[0].threads) == 1, "the engine lives in one thread"


def test_each_camera_gets_the_native_size_that_is_nearest_to_its_images(world, tmp_path):
    pytest.importorskip("onnx", reason="the model of this test is made with onnx")
    from tiny_onnx import HEIGHT, WIDE, WIDTH, write_two_sizes

    path = write_two_sizes(tmp_path / "two.onnx")

    class TwoSizes(Rig):
        def open(self, _, progress, background, **options):
            return open_runtime(path, "onnxruntime-cpu", 1, background, progress)

    rig = TwoSizes(world, "front", "rear")
    try:
        runtime = rig.nodes["rear"].worker.opened.result().runtime
        images = {"front": (HEIGHT, WIDTH), "rear": (50, 250)}
        ids: dict[str, set] = {name: set() for name in images}
        for number in range(4):
            for name, size in images.items():
                table = rig.send(name, np.full((*size, 3), 255, np.uint8), 1 + 0.1 * number)
                ids[name] |= {r.track_id for r in table.instances if r.is_thing}
            world.wait(lambda: runtime._others[WIDE].done(), "the second engine")
        assert runtime._serving.info.sizes == (WIDE,)
        assert rig.nodes["front"].worker.opened.result().runtime is runtime
        assert [len(found) for found in ids.values()] == [1, 1], "ids persist"
    finally:
        rig.close()


def test_all_cameras_get_the_progress_of_the_build_of_their_engine(world, rig):
    (progress,) = rig.progress
    progress("tensorrt: building", 0.4)
    for name in ("front", "rear"):
        words = world.report(lambda v: v["engine_build"], name=f"/{name}")[2]["engine_build"]
        assert words == "tensorrt: building 40%"


def test_the_engine_stays_open_until_its_last_camera_is_cleaned_up(world, rig):
    (engine,) = world.runtimes
    for name in ("front", "rear"):
        assert not engine.closed
        rig.nodes[name].trigger_deactivate()
        rig.nodes[name].trigger_cleanup()
    assert engine.closed
    rig.nodes["front"].trigger_configure()
    assert len(world.runtimes) == 2 and not world.runtimes[1].closed


def test_a_fast_camera_does_not_keep_a_slow_one_from_its_turn(world, rig):
    (engine,) = world.runtimes
    engine.gate.clear()
    rig.topics["front"].publish(image_message(street(1), 1.0))
    world.wait(lambda: engine.seen, "inference to begin")
    rig.topics["front"].publish(image_message(street(2), 1.1))
    world.wait(lambda: rig.nodes["front"].counts.received == 2, "the second image")
    rig.topics["rear"].publish(image_message(street(100), 1.1))
    world.wait(lambda: rig.nodes["rear"].counts.received == 1, "the slow camera's image")
    for i in range(3, 9):
        rig.topics["front"].publish(image_message(street(i), 1 + 0.1 * i))
        world.wait(lambda i=i: rig.nodes["front"].counts.received == i, f"image {i}")
    engine.gate.set()
    world.wait(lambda: len(engine.seen) == 3, "three images")
    assert engine.seen == [1, 8, 100]
    assert rig.nodes["front"].counts.skipped == 6 and rig.nodes["rear"].counts.skipped == 0


def transition(world, name: str, label: str):
    """Future of the response of a camera to a lifecycle transition."""
    request = ChangeState.Request(transition=Transition(label=label))
    return world.request(ChangeState, f"/{name}/change_state", request)


def make(world, name: str, *labels: str) -> None:
    for label in labels:
        future = transition(world, name, label)
        world.wait(future.done, f"{label} of {name}")
        assert future.result().success, label


def test_an_engine_that_hangs_harms_only_its_own_cameras_and_a_new_one_can_be_had(
    world, rig, monkeypatch
):
    monkeypatch.setattr(lifecycle, "CLOSE_WAIT_S", 0.3)
    make(world, "rear", "deactivate", "cleanup")
    rig.nodes["rear"].set_parameters([node.Parameter("threads", value=3)])
    make(world, "rear", "configure", "activate")
    hung, _ = world.runtimes
    hung.gate.clear()
    rig.topics["front"].publish(image_message(street(1), 1.0))
    world.wait(lambda: hung.seen, "inference to begin")
    rig.wait_for("rear")
    rig.send("rear", street(1), 1.0)
    make(world, "front", "deactivate", "cleanup", "configure", "activate")
    assert len(world.runtimes) == 3, "a hung engine is not shared"
    rig.wait_for("front")
    rig.send("front", street(2), 1.1)
    hung.gate.set()
    world.wait(lambda: hung.closed, "the hung engine to be closed")


def test_a_name_that_cannot_be_one_is_rejected_and_leaves_no_camera(world, monkeypatch):
    destroyed = []
    destroy = node.CameraNode.destroy_node
    monkeypatch.setattr(
        node.CameraNode, "destroy_node", lambda n: (destroyed.append(n.get_name()), destroy(n))
    )
    with pytest.raises(InvalidNodeNameException):
        cameras.create_cameras(["front", "rear camera"], EnginePool(world.open_painted))
    assert destroyed == ["front"]


BAD_ARGUMENTS = [[], ["front", "front"], ["front", "--ros-args", "-r", "image:=bad//topic"]]


@pytest.mark.parametrize("names", BAD_ARGUMENTS)
def test_the_executable_requires_names_that_differ_and_valid_ros_arguments(names, capsys):
    with pytest.raises(SystemExit) as end:
        cameras.main(["cameras_node", *names])
    assert end.value.code == 2
    assert "usage: cameras_node" in capsys.readouterr().err
