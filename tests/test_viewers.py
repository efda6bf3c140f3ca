"""The layouts of RViz and Foxglove show the node's topics."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from video_knet_core.messages.topics import OUTPUTS

REPO = Path(__file__).parents[1]
CAMERA = "/camera/image_raw"
RVIZ = yaml.safe_load((REPO / "rviz" / "video_knet.rviz").read_text())
FOXGLOVE = json.loads((REPO / "foxglove" / "video_knet.json").read_text())
DISPLAYS = RVIZ["Visualization Manager"]["Displays"]
IN_SPACE = {f"/video_knet/{name}" for name in ("markers", "points", "obstacles")}


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


def test_every_image_in_rviz_has_a_place():
    names = {display["Name"] for display in DISPLAYS if display["Class"].endswith("/Image")}
    assert names <= set(RVIZ["Window Geometry"])


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


def test_every_foxglove_panel_is_configured_and_shown_once():
    assert sorted(leaves(FOXGLOVE["layout"])) == sorted(FOXGLOVE["configById"])
