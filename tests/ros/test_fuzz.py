"""Any message and any parameter: a frame fails at most, and a setting is rejected with a reason.

FUZZ_EXAMPLES=100000 pytest tests/ros/test_fuzz.py -k messages   # longer than in the suite
"""

from __future__ import annotations

import os
import time
from array import array

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from harness import PaintedRuntime, image_message, street
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from video_knet_ros import outputs, parameters, process

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "1500"))
FUZZ = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
ENCODINGS = (
    *("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "rgb16", "mono16", "bayer_rggb8", "bayer_gbrg16"),
    *("uyvy", "yuv422_yuy2", "nv12", "nv21", "nv24", "8UC1", "8UC3", "16UC1", "32FC1", "8UC5"),
)
INT32 = st.one_of(
    st.sampled_from([-(2**31), -1, 0, 1, 2**31 - 1]), st.integers(-(2**31), 2**31 - 1)
)
UINT32 = st.one_of(st.sampled_from([0, 1, 10**9 - 1, 10**9, 2**32 - 1]), st.integers(0, 2**32 - 1))
stamps = st.builds(Time, sec=INT32, nanosec=UINT32)
headers = st.builds(Header, stamp=stamps, frame_id=st.sampled_from(["", "camera", "\u8eca/\x07 x"]))
sizes = st.one_of(st.integers(0, 12), st.sampled_from([48, 96, 2**16, 2**32 - 1]))


@st.composite
def raw_images(draw) -> Image:
    """Sizes, step, encoding and data that mostly contradict each other."""
    height, width = draw(sizes), draw(sizes)
    encoding = draw(st.one_of(st.sampled_from(ENCODINGS), st.text(max_size=8)))
    step = draw(st.one_of(st.just(min(3 * width, 2**32 - 1)), st.just(width % 2**31), sizes))
    fits = min(height * step, 5000)
    data = bytes(draw(st.one_of(st.just(fits), st.integers(0, 400))))
    return Image(
        header=draw(headers),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=draw(st.integers(0, 255)),
        step=step,
        data=array("B", data),
    )


JPEG, PNG = (cv2.imencode(suffix, street())[1].tobytes() for suffix in (".jpg", ".png"))
DEPTH = cv2.imencode(".png", np.zeros((4, 6), np.uint16))[1].tobytes()


@st.composite
def compressed_images(draw) -> CompressedImage:
    """Whole, cut and damaged files, and bytes that are none."""
    data = bytearray(draw(st.sampled_from([JPEG, PNG, DEPTH, b""])) or draw(st.binary(max_size=60)))
    for at in draw(st.lists(st.integers(0, max(len(data) - 1, 0)), max_size=4)):
        if data:
            data[at] ^= draw(st.integers(0, 255))
    data = data[: draw(st.one_of(st.none(), st.integers(0, len(data))))]
    known = (
        "jpeg",
        "png",
        "rgb8; jpeg compressed bgr8",
        "16UC1; png compressed ",
        "bayer_rggb8; png",
    )
    form = draw(st.one_of(st.sampled_from(known), st.text(max_size=12)))
    return CompressedImage(header=draw(headers), format=form, data=array("B", data))


class AnyImage(PaintedRuntime):
    """Takes any pixels for painted ones."""

    def step(self, image, state):
        return super().step(image % 6, state)


@pytest.fixture
def camera(world, monkeypatch):
    """An active node all of whose outputs have a subscriber, as far as it can see."""
    camera = world.camera_node(open_runtime=lambda path, **options: AnyImage())
    camera._camera_filter.accepts = lambda message, stamp: True  # all sizes come in turn
    monkeypatch.setattr(outputs.Topic, "subscribers", 1)
    return camera


def put(camera, message) -> None:
    """Have the node process a message as if it came from the middleware."""
    camera._on_image(message)
    counts, end = camera.counts, time.monotonic() + 20
    while counts.received != counts.processed + counts.failed + counts.dropped:
        camera.worker.call(lambda engine: None).result()
        assert time.monotonic() < end, f"an image was lost: {message}"


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [raw_images(), compressed_images()], ids=["raw", "compressed"])
def test_any_messages_cost_a_frame_at_most(camera, strategy):
    @FUZZ
    @given(strategy)
    def check(message):
        before = camera.counts.failed
        put(camera, message)
        if camera.counts.failed > before:
            kinds.add(camera.counts.last_failure.split(":")[0])

    kinds: set[str] = set()
    check()
    processed = camera.counts.processed
    put(camera, image_message(street(), 100.0))
    assert camera.counts.processed == processed + 1
    programming = {"TypeError", "AttributeError", "KeyError", "IndexError", "AssertionError"}
    assert not kinds & programming, "damage is an ImageError, and no error of ours"
    assert processed, "none of the messages is an image"


VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.sampled_from(["auto", "", "~", "~nobody/x", "\x00", "sort", "reliable"]),
    st.text(max_size=10).filter(lambda text: text.isprintable()),
    st.lists(st.integers(-5, 5), min_size=1, max_size=3),
    st.lists(st.sampled_from(["a", ""]), min_size=1, max_size=3),
)
NAMES = st.sampled_from([spec.name for spec in parameters.PARAMETERS])


@pytest.mark.slow
def test_any_setting_is_taken_or_rejected_with_a_reason(camera):
    @settings(FUZZ, max_examples=min(EXAMPLES, 3000))
    @given(NAMES, VALUES)
    def check(name, value):
        before = camera.get_parameter(name).value
        (result,) = camera.set_parameters([Parameter(name, value=value)])
        after = camera.get_parameter(name).value
        if result.successful:
            assert after == value
        else:
            assert name in result.reason or "type" in result.reason, result.reason
            assert after == before

    check()
    camera._publish_diagnostics()
    camera.set_parameters([Parameter("enabled", value=True), Parameter("max_rate", value=0.0)])
    camera.set_parameters([Parameter("max_age_ms", value=0.0)])
    processed = camera.counts.processed
    put(camera, image_message(street(), 100.0))
    assert camera.counts.processed == processed + 1


@pytest.mark.slow
def test_any_override_at_start_is_taken_or_rejected_with_its_name(world):
    @settings(FUZZ, max_examples=min(EXAMPLES, 60))
    @given(NAMES, VALUES)
    def check(name, value):
        try:
            camera = world.camera_node(start=False, **{name: value})
        except process.START_ERRORS as error:
            assert name in process.one_line(error)
        else:
            assert camera.get_parameter(name).value == value
            world.executor.remove_node(camera)
            camera.destroy_node()

    check()
