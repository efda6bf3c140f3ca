"""The layouts of RViz and Foxglove show the node's topics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

REPO = Path(__file__).parents[1]
CAMERA = "/camera/image_raw"
RVIZ = yaml.safe_load((REPO / "rviz" / "video_knet.rviz").read_text())
FOXGLOVE = json.loads((REPO / "foxglove" / "video_knet.json").read_text())


def published() -> set[str]:
    """The topics of the camera node, as its documentation lists them."""
    page = (REPO / "docs" / "topics.md").read_text()
    named = re.findall(r"^\| `([~/][^`]*)` \| `[a-z_]+/[A-Z]", page, re.MULTILINE)
    return {topic.replace("~", "/video_knet") for topic in named}


def rviz_topics() -> set[str]:
    displays = RVIZ["Visualization Manager"]["Displays"]
    return {display["Topic"]["Value"] for display in displays if display["Enabled"]}


def foxglove_topics(kind: str) -> set[str]:
    """Topics of all panels of a kind, without the path into the message."""
    panels = [config for name, config in FOXGLOVE["configById"].items() if kind in name]
    found = json.dumps(panels)
    return {topic.split(".")[0] for topic in re.findall(r'opic\w*": "(/[^"]*)"', found)}


def leaves(layout: dict | str) -> Iterator[str]:
    if isinstance(layout, str):
        yield layout
        return
    assert layout["direction"] in ("row", "column") and 0 < layout["splitPercentage"] < 100
    yield from leaves(layout["first"])
    yield from leaves(layout["second"])


def test_rviz_shows_camera_overlay_and_labels():
    expected = {CAMERA, "/video_knet/overlay/image", "/video_knet/panoptic/image"}
    assert expected <= rviz_topics() <= published() | {CAMERA}


def test_every_rviz_display_has_a_place():
    names = {display["Name"] for display in RVIZ["Visualization Manager"]["Displays"]}
    assert names <= set(RVIZ["Window Geometry"])


def test_foxglove_shows_camera_overlay_labels_tracks_and_diagnostics():
    assert foxglove_topics("Image!") == {
        CAMERA,
        "/video_knet/overlay/image",
        "/video_knet/panoptic/image",
    }
    assert foxglove_topics("Table!") == foxglove_topics("RawMessages!") == {"/video_knet/instances"}
    assert foxglove_topics("DiagnosticSummary!") == {"/diagnostics"}
    assert foxglove_topics("!") <= published() | {CAMERA}


def test_every_foxglove_panel_is_configured_and_shown_once():
    assert sorted(leaves(FOXGLOVE["layout"])) == sorted(FOXGLOVE["configById"])
