"""The files of config/nav2: names and types as Nav2 declares them, and messages as it takes them.

Nav2 itself does not run here. What is compared with was read in its sources, navigation2 of
2026-08-21 and semantic_segmentation_layer of 2026-04-02.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from video_knet_core.bags.definitions import conversions
from video_knet_core.config import ModelConfig
from video_knet_core.config_io import load_yaml
from video_knet_core.geometry import LabelMap, Regions
from video_knet_core.messages.outputs import OUTPUTS
from video_knet_core.messages.result_messages import FrameToPublish
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
OTHER_TOPICS = {"obstacles", "free_space", "points", "semantic/confidence", "followed/pose"}
OTHER_TOPICS |= {"label_info"}
"""Outputs that are no row of `OUTPUTS`."""


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
    assert named and named <= OTHER_TOPICS | {output.topic for output in OUTPUTS.values()}


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
POINT = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<f4")]
POINT += [("class_id", "<u2"), ("track_id", "<u4"), ("confidence", "<f4")]
DATATYPES = {"<f4": 7, "<u2": 4, "<u4": 6}
"""PointField's FLOAT32, UINT16, UINT32."""


def header(stamp: int = 1_000_000_007) -> Any:
    time = CONVERT.time_message(stamp)
    return CONVERT.find("std_msgs/msg/Header")(stamp=time, frame_id="camera")


def cloud_message(xyz: np.ndarray, stamp: int = 1_000_000_007) -> Any:
    """Organised cloud of points [H, W, 3] in the camera's axes, with the fields of ~/points."""
    points = np.zeros(xyz.shape[:2], POINT)
    points["x"], points["y"], points["z"] = np.moveaxis(xyz, 2, 0)
    make = CONVERT.find("sensor_msgs/msg/PointField")
    kinds = points.dtype.fields or {}
    fields = [
        make(name=name, offset=kinds[name][1], datatype=DATATYPES[kind], count=1)
        for name, kind in POINT
    ]
    return CONVERT.find("sensor_msgs/msg/PointCloud2")(
        header=header(stamp),
        height=points.shape[0],
        width=points.shape[1],
        fields=fields,
        is_bigendian=False,
        point_step=points.itemsize,
        row_step=points.itemsize * points.shape[1],
        data=points.view(np.uint8).ravel(),
        is_dense=False,
    )


def semantic_image(class_map: np.ndarray) -> Any:
    """The message that the node makes of a frame with these classes [H, W]; 255 = none."""
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
    rows = rows_without_track(class_ids, np.ones(count), regions, stamp=1, is_thing=False)
    rows["label"] = 1 + np.arange(count)
    times = StageTimes(0, 0, 0, 0)
    frame = PanopticFrame(1, LabelMap.of(labels), TrackTable(rows), (), (), 1, times)
    image = np.zeros((*class_map.shape, 3), np.uint8)
    return OUTPUTS["semantic"].make(CONVERT, FrameToPublish(header(), image, frame, STREET, 0, 0))


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
CLASS_MAP = np.array([[NO_CLASS, ROAD, PERSON], [ROAD, ROAD, PERSON]], np.uint8)
X, Z = np.meshgrid([-1.5, 0.5, 1.5], [3.5, 2.5])
POINTS = np.stack([X, np.ones_like(X), Z], axis=2).astype(np.float32)


def messages(class_map: np.ndarray = CLASS_MAP, xyz: np.ndarray = POINTS) -> dict[str, Any]:
    """Arguments of `check_as_segmentation_layer`."""
    confidence = np.where(class_map == NO_CLASS, 0, 200).astype(np.uint8)
    return {
        "mask": semantic_image(class_map),
        "confidence": CONVERT.image_message(header(), "mono8", confidence),
        "cloud": cloud_message(xyz),
        "label_info": CONVERT.label_info(header(), STREET),
        "source": CAMERA,
    }


def test_the_layer_observes_the_class_of_each_cell():
    assert check_as_segmentation_layer(**messages()) == {
        **{(3, -1): ("road", 200), (3, -2): ("person", 200)},
        **{(2, 1): ("road", 200), (2, -1): ("road", 200), (2, -2): ("person", 200)},
    }


def test_points_without_range_and_out_of_range_fill_no_cell():
    xyz = POINTS.copy()
    xyz[0] = math.nan
    xyz[1, 1:] *= 10
    assert check_as_segmentation_layer(**messages(xyz=xyz)) == {(2, 1): ("road", 200)}


def test_a_person_outweighs_the_road_in_its_cell():
    xyz = np.full_like(POINTS, 0.5)
    xyz[..., 2] = 2.5
    assert check_as_segmentation_layer(**messages(xyz=xyz)) == {(2, -1): ("person", 200)}


def test_the_label_info_has_what_the_layer_needs():
    message = CONVERT.label_info(header(), STREET)
    assert [row.class_id for row in message.class_map] == list(range(len(STREET)))
    assert [row.class_name for row in message.class_map] == [info.name for info in STREET]
    assert message.threshold == 0


def small_mask(found: dict[str, Any]) -> None:
    found["mask"] = semantic_image(CLASS_MAP[:1])


def small_confidence(found: dict[str, Any]) -> None:
    found["confidence"] = CONVERT.image_message(header(), "mono8", np.zeros((1, 3), np.uint8))


def other_stamp(found: dict[str, Any]) -> None:
    found["cloud"] = cloud_message(POINTS, stamp=1)


def unknown_class(found: dict[str, Any]) -> None:
    found["source"] = copy.deepcopy(CAMERA)
    found["source"]["ignored"]["classes"] = []


def wrong_encoding(found: dict[str, Any]) -> None:
    found["confidence"] = CONVERT.image_message(header(), "32FC1", np.zeros((2, 3), np.float32))


@pytest.mark.parametrize(
    "change", [small_mask, small_confidence, other_stamp, unknown_class, wrong_encoding]
)
def test_the_check_finds_what_the_layer_would_not_take(change: Any):
    found = messages()
    change(found)
    with pytest.raises(AssertionError):
        check_as_segmentation_layer(**found)


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
