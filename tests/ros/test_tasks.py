"""One node for three tasks: each model gets the topics that its task makes sense of, over DDS."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="the models of these tests are made with onnx")

from bag_fixtures import block
from harness import image_message, stamps
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger
from tiny_onnx import TASKS, write_tiny_model
from video_knet_ros.msg import ClassMap, TrackedInstance

from video_knet_core import tasks
from video_knet_core.engine.selector import open_runtime
from video_knet_core.messages.result_messages import CLASS_MAP, LABEL_INFO, mask_from_rle
from video_knet_core.messages.topics import OUTPUTS
from video_knet_ros import cameras
from video_knet_ros.engines import EnginePool
from video_knet_ros.outputs import CONVERSIONS, LATCHED, has_type

LATCHED_TYPES = {"class_map": CLASS_MAP, "label_info": LABEL_INFO}


def topics_of(task: str) -> dict[str, str]:
    """Topic -> type of message, of those whose types are installed."""
    outputs = [OUTPUTS[name] for name in tasks.TASKS[task].outputs]
    found = {output.topic: output.type for output in outputs} | LATCHED_TYPES
    return {topic: kind for topic, kind in found.items() if has_type(kind)}


TOPICS = {task: set(topics_of(task)) for task in TASKS}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """A small model of each task."""
    folder = tmp_path_factory.mktemp("models")
    return {task: write_tiny_model(folder / f"{task}.onnx", task) for task in TASKS}


def open_on_cpu(path: Path, **options):
    return open_runtime(path, "onnxruntime-cpu", threads=1)


def advertised(world, name: str = "video_knet") -> set[str]:
    """Topics of a camera node, below its name."""
    found = world.tester.get_publisher_names_and_types_by_node(name, "/")
    own = {topic.removeprefix(f"/{name}/") for topic, _ in found if topic.startswith(f"/{name}/")}
    return own - {"transition_event"}  # every lifecycle node has it


def collect(world, task: str) -> dict[str, list]:
    """Messages of the outputs of a frame, by topic."""
    images = {o.topic for o in OUTPUTS.values() if not o.spatial}  # others need more than images
    topics = {t: kind for t, kind in topics_of(task).items() if t in images}
    return {topic: world.collect(CONVERSIONS.find(kind), topic) for topic, kind in topics.items()}


def drive(world, publisher, got: dict[str, list], numbers) -> list[int]:
    """Send images of a red block that moves; returns their stamps [ns] when all is received."""
    for number in numbers:
        publisher.publish(image_message(block(number), 10 + 0.1 * number))
        received = 1 + len(next(iter(got.values())))
        world.wait(lambda n=received: all(len(m) == n for m in got.values()), "all outputs")
    return [round((10 + 0.1 * number) * 1e9) for number in numbers]


def pixels(message: Image) -> np.ndarray:
    kind = {"16UC1": "<u2", "mono8": "u1"}[message.encoding]
    return np.frombuffer(message.data, kind).reshape(message.height, message.width)


def whole_mask(row: TrackedInstance, shape: tuple[int, int]) -> np.ndarray:
    """Mask of a row at its place in the image."""
    mask = np.zeros(shape, bool)
    mask[row.roi.y_offset :, row.roi.x_offset :][: row.roi.height, : row.roi.width] = mask_from_rle(
        row
    )
    return mask


@pytest.mark.parametrize("task", TASKS)
def test_a_node_has_the_topics_of_its_models_task_and_no_others(world, models, task):
    camera = world.camera_node(open_runtime=open_on_cpu, model=str(models[task]))
    world.wait(lambda: advertised(world) == TOPICS[task], f"{TOPICS[task]}")
    got = collect(world, task)
    sent = drive(world, world.publisher(), got, range(3))
    assert all(stamps(messages) == sent for messages in got.values())
    _, _, values = world.report(lambda v: v["processed"] == "3")
    made = {key.removeprefix("published ") for key in values if key.startswith("published ")}
    assert (
        made
        == {name for name in tasks.TASKS[task].outputs if OUTPUTS[name].topic in TOPICS[task]}
        | (LATCHED_TYPES.keys() & TOPICS[task])
        == set(camera.outputs.published)
    )
    assert values["task"] == task
    classes = world.collect(ClassMap, "class_map", LATCHED)
    world.wait(lambda: classes, "the class map, for one who comes late")
    assert [(c.name, c.is_thing) for c in classes[0].classes] == [
        (row["name"], row["is_thing"]) for row in TASKS[task].classes
    ]


def test_another_model_of_another_task_changes_the_topics(world, models):
    world.camera_node(open_runtime=open_on_cpu, model=str(models["panoptic"]))
    world.wait(lambda: advertised(world) == TOPICS["panoptic"], "the topics of the first")
    assert world.transition("deactivate") and world.transition("cleanup")
    assert world.set_parameter("model", str(models["semantic"])).successful
    assert world.transition("configure")
    world.wait(lambda: advertised(world) == TOPICS["semantic"], "the topics of the second")


def test_a_semantic_model_gives_each_pixel_a_class(world, models):
    world.camera_node(open_runtime=open_on_cpu, model=str(models["semantic"]))
    got = collect(world, "semantic")
    drive(world, world.publisher(), got, [4])
    (semantic,) = map(pixels, got["semantic/image"])
    assert semantic.shape == block(4).shape[:2] and set(np.unique(semantic)) == {0, 1, 2}
    assert (semantic[: len(semantic) // 2 - 1] == 0).all() and (semantic[35:40, 12:26] == 1).all()


def test_masks_that_overlap_arrive_whole_and_the_label_image_shows_the_one_in_front(world, models):
    world.camera_node(open_runtime=open_on_cpu, model=str(models["instance"]), rle=True)
    got = collect(world, "instance")
    drive(world, world.publisher(), got, range(4, 7))
    for table, message in zip(got["instances"], got["panoptic/image"], strict=True):
        labels = pixels(message)
        person, vehicle = table.instances
        assert (person.class_name, vehicle.class_name) == ("person", "vehicle")
        assert (person.track_id, vehicle.track_id) == (1, 2)
        masks = [whole_mask(row, labels.shape) for row in (person, vehicle)]
        assert [row.area for row in (person, vehicle)] == [mask.sum() for mask in masks]
        assert (masks[0] & masks[1]).sum() > 50, "they overlap"
        assert np.array_equal(labels == person.label, masks[0]), "in front"
        assert np.array_equal(labels == vehicle.label, masks[1] & ~masks[0])
        rows = np.flatnonzero(masks[1].any(axis=1))
        assert (vehicle.roi.y_offset, vehicle.roi.height) == (rows[0], np.ptp(rows) + 1)


@pytest.mark.parametrize("task", ["semantic", "instance"])
def test_a_snapshot_has_the_labels_and_the_rows_of_its_task(world, models, task, tmp_path):
    world.camera_node(
        open_runtime=open_on_cpu, model=str(models[task]), snapshot_folder=str(tmp_path)
    )
    got = collect(world, task)
    drive(world, world.publisher(), got, [4])
    folder = Path(world.call(Trigger, "save_snapshot", Trigger.Request()).message)
    labels = cv2.imread(str(folder / "labels.png"), cv2.IMREAD_UNCHANGED)
    rows = json.loads((folder / "table.json").read_text())["tracks"]
    assert {row["label"] for row in rows} == set(np.unique(labels)) - {0}
    hidden = sum(row["area"] for row in rows) - (labels > 0).sum()
    assert (hidden > 50) == (task == "instance")
    assert {row["track_id"] for row in rows} == {"semantic": {0}, "instance": {1, 2}}[task]


def test_cameras_of_one_process_may_have_models_of_different_tasks(world, models):
    made = cameras.create_cameras(list(TASKS), EnginePool(open_on_cpu))
    try:
        for camera in made:
            world.add(camera)
            name = camera.get_name()
            camera.set_parameters([Parameter("model", value=str(models[name]))])
        for task in TASKS:
            world.wait(lambda t=task: advertised(world, t) == TOPICS[t], f"the topics of {task}")
    finally:
        for camera in made:
            camera.destroy_node()
            world.executor.remove_node(camera)
