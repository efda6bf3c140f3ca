"""The layouts of RViz, Foxglove and rqt show the node's topics, with settings that these have.

The tables of settings are those of rviz_default_plugins (Humble to Rolling), of Lichtblick (the
open fork of Foxglove Studio), and of the rqt plugins.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from video_knet_core.messages.topics import OUTPUTS

REPO = Path(__file__).parents[1]
CAMERA = "/camera/image_raw"
RVIZ = yaml.safe_load((REPO / "rviz" / "video_knet.rviz").read_text())
FOXGLOVE = json.loads((REPO / "foxglove" / "video_knet.json").read_text())
RQT = json.loads((REPO / "rqt" / "video_knet.perspective").read_text())
DISPLAYS = RVIZ["Visualization Manager"]["Displays"]
IN_SPACE = {f"/video_knet/{name}" for name in ("markers", "points", "obstacles")}
RVIZ_SETTINGS = {
    "Image": {"Normalize Range", "Min Value", "Max Value", "Median window"},
    "MarkerArray": {"Namespaces"},
    "PointCloud2": {
        *("Alpha", "Color Transformer", "Decay Time", "Position Transformer", "Selectable"),
        *("Size (Pixels)", "Size (m)", "Style", "Use Fixed Frame"),
    },
}
"""What the displays have, besides class, name, topic and whether they are enabled."""
QOS_IN_RVIZ = {"Depth", "Durability Policy", "History Policy", "Reliability Policy", "Value"}
FOXGLOVE_SETTINGS = {
    "3D": {
        *("cameraState", "followMode", "followTf", "imageMode", "layers", "publish", "scene"),
        *("topics", "transforms"),
    },
    "Image": {"imageMode"},
    "Table": {"topicPath"},
    "RawMessages": {
        *("diffEnabled", "diffMethod", "diffTopicPath", "expansion", "fontSize"),
        *("showFullMessageForDiff", "topicPath"),
    },
    "DiagnosticSummary": {
        *("hardwareIdFilter", "minLevel", "pinnedIds", "secondsUntilStale", "sortByLevel"),
        "topicToRender",
    },
}
RQT_SETTINGS = {
    "rqt_image_view/ImageView": {"dynamic_range", "topic"},
    "rqt_plot/Plot": {"autoscroll", "topics"},
    "rqt_reconfigure/Param": {"selected_nodes"},
    "rqt_runtime_monitor/RuntimeMonitor": set(),
}


def published() -> set[str]:
    """The topics of the camera node: its outputs, and others that its documentation lists."""
    page = (REPO / "docs" / "reference" / "topics.md").read_text()
    named = re.findall(r"^\| `([~/][^`]*)` \| `[a-z_]+/[A-Z]", page, re.MULTILINE)
    outputs = {f"/video_knet/{output.topic}" for output in OUTPUTS.values()}
    return {topic.replace("~", "/video_knet") for topic in named} | outputs


def rviz_topics(*, all_displays: bool = False) -> set[str]:
    return {d["Topic"]["Value"] for d in DISPLAYS if d["Enabled"] or all_displays}


def foxglove_topics(kind: str) -> set[str]:
    """Topics of all panels of a kind, without the path into the message."""
    panels = [config for name, config in FOXGLOVE["configById"].items() if kind in name]
    found = json.dumps(panels)
    named = {topic.split(".")[0] for topic in re.findall(r'opic\w*": "(/[^"]*)"', found)}
    return named | {topic for panel in panels for topic in panel.get("topics", {})}


def leaves(layout: dict | str) -> Iterator[str]:
    if isinstance(layout, str):
        yield layout
        return
    assert layout["direction"] in ("row", "column") and 0 < layout["splitPercentage"] < 100
    yield from leaves(layout["first"])
    yield from leaves(layout["second"])


def test_rviz_shows_camera_overlay_and_labels():
    expected = {CAMERA, "/video_knet/overlay/image", "/video_knet/panoptic/image"}
    assert expected <= rviz_topics()


def test_rviz_shows_objects_and_points_in_space():
    assert {"/video_knet/markers", "/video_knet/points"} <= rviz_topics()
    assert rviz_topics(all_displays=True) >= IN_SPACE


def test_rviz_has_only_topics_of_camera_and_node():
    assert rviz_topics(all_displays=True) <= published() | {CAMERA}


def test_the_launch_file_moves_all_topics_of_rviz_to_the_namespace():
    source = ast.parse((REPO / "launch" / "camera.launch.py").read_text())
    (names,) = (
        {constant.value for constant in ast.walk(node.value) if isinstance(constant, ast.Constant)}
        for node in source.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "OUTPUTS_IN_RVIZ"
    )
    moved = {f"/video_knet/{name}" for name in names}
    assert rviz_topics(all_displays=True) == moved | {CAMERA}


def test_every_panel_and_image_in_rviz_has_a_place():
    names = {display["Name"] for display in DISPLAYS if display["Class"].endswith("/Image")}
    names |= {panel["Name"] for panel in RVIZ["Panels"]}
    geometry = RVIZ["Window Geometry"]
    places = bytes.fromhex(geometry["QMainWindow State"])
    assert names == {name for name, value in geometry.items() if isinstance(value, dict)}
    assert all(name.encode("utf-16-be") in places for name in names)


@pytest.mark.parametrize("display", DISPLAYS, ids=lambda display: display["Name"])
def test_displays_of_rviz_have_settings_of_their_class(display):
    plugin, _, kind = display["Class"].partition("/")
    assert plugin == "rviz_default_plugins"
    assert set(display) <= RVIZ_SETTINGS[kind] | {"Class", "Name", "Enabled", "Value", "Topic"}
    assert set(display["Topic"]) <= QOS_IN_RVIZ


def test_foxglove_shows_images_space_tracks_and_diagnostics():
    assert foxglove_topics("Image!") == {
        CAMERA,
        "/video_knet/overlay/image",
        "/video_knet/panoptic/image",
    }
    assert foxglove_topics("Table!") == foxglove_topics("RawMessages!") == {"/video_knet/instances"}
    assert foxglove_topics("DiagnosticSummary!") == {"/diagnostics"}
    assert foxglove_topics("3D!") == IN_SPACE
    assert foxglove_topics("!") <= published() | {CAMERA}


@pytest.mark.parametrize("panel", FOXGLOVE["configById"])
def test_panels_of_foxglove_have_settings_of_their_type(panel):
    kind = panel.partition("!")[0]
    assert set(FOXGLOVE["configById"][panel]) <= FOXGLOVE_SETTINGS[kind] | {"foxglovePanelTitle"}


def test_every_foxglove_panel_is_configured_and_shown_once():
    assert sorted(leaves(FOXGLOVE["layout"])) == sorted(FOXGLOVE["configById"])


def rqt_value(setting: dict[str, str]) -> Any:
    """What rqt's importer makes of a setting; it evaluates the expression."""
    if setting["type"] == "repr":
        return ast.literal_eval(setting["repr"])
    expression = setting["repr(QByteArray.hex)"]
    return bytes.fromhex(ast.literal_eval(expression.removeprefix("QtCore.QByteArray")).decode())


