"""Cameras: CameraInfo to model, and pixels to rays and back, against OpenCV."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore

from video_knet_core.spatial.camera_model import CameraModel, SpatialError

K = [400.0, 0.0, 320.0, 0.0, 410.0, 240.0, 0.0, 0.0, 1.0]
P = [380.0, 0.0, 310.0, -38.0, 0.0, 390.0, 250.0, 0.0, 0.0, 0.0, 1.0, 0.0]
LENSES = {
    "none": ("", []),
    "plumb_bob": ("plumb_bob", [-0.28, 0.09, 1e-3, -5e-4, -0.01]),
    "barrel without p": ("plumb_bob", [-0.25, 0.05, 0.0, 0.0]),
    "pincushion": ("plumb_bob", [0.2, 0.05, 0.0, 0.0, 0.0]),
    "rational": ("rational_polynomial", [0.2, 0.05, 1e-3, -5e-4, 0.01, 0.5, 0.1, 0.02]),
    "equidistant": ("equidistant", [-0.05, 0.01, -0.002, 0.0003]),
}


def region(x: int = 0, y: int = 0, width: int = 0, height: int = 0) -> SimpleNamespace:
    return SimpleNamespace(x_offset=x, y_offset=y, width=width, height=height, do_rectify=False)


def info(**changes: Any) -> SimpleNamespace:
    """A CameraInfo of ROS 2, without distortion."""
    fields = {
        "header": SimpleNamespace(frame_id="camera_optical"),
        "width": 640,
        "height": 480,
        "distortion_model": "plumb_bob",
        "d": [0.0] * 5,
        "k": K,
        "p": P,
        "binning_x": 0,
        "binning_y": 0,
        "roi": region(),
    }
    return SimpleNamespace(**{**fields, **changes})


def camera(lens: str = "none", **changes: Any) -> CameraModel:
    model, coefficients = LENSES[lens]
    message = info(distortion_model=model, d=coefficients, **changes)
    return CameraModel.from_message(message, rectified=False)


def pixel_grid(height: int, width: int) -> NDArray[np.float64]:
    """(x, y) of each pixel [H * W, 2]."""
    y, x = np.indices((height, width))
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float64)


def at_angles(degrees: NDArray) -> NDArray[np.float64]:
    """Points at 5 m and some angles from the axis, to the right."""
    angles = np.radians(degrees)
    return 5 * np.stack([np.sin(angles), 0 * angles, np.cos(angles)], axis=-1)


# --- the message ---------------------------------------------------------------------------------


def test_a_raw_image_has_k_and_the_distortion():
    made = camera("plumb_bob")
    assert (made.width, made.height, made.frame_id) == (640, 480, "camera_optical")
    assert made.k.ravel().tolist() == K
    assert made.distortion_model == "plumb_bob"
    assert made.distortion == (-0.28, 0.09, 1e-3, -5e-4, -0.01)


def test_a_rectified_image_has_p_and_no_distortion():
    made = CameraModel.from_message(info(distortion_model="odd", d=[1.0]), rectified=True)
    assert made.k.tolist() == [[380, 0, 310], [0, 390, 250], [0, 0, 1]]
    assert (made.distortion_model, made.distortion) == ("", ())


@pytest.mark.parametrize("rectified", [False, True])
def test_region_and_binning_give_the_delivered_image(rectified):
    message = info(roi=region(100, 40, 400, 300), binning_x=2, binning_y=4)
    made = CameraModel.from_message(message, rectified)
    assert (made.width, made.height) == (200, 75)
    expected = [[190, 0, 105], [0, 97.5, 52.5]] if rectified else [[200, 0, 110], [0, 102.5, 50]]
    assert made.k.tolist() == [*expected, [0, 0, 1]]


def test_a_region_without_pixels_is_the_full_image():
    roi = region()
    roi.do_rectify = True
    assert (camera(roi=roi, binning_x=1).width, camera(roi=roi).height) == (640, 480)


@pytest.mark.parametrize("model", ["", "plumb_bob", "equidistant", "unknown"])
@pytest.mark.parametrize("coefficients", [[], [0.0], [0.0] * 5])
def test_without_coefficients_other_than_zero_there_is_no_distortion(model, coefficients):
    message = info(distortion_model=model, d=coefficients)
    assert CameraModel.from_message(message, rectified=False).distortion_model == ""


@pytest.mark.parametrize("store", [Stores.ROS1_NOETIC, Stores.ROS2_HUMBLE])
def test_messages_of_bags_can_be_read(store):
    types = get_typestore(store).types
    upper = store == Stores.ROS1_NOETIC
    arrays = {"d": [-0.3, 0, 0, 0, 0], "k": K, "r": np.eye(3).ravel(), "p": P}
    stamp = types["builtin_interfaces/msg/Time"](sec=0, nanosec=0)
    header = {"seq": 0} if upper else {}
    message = types["sensor_msgs/msg/CameraInfo"](
        header=types["std_msgs/msg/Header"](stamp=stamp, frame_id="cam", **header),
        width=640,
        height=480,
        distortion_model="plumb_bob",
        binning_x=0,
        binning_y=0,
        roi=types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
        **{name.upper() if upper else name: np.array(arrays[name], float) for name in arrays},
    )
    made = CameraModel.from_message(message, rectified=False)
    assert (made.frame_id, made.k.ravel().tolist()) == ("cam", K)
    assert made.distortion[0] == -0.3
    assert CameraModel.from_message(message, rectified=True).k[0, 0] == 380


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k": [0.0] * 9}, "k: expected focal lengths of at least 1 pixel, got [0.0, 0.0]"),
        ({"k": [-400.0, *K[1:]]}, "k: expected focal lengths"),
        ({"k": [np.nan, *K[1:]]}, "k: expected numbers up to 1e+06, got [nan"),
        (
            {"k": [400.0, 0.0, 1e9, *K[3:]]},
            "k: expected numbers up to 1e+06, got [400.0, 0.0, 1000000000.0",
        ),
        ({"k": K[:4]}, "k: expected 9 numbers, got 4"),
        ({"d": [0.1, 0.2]}, "d: expected 4 or 5 or 8 numbers, got 2"),
        ({"d": [0.1, np.inf, 0.0, 0.0]}, "d: expected numbers up to 1e+06, got"),
        ({"distortion_model": "equidistant", "d": [0.1] * 5}, "d: expected 4 numbers, got 5"),
        (
            {"distortion_model": "fov", "d": [0.9]},
            "distortion_model: expected one of plumb_bob, rational_polynomial, equidistant, "
            "got 'fov'",
        ),
        ({"width": 0}, "width and height: expected 1 to 100000000 pixels after binning, got 0 x"),
        ({"width": 2**32 - 1, "height": 2**32 - 1}, "width and height: expected 1 to 100000000"),
        ({"binning_x": 641}, "width and height: expected 1 to 100000000 pixels after binning"),
        (
            {"roi": region(600, 0, 41, 10)},
            "roi: expected a region of the image of 640 x 480 pixels, got 41 x 10 at (600, 0)",
        ),
        ({"roi": region(0, 0, 10, 0)}, "roi: expected a region"),
    ],
)
def test_unusable_messages_name_the_field(changes, words):
    with pytest.raises(SpatialError) as error:
        CameraModel.from_message(info(**changes), rectified=False)
    assert str(error.value).startswith(words)


def test_a_rectified_image_needs_a_calibrated_p():
    with pytest.raises(SpatialError, match="^p: expected focal lengths"):
        CameraModel.from_message(info(p=[0.0] * 12), rectified=True)


sizes = st.integers(0, 2**32 - 1) | st.integers(0, 60)
numbers = st.floats() | st.floats(-2, 2) | st.floats(1, 500)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "width": sizes,
            "height": sizes,
            "binning_x": sizes,
            "binning_y": sizes,
            "roi": st.builds(region, sizes, sizes, sizes, sizes),
            "distortion_model": st.sampled_from(["", "plumb_bob", "equidistant", "fov"]),
            "d": st.lists(numbers, max_size=14) | st.lists(numbers, min_size=4, max_size=4),
            "k": st.lists(numbers, min_size=9, max_size=9),
            "p": st.lists(numbers, min_size=12, max_size=12),
        },
    ),
    st.booleans(),
)
@settings(max_examples=500)
def test_any_message_is_used_or_rejected(changes, rectified):
    message = info(**{"width": 32, "height": 24, **changes})
    try:
        made = CameraModel.from_message(message, rectified)
    except SpatialError:
        return
    if made.width * made.height < 10_000:
        assert made.rays().shape == (made.height, made.width, 2)
    pixels, in_front = made.project(np.array([[0.1, 0.2, 1], [0, 0, -1], [np.nan, 0, 1]]))
    assert not in_front[1:].any()
    assert np.isfinite(pixels[in_front]).all()


# --- rays and points -----------------------------------------------------------------------------


def test_rays_go_right_down_and_ahead():
    rays = camera().rays()
    assert (rays.shape, rays.dtype) == ((480, 640, 2), np.float32)
    assert rays[240, 320].tolist() == [0, 0]
    assert rays[240, 420] == pytest.approx([0.25, 0])
    assert rays[445, 320] == pytest.approx([0, 0.5])


def test_rays_are_made_once():
    made = camera("equidistant")
    assert made.rays() is made.rays()
    assert not made.rays().flags.writeable


def test_points_are_projected_into_the_image():
    pixels, in_front = camera().project(np.array([[0, 0, 2], [0.5, -0.2, 2], [-40, 0, 2]]))
    assert (pixels.dtype, in_front.all()) == (np.float32, True)
    assert pixels == pytest.approx(np.array([[320, 240], [420, 199], [-7680, 240]]))


@pytest.mark.parametrize("lens", LENSES)
def test_points_behind_are_not_in_the_image(lens):
    points = np.array([[0.1, 0.1, -1], [0, 0, 0], [np.nan, 0, 1], [0, 0, np.nan], [np.inf, 0, 1]])
    pixels, in_front = camera(lens).project(points)
    assert not in_front.any()
    assert np.isnan(pixels).all()


def test_no_points_have_no_pixels():
    pixels, in_front = camera("plumb_bob").project(np.zeros((0, 3), np.float32))
    assert (pixels.shape, in_front.shape) == ((0, 2), (0,))


@pytest.mark.parametrize("lens", LENSES)
def test_rays_come_back_to_their_pixels(lens):
    made = camera(lens)
    rays = made.rays().reshape(-1, 2)
    depth = np.random.default_rng(0).uniform(0.2, 50, (len(rays), 1))
    pixels, in_front = made.project(np.hstack([rays * depth, depth]))
    assert in_front.mean() > 0.99
    assert np.abs(pixels - pixel_grid(480, 640))[in_front].max() < 0.01


@pytest.mark.parametrize("lens", LENSES)
def test_projections_are_those_of_opencv(lens):
    made = camera(lens)
    points = np.random.default_rng(0).uniform([-2, -2, 3], [2, 2, 9], (500, 3))
    zero, coefficients = np.zeros(3), np.array(made.distortion or [0.0] * 4)
    project = cv2.fisheye.projectPoints if lens == "equidistant" else cv2.projectPoints
    expected, _ = project(points[:, None], zero, zero, made.k, coefficients)
    assert np.abs(made.project(points)[0] - expected[:, 0]).max() < 1e-3


@pytest.mark.parametrize("lens", LENSES)
def test_rays_are_those_of_opencv(lens):
    made = camera(lens)
    pixels = pixel_grid(480, 640)[::997]
    coefficients = np.array(made.distortion or [0.0] * 4)
    if lens == "equidistant":
        expected = cv2.fisheye.undistortPoints(pixels[:, None], made.k, coefficients)
    else:
        stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-10)
        expected = cv2.undistortPointsIter(pixels[:, None], made.k, coefficients, None, None, stop)
    assert np.abs(made.rays_at(pixels) - expected[:, 0]).max() < 1e-5


def test_points_outside_the_field_of_a_wide_lens_are_not_folded_back_into_the_image():
    made = camera(k=[200.0, 0, 320, 0, 200, 240, 0, 0, 1])
    wide = CameraModel(640, 480, "camera", made.k, "plumb_bob", (-0.35, 0, 0, 0, 0))
    degrees = np.array([10.0, 40, 44, 45, 60, 80, 89, 100, 180])  # r * (1 - 0.35 r²) peaks at 44.3°
    pixels, in_front = wide.project(at_angles(degrees))
    assert in_front.tolist() == [True] * 3 + [False] * 6
    assert np.isnan(pixels[3:]).all()
    folded = cv2.projectPoints(
        at_angles(degrees)[4:5], np.zeros(3), np.zeros(3), wide.k, np.array(wide.distortion)
    )[0]
    assert 0 < folded[0, 0, 0] < 640


@pytest.mark.parametrize("p", [(0.005, 0), (-0.005, 0), (0, 0.005), (0, -0.005), (0.003, -0.004)])
def test_the_tangential_part_folds_no_points_back_into_the_image_either(p):
    k = np.array([[200.0, 0, 320], [0, 200, 240], [0, 0, 1]])
    made = CameraModel(640, 480, "camera", k, "plumb_bob", (0, 0, *p, 1e-9))
    angle, towards = np.meshgrid(np.radians(np.arange(75, 90, 0.01)), np.arange(0, 6.3, 0.1))
    r = np.tan(angle)
    points = np.stack([r * np.cos(towards), r * np.sin(towards), np.ones_like(r)], axis=-1)
    pixels, in_front = made.project(points.reshape(-1, 3))
    assert 0.5 < in_front.mean() < 1
    assert (np.abs(pixels - [320, 240]) > [320, 240])[in_front].any(axis=1).all()


def test_pixels_outside_the_field_of_a_wide_lens_have_no_ray():
    k = np.array([[200.0, 0, 320], [0, 200, 240], [0, 0, 1]])
    rays = CameraModel(640, 480, "camera", k, "plumb_bob", (-0.35, 0, 0, 0, 0)).rays()
    assert np.isfinite(rays[240, 200:440]).all()
    assert np.isnan(rays[240, [0, 639]]).all()


def test_a_fisheye_sees_nearly_to_the_side():
    k = np.array([[200.0, 0, 320], [0, 200, 240], [0, 0, 1]])
    made = CameraModel(640, 480, "camera", k, "equidistant", (1e-9, 0, 0, 0))
    degrees = np.array([0.0, 45, 89])
    pixels, in_front = made.project(at_angles(degrees))
    assert in_front.all()
    assert pixels[:, 0] == pytest.approx(320 + 200 * np.radians(degrees), abs=1e-3)


@pytest.mark.parametrize("lens", LENSES)
def test_a_resized_image_has_the_same_field_of_view(lens):
    made = camera(lens)
    half = made.resized(height=160, width=320)
    assert (half.width, half.height) == (320, 160)
    assert half.distortion == made.distortion
    corners = np.array([[-0.5, -0.5], [639.5, 479.5], [319.5, 239.5]])
    resized = np.array([[-0.5, -0.5], [319.5, 159.5], [159.5, 79.5]])
    assert half.rays_at(resized) == pytest.approx(made.rays_at(corners), abs=1e-5, nan_ok=True)
