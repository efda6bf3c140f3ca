"""The example that synchronizes camera image, table and labels, with the camera node over DDS."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from harness import BEST_EFFORT, PERSON, RELIABLE, TIMEOUT_S, street
from sensor_msgs.msg import Image
from video_knet_ros.msg import TrackedInstance, TrackedInstanceArray

pytest.importorskip("message_filters")
FILE = Path(__file__).parents[2] / "examples" / "synchronized.py"
SPEC = importlib.util.spec_from_file_location("synchronized", FILE)
synchronized = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(synchronized)

CONFIRMED = TrackedInstance.CONFIRMED


def described(*tracks: TrackedInstance) -> str:
    """Of two rows: label 1 is red 9, label 7 is green 5; label 3 has no pixels."""
    rgb = np.array([[[9, 0, 0], [0, 4, 0]], [[9, 0, 0], [0, 6, 0]]], np.uint8)
    labels = np.array([[1, 7, 3], [1, 7, 3]], "<u2")  # the last column is padding
    size = {"height": 2, "width": 2}
    camera = Image(**size, encoding="rgb8", step=6, data=rgb.tobytes())
    image = Image(**size, encoding="16UC1", step=6, data=labels.tobytes())
    return synchronized.describe(camera, TrackedInstanceArray(instances=tracks), image)


def test_colours_are_those_of_each_mask():
    person = TrackedInstance(label=1, track_id=4, class_name="person", state=CONFIRMED)
    vehicle = TrackedInstance(label=7, track_id=2, class_name="vehicle", state=CONFIRMED)
    line = described(person, vehicle)
    assert line.endswith(" person 4: 2 px, rgb(9, 0, 0); vehicle 2: 2 px, rgb(0, 5, 0)")


@pytest.mark.parametrize(
    "track",
    [
        TrackedInstance(label=7, track_id=0, state=CONFIRMED),
        TrackedInstance(label=7, track_id=2, state=TrackedInstance.TENTATIVE),
        TrackedInstance(label=0, track_id=2, state=TrackedInstance.COASTED),
        TrackedInstance(label=3, track_id=2, state=CONFIRMED),
    ],
    ids=["stuff", "tentative", "coasted", "covered"],
)
def test_other_rows_are_left_out(track):
    assert described(track).endswith(" no confirmed track")


@pytest.mark.parametrize("qos", [BEST_EFFORT, RELIABLE], ids=["best_effort", "reliable"])
def test_it_prints_the_colours_of_the_image_of_each_table(world, tmp_path, qos):
    world.camera_node()
    out = tmp_path / "out"
    command = [
        sys.executable,
        FILE,
        "--ros-args",
        "-r",
        f"{synchronized.CAMERA}:=/video_knet/image",
    ]
    with out.open("w") as file:
        process = subprocess.Popen(command, stdout=file, env=os.environ.copy())
    try:
        camera = world.publisher(qos)
        tables = world.tables()
        world.wait(lambda: camera.get_subscription_count() == 2, "the example to see the camera")
        world.wait(lambda: world.subscribers("panoptic/image"), "the example to see the labels")
        numbers = iter(range(200))

        def lines() -> list[str]:
            world.send(camera, tables, street(next(numbers), things=(PERSON,)))
            return [line for line in out.read_text().splitlines() if "person" in line]

        found = world.wait(lambda: len(lines()) > 3 and lines(), "lines with a confirmed track")
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0
    finally:
        process.kill()
    (person,) = (i for i in tables[-1].instances if i.class_name == "person")
    for line in found:
        stamp = float(line.split()[0])
        number = round((stamp - 100.1) * 10)  # of the image with this stamp: its green value
        assert line.endswith(f" person {person.track_id}: 120 px, rgb({PERSON}, {number}, 0)")