def rqt_settings() -> dict[str, dict[str, Any]]:
    """Settings of every plugin instance, by `plugin id#serial number`."""
    manager = RQT["groups"]["pluginmanager"]
    running = rqt_value(manager["keys"]["running-plugins"])
    found = {}
    for plugin, numbers in running.items():
        for number in numbers:
            group = manager["groups"].get(f"plugin__{plugin.replace('/', '__')}__{number}")
            keys = group["groups"]["plugin"]["keys"] if group else {}
            found[f"{plugin}#{number}"] = {name: rqt_value(keys[name]) for name in keys}
    assert set(manager["groups"]) <= {
        f"plugin__{name.replace('/', '__').replace('#', '__')}" for name in found
    }
    return found


def test_rqt_shows_images_diagnostics_latency_and_parameters():
    settings = rqt_settings()
    images = {v["topic"] for k, v in settings.items() if k.startswith("rqt_image_view/")}
    assert images == {"/video_knet/overlay/image", "/video_knet/panoptic/image"} <= published()
    for path in settings["rqt_plot/Plot#1"]["topics"]:
        topic, field = path.rsplit("/", 1)
        assert topic == "/video_knet/instances"
        assert f" {field} " in (REPO / "msg" / "TrackedInstanceArray.msg").read_text()
    assert settings["rqt_reconfigure/Param#1"]["selected_nodes"] == ["/video_knet"]
    assert "rqt_runtime_monitor/RuntimeMonitor#1" in settings


def test_plugins_of_rqt_have_their_settings_and_a_place():
    places = rqt_value(RQT["groups"]["mainwindow"]["keys"]["state"])
    for name, settings in rqt_settings().items():
        plugin, _, number = name.partition("#")
        assert set(settings) <= RQT_SETTINGS[plugin]
        assert f"{plugin.replace('/', '__')}__{number}__".encode("utf-16-be") in places
