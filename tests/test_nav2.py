"""The files of config/nav2: names and types as Nav2 declares them, and messages as it takes them.

Nav2 itself does not run here. What is compared with was read in its sources, navigation2 of
2026-08-21 and semantic_segmentation_layer of 2026-04-02.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from video_knet_core.bags.definitions import conversions
from video_knet_core.config import ModelConfig
from video_knet_core.config_io import load_yaml
from video_knet_core.data.frame_source import Intrinsics, View
from video_knet_core.data.frames import open_frames
from video_knet_core.engine.selector import default_model_path, open_runtime
from video_knet_core.geometry import LabelMap, Regions
from video_knet_core.messages.result_messages import FrameToPublish
from video_knet_core.messages.topics import OUTPUTS
from video_knet_core.predictor import VideoPredictor
from video_knet_core.spatial.locator import ObjectLocator
from video_knet_core.spatial.points import POINT_DTYPE
from video_knet_core.spatial.settings import SpatialSettings
from video_knet_core.types import (
    NO_CLASS,
    PanopticFrame,
    StageTimes,
    TrackTable,
    rows_without_track,
)

REPO = Path(__file__).parents[1]
FILES = sorted((REPO / "config" / "nav2").glob("*.yaml"))
PARAMETERS = {file.stem: yaml.safe_load(file.read_text()) for file in FILES}
COSTMAP = ("local_costmap", "local_costmap", "ros__parameters")
STREET = load_yaml(ModelConfig, REPO / "config" / "models" / "street.yaml").classes


def parameters(stem: str, *path: str) -> dict[str, Any]:
    """The parameters of a file below a path of keys."""
    found = PARAMETERS[stem]
    for key in path:
        found = found[key]
    return found


LAYER = parameters("semantic_costmap", *COSTMAP, "semantic_layer")
CAMERA = LAYER[LAYER["observation_sources"]]


# --- the files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_names_only_topics_of_the_node(file: Path):
    named = set(re.findall(r"/video_knet/([\w/]+)", file.read_text()))
    assert named and named <= {"label_info"} | {output.topic for output in OUTPUTS.values()}


INFLATION = {"plugin": str, "inflation_radius": float, "cost_scaling_factor": float}
OBSERVATIONS = {
    **{"topic": str, "data_type": str, "sensor_frame": str, "marking": bool, "clearing": bool},
    **{"min_obstacle_height": float, "max_obstacle_height": float, "obstacle_max_range": float},
    **{"raytrace_max_range": float, "expected_update_rate": float},
}
SEGMENTATION = {
    **{"segmentation_topic": str, "confidence_topic": str, "labels_topic": str},
    **{"pointcloud_topic": str, "max_obstacle_distance": float, "min_obstacle_distance": float},
    **{"tile_map_decay_time": float, "use_cost_selection": bool, "class_types": list},
}
CLASS_TYPE = {
    **{"classes": list, "base_cost": int, "max_cost": int, "mark_confidence": int},
    **{"samples_to_max_cost": int, "dominant_priority": bool},
}
POLYGON = {
    **{"type": str, "points": str, "action_type": str, "min_points": int, "visualize": bool},
    **{"polygon_pub_topic": str, "slowdown_ratio": float},
}
DECLARED: dict[str, dict[str, Any]] = {
    "local_costmap": {
        "plugins": list,
        "obstacle_layer": {
            **{"plugin": str, "enabled": bool, "observation_sources": str},
            **{"obstacles": OBSERVATIONS, "free_space": OBSERVATIONS},
        },
        "inflation_layer": INFLATION,
    },
    "semantic_costmap": {
        "plugins": list,
        "semantic_layer": {
            **{"plugin": str, "enabled": bool, "use_approximate_time_sync": bool},
            **{"observation_sources": str},
            "camera": SEGMENTATION | dict.fromkeys(CAMERA["class_types"], CLASS_TYPE),
        },
        "inflation_layer": INFLATION,
    },
    "collision_monitor": {
        **{"base_frame_id": str, "odom_frame_id": str, "state_topic": str},
        **{"cmd_vel_in_topic": str, "cmd_vel_out_topic": str, "transform_tolerance": float},
        **{"source_timeout": float, "polygons": list, "observation_sources": list},
        **{"stop": POLYGON, "slow": POLYGON},
        "camera": {"type": str, "topic": str, "min_height": float, "max_height": float},
    },
    "following": {
        **{"base_frame": str, "fixed_frame": str, "odom_topic": str, "desired_distance": float},
        **{"detection_timeout": float, "skip_orientation": bool, "search_by_rotating": bool},
        **{"rotate_to_object_timeout": float, "static_object_timeout": float, "max_retries": int},
        **{"filter_coef": float, "transform_tolerance": float},
        "controller": {
            **{"use_collision_detection": bool, "v_linear_max": float, "v_angular_max": float},
        },
    },
}
"""Parameters that Nav2 declares, with their types: a server ends at start if one has another."""


def misfits(found: dict[str, Any], declared: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, value in found.items():
        kind = declared.get(name)
        if isinstance(kind, dict) and isinstance(value, dict):
            yield from misfits(value, kind, f"{path}{name}.")
        elif type(value) is not kind:
            yield f"{path}{name}: expected {kind}, got {value!r}"


@pytest.mark.parametrize("stem", DECLARED)
def test_parameters_have_the_names_and_types_that_nav2_declares(stem: str):
    found = PARAMETERS[stem]
    while "ros__parameters" not in found:
        (found,) = found.values()
    assert not list(misfits(found["ros__parameters"], DECLARED[stem]))


def test_every_file_is_checked():
    assert set(PARAMETERS) == set(DECLARED)


@pytest.mark.parametrize("stem", ["local_costmap", "semantic_costmap"])
def test_every_plugin_and_source_of_a_costmap_is_configured(stem: str):
    found = parameters(stem, *COSTMAP)
    assert set(found) == {"plugins", *found["plugins"]}
    layer = found[found["plugins"][0]]
    assert set(layer["observation_sources"].split()) <= set(layer)


def test_obstacles_mark_and_free_space_clears():
    layer = parameters("local_costmap", *COSTMAP, "obstacle_layer")
    obstacles, free = layer["obstacles"], layer["free_space"]
    assert (obstacles["marking"], obstacles["clearing"]) == (True, False)
    assert (free["marking"], free["clearing"]) == (False, True)
    assert free["min_obstacle_height"] < 0 < free["max_obstacle_height"], "the ground is at 0"
    assert free["raytrace_max_range"] > obstacles["obstacle_max_range"], "all marks are cleared"


def test_each_class_of_the_street_model_has_one_cost():
    assert len(CAMERA["class_types"]) == len(set(CAMERA["class_types"]))
    classes = [name for kind in CAMERA["class_types"] for name in CAMERA[kind]["classes"]]
    assert sorted(classes) == sorted(info.name for info in STREET)


def test_things_are_lethal_and_ground_is_free():
    cost = {n: CAMERA[k]["max_cost"] for k in CAMERA["class_types"] for n in CAMERA[k]["classes"]}
    assert {cost[info.name] for info in STREET if info.is_thing} == {254}
    assert cost["road"] == cost["sidewalk"] == 0


# --- messages, as the semantic segmentation layer takes them -------------------------------------

CONVERT = conversions()
STAMP = 1_000_000_007
STRIDE = 2


def header(stamp: int = STAMP) -> Any:
    return CONVERT.make("std_msgs/msg/Header", stamp=CONVERT.time_message(stamp), frame_id="camera")


def frame_of(class_map: np.ndarray) -> PanopticFrame:
    """A frame with these classes [H, W], 255 = none, in one segment for each class."""
    class_ids = np.array([c for c in np.unique(class_map) if c != NO_CLASS], np.int64)
    labels = np.zeros(class_map.shape, np.uint16)
    for label, class_id in enumerate(class_ids, start=1):
        labels[class_map == class_id] = label
    count = len(class_ids)
    regions = Regions(
        boxes=np.zeros((count, 4), np.int64),
        centroids=np.zeros((count, 2)),
        areas=np.ones(count, np.int64),
        truncated=np.zeros(count, bool),
    )
    rows = rows_without_track(class_ids, np.full(count, 0.8), regions, STAMP, is_thing=False)
    rows["label"] = 1 + np.arange(count)
    times = StageTimes(0, 0, 0, 0)
    return PanopticFrame(STAMP, LabelMap.of(labels), TrackTable(rows), (), (), 1, times)


def camera_info(height: int, width: int, camera: Intrinsics) -> Any:
    """The message of a camera, for images of this size."""
    k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
    region = CONVERT.make(
        "sensor_msgs/msg/RegionOfInterest",
        **dict.fromkeys(("x_offset", "y_offset", "height", "width"), 0),
        do_rectify=False,
    )
    return CONVERT.make(
        "sensor_msgs/msg/CameraInfo",
        **{"header": header(), "height": height, "width": width, "roi": region},
        **{"distortion_model": "", "d": np.zeros(0), "k": np.array(k), "r": np.eye(3).ravel()},
        **{"p": np.zeros(12), "binning_x": 0, "binning_y": 0},
    )


def located(
    frame: PanopticFrame, view: View, camera: Intrinsics, stamp: int = STAMP
) -> FrameToPublish:
    """A result in space, as the node has it with `semantic_size: "cloud"`."""
    assert view.depth is not None
    settings = SpatialSettings(semantic_size="cloud", point_stride=STRIDE)
    locator = ObjectLocator(STREET, settings)
    locator.inputs.add_camera_info(camera_info(*view.depth.shape, camera))
    locator.inputs.add_depth(CONVERT.image_message(header(), "32FC1", view.depth))
    spatial = locator.locate(frame, view.image, "camera", STAMP)
    return FrameToPublish(
        header(stamp),
        view.image,
        frame,
        STREET,
        sequence=0,
        skipped=0,
        spatial=spatial,
        semantic_size=spatial.semantic_size,
    )


def result_of(class_map: np.ndarray, depth: np.ndarray, stamp: int = STAMP) -> FrameToPublish:
    """A result with classes [H, W] and the depth [H, W] of the same pixels in metres, 0 = none.

    The field of view is 90 degrees.
    """
    height, width = class_map.shape
    camera = Intrinsics(width / 2, width / 2, (width - 1) / 2, (height - 1) / 2)
    view = View(np.zeros((height, width, 3), np.uint8), STAMP, depth.astype(np.float32))
    return located(frame_of(class_map), view, camera, stamp)


def messages_of(result: FrameToPublish) -> dict[str, Any]:
    """Arguments of `check_as_segmentation_layer`."""
    return {
        "mask": OUTPUTS["semantic"].make(CONVERT, result),
        "confidence": OUTPUTS["confidence"].make(CONVERT, result),
        "cloud": OUTPUTS["points"].make(CONVERT, result),
        "label_info": CONVERT.label_info(header(), STREET),
        "source": CAMERA,
    }


def check_as_segmentation_layer(
    mask: Any, confidence: Any, cloud: Any, label_info: Any, source: dict[str, Any]
) -> dict[tuple[int, int], tuple[str, int]]:
    """Class name and confidence of each cell of 1 m, as the layer would observe them.

    Cells are counted forward and to the left of a camera that looks ahead over flat ground. An
    AssertionError is what the layer would log, skip, or read outside of the message: it never looks
    at encodings, steps, or the size of the confidence (`createSegmentationCostMultimap`,
    `syncSegmConfPointcloudCb` and `bufferSegmentation`).
    """
    max_cost = {
        n: source[t]["max_cost"] for t in source["class_types"] for n in source[t]["classes"]
    }
    names = {row.class_id: row.class_name for row in label_info.class_map}
    assert set(names.values()) <= set(max_cost), "CRITICAL ERROR: a class has no parameters"
    assert all(0 <= class_id < NO_CLASS for class_id in names), "ids of 8 bits, 255 is none"

    pixels = mask.width * mask.height
    assert mask.header.stamp == confidence.header.stamp == cloud.header.stamp, "exact time sync"
    assert pixels == cloud.width * cloud.height, "sizes are different"
    for image in (mask, confidence):
        assert image.encoding == "mono8" and image.step == image.width
        assert len(image.data) == pixels
    fields = {field.name: field for field in cloud.fields}
    assert all((fields[a].datatype, fields[a].count) == (7, 1) for a in "xyz"), "expected FLOAT32"
    assert not cloud.is_bigendian and cloud.row_step == cloud.width * cloud.point_step
    assert len(cloud.data) == cloud.row_step * cloud.height

    observed: dict[tuple[int, int], int] = {}
    for pixel in range(pixels):
        x, y, z = (
            np.frombuffer(cloud.data, "<f4", 1, pixel * cloud.point_step + fields[axis].offset)[0]
            for axis in "xyz"
        )
        if not np.isfinite(z):
            continue
        assert np.isfinite(x) and np.isfinite(y), "only z is looked at"
        if (
            not source["min_obstacle_distance"]
            < math.hypot(x, y, z)
            < source["max_obstacle_distance"]
        ):
            continue
        cell = math.floor(z), math.floor(-x)
        other = observed.setdefault(cell, pixel)
        costs = [max_cost.get(names.get(mask.data[p], ""), 0) for p in (pixel, other)]
        by_cost = source["use_cost_selection"]
        if costs[0] > costs[1] if by_cost else confidence.data[pixel] > confidence.data[other]:
            observed[cell] = pixel
    known = {cell: p for cell, p in observed.items() if mask.data[p] in names}
    return {cell: (names[mask.data[p]], int(confidence.data[p])) for cell, p in known.items()}


ROAD, PERSON = STREET.id_of("road"), STREET.id_of("person")
CLASS_MAP = np.full((24, 32), ROAD, np.uint8)
CLASS_MAP[:, :6] = NO_CLASS
CLASS_MAP[:, 22:] = PERSON
DEPTH = np.full(CLASS_MAP.shape, 2.5)


def messages(class_map: np.ndarray = CLASS_MAP, depth: np.ndarray = DEPTH) -> dict[str, Any]:
    return messages_of(result_of(class_map, depth))


def test_the_layer_observes_the_class_of_each_cell():
    assert check_as_segmentation_layer(**messages()) == {
        (2, 0): ("road", 204),
        (2, -1): ("road", 204),
        (2, -2): ("person", 204),
        (2, -3): ("person", 204),
    }


def test_no_class_hides_free_ground_in_its_cell_and_no_obstacle():
    assert CLASS_MAP[:, 6:10].min() == ROAD, "one cell has both"
    assert (2, 1) not in check_as_segmentation_layer(**messages())
    class_map = np.where(CLASS_MAP == ROAD, PERSON, CLASS_MAP).astype(np.uint8)
    assert check_as_segmentation_layer(**messages(class_map))[2, 1] == ("person", 204)


def test_points_without_range_and_out_of_range_fill_no_cell():
    depth = DEPTH.copy()
    depth[:, :16] = 0
    depth[:, 22:] = 20
    assert set(check_as_segmentation_layer(**messages(depth=depth))) == {(2, -1)}


def test_a_person_outweighs_the_road_in_its_cell():
    class_map = CLASS_MAP.copy()
    class_map[:, 8:10] = PERSON
    found = check_as_segmentation_layer(**messages(class_map))
    assert found[2, 1] == ("person", 204)


def test_mask_and_points_have_the_same_classes():
    rng = np.random.default_rng(3)
    class_map = np.kron(rng.integers(0, len(STREET), (5, 7)), np.ones((5, 5))).astype(np.uint8)
    found = messages(class_map, np.full(class_map.shape, 3.0))
    points = np.frombuffer(found["cloud"].data, POINT_DTYPE)
    assert np.array_equal(points["class_id"], found["mask"].data)


def test_the_layer_finds_the_road_ahead_on_the_synthetic_street():
    street = open_frames("synthetic")
    camera, view = street.intrinsics, next(street.views())
    assert camera is not None
    frame = VideoPredictor(open_runtime(default_model_path())).step(view.image, view.stamp)
    found = messages_of(located(frame, view, camera))
    cells = check_as_segmentation_layer(
        **found | {"source": CAMERA | {"max_obstacle_distance": 20.0}}
    )
    assert {cells[ahead, 0][0] for ahead in range(6, 12)} == {"road"}


def test_the_label_info_has_what_the_layer_needs():
    message = CONVERT.label_info(header(), STREET)
    assert [row.class_id for row in message.class_map] == list(range(len(STREET)))
    assert [row.class_name for row in message.class_map] == [info.name for info in STREET]
    assert message.threshold == 0


def mask_of_the_image(found: dict[str, Any]) -> None:
    result = replace(result_of(CLASS_MAP, DEPTH), semantic_size=None)
    found["mask"] = OUTPUTS["semantic"].make(CONVERT, result)


def small_confidence(found: dict[str, Any]) -> None:
    found["confidence"] = CONVERT.image_message(header(), "mono8", np.zeros((1, 3), np.uint8))


def other_stamp(found: dict[str, Any]) -> None:
    found["cloud"] = OUTPUTS["points"].make(CONVERT, result_of(CLASS_MAP, DEPTH, stamp=1))


def unknown_class(found: dict[str, Any]) -> None:
    found["source"] = copy.deepcopy(CAMERA)
    found["source"]["ignored"]["classes"] = []


def wrong_encoding(found: dict[str, Any]) -> None:
    size = found["mask"].height, found["mask"].width
    found["confidence"] = CONVERT.image_message(header(), "32FC1", np.zeros(size, np.float32))


@pytest.mark.parametrize(
    "change", [mask_of_the_image, small_confidence, other_stamp, unknown_class, wrong_encoding]
)
def test_the_check_finds_what_the_layer_would_not_take(change: Any):
    found = messages()
    change(found)
    with pytest.raises(AssertionError):
        check_as_segmentation_layer(**found)


# --- clouds, as costmap and collision monitor take them ------------------------------------------


def check_as_observation(cloud: Any) -> np.ndarray:
    """Points [N, 3] as `ObservationBuffer` and `nav2_collision_monitor::PointCloud` read them."""
    assert (cloud.header.stamp, cloud.header.frame_id) == (header().stamp, "camera")
    assert {(f.name, f.datatype, f.count) for f in cloud.fields} >= {(a, 7, 1) for a in "xyz"}
    size = cloud.height * cloud.width * cloud.point_step
    assert not cloud.is_bigendian and cloud.row_step * cloud.height == len(cloud.data) == size
    points = np.frombuffer(cloud.data, POINT_DTYPE)
    return np.stack([points[axis] for axis in "xyz"], axis=1)


def test_obstacles_and_free_space_are_observations():
    result = result_of(CLASS_MAP, DEPTH)
    obstacles = check_as_observation(OUTPUTS["obstacles"].make(CONVERT, result))
    free = check_as_observation(OUTPUTS["free_space"].make(CONVERT, result))
    assert len(obstacles) and len(free)
    assert np.isfinite(obstacles).all() and np.isfinite(free).all()
    assert free[:, 0].min() > -2 and free[:, 0].max() < 1
    assert all(x > 0.9 or x < -1.5 for x in obstacles[:, 0]), "the person, and what is no class"


@pytest.mark.parametrize("name", ["obstacles", "free_space"])
def test_an_empty_cloud_is_published_where_there_is_none(name: str):
    class_id = PERSON if name == "free_space" else ROAD
    result = result_of(np.full_like(CLASS_MAP, class_id), DEPTH)
    assert not len(check_as_observation(OUTPUTS[name].make(CONVERT, result)))


# --- quality of service --------------------------------------------------------------------------


def test_the_outputs_match_what_nav2_requests():
    pytest.importorskip("rclpy", reason="needs ROS 2")
    from rclpy.qos import DurabilityPolicy, QoSCompatibility, QoSProfile, ReliabilityPolicy
    from rclpy.qos import qos_check_compatible as check

    from video_knet_ros import outputs

    sensor_data = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
    pose = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
    labels = QoSProfile(
        depth=5,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )
    results, latched = outputs.RELIABLE, outputs.LATCHED
    for offered, requested in ((results, sensor_data), (results, pose), (latched, labels)):
        assert check(offered, requested)[0] != QoSCompatibility.ERROR
