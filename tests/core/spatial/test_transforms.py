"""Transforms between frames over time must be those that tf2 gives."""

from __future__ import annotations

import math
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from video_knet_core.spatial.transforms import (
    HISTORY,
    TransformBuffer,
    TransformError,
    matrix,
    quaternion_of,
)

SECOND = 1_000_000_000
HERE = (0.0, 0.0, 0.0)
STRAIGHT = (0.0, 0.0, 0.0, 1.0)
LEFT = (0.0, 0.0, math.sqrt(0.5), math.sqrt(0.5))
"""A quarter turn about z, counter-clockwise from above."""


@pytest.fixture
def buffer() -> TransformBuffer:
    return TransformBuffer()


def drive(buffer: TransformBuffer, *seconds: float, child: str = "base") -> None:
    """Moves along x of odom at 1 m/s."""
    for second in seconds:
        buffer.add("odom", child, round(second * SECOND), (second, 0, 0), STRAIGHT)


def position(buffer: TransformBuffer, target: str, source: str, second: float) -> list[float]:
    """Of the origin of `source` in `target`."""
    return buffer.lookup(target, source, round(second * SECOND))[:3, 3].tolist()


def stamped(parent: str, child: str, seconds: float, x: float, w: float = 1.0) -> SimpleNamespace:
    """A geometry_msgs/TransformStamped."""
    whole, part = divmod(round(seconds * SECOND), SECOND)
    return SimpleNamespace(
        header=SimpleNamespace(frame_id=parent, stamp=SimpleNamespace(sec=whole, nanosec=part)),
        child_frame_id=child,
        transform=SimpleNamespace(
            translation=SimpleNamespace(x=x, y=0.0, z=0.0),
            rotation=SimpleNamespace(x=0.0, y=0.0, z=0.0, w=w),
        ),
    )


def odometry(parent: str, child: str, seconds: float, x: float, w: float = 1.0) -> SimpleNamespace:
    """A nav_msgs/Odometry."""
    message = stamped(parent, child, seconds, x, w)
    pose = message.transform
    message.pose = SimpleNamespace(
        pose=SimpleNamespace(position=pose.translation, orientation=pose.rotation)
    )
    return message


# --- geometry ------------------------------------------------------------------------------------


def test_a_frame_ahead_has_a_positive_place_in_its_parent(buffer):
    buffer.add("base", "camera", 0, (1, 0, 0), STRAIGHT)
    assert position(buffer, "base", "camera", 0) == [1, 0, 0]
    assert position(buffer, "camera", "base", 0) == [-1, 0, 0]


def test_what_is_ahead_of_a_frame_turned_left_is_left_of_its_parent(buffer):
    buffer.add("base", "camera", 0, (1, 0, 0), LEFT)
    ahead = np.array([2, 0, 0, 1])
    np.testing.assert_allclose(buffer.lookup("base", "camera", 0) @ ahead, [1, 2, 0, 1], atol=1e-12)
    np.testing.assert_allclose(
        buffer.lookup("camera", "base", 0) @ ahead, [0, -1, 0, 1], atol=1e-12
    )


def test_optical_axes(buffer):
    """The usual rotation of a camera's optical frame: z ahead, x to the right, y down."""
    buffer.add("camera", "optical", 0, HERE, (-0.5, 0.5, -0.5, 0.5), static=True)
    right_down_ahead = buffer.lookup("camera", "optical", 0)[:3, :3].T
    np.testing.assert_allclose(right_down_ahead, [[0, -1, 0], [0, 0, -1], [1, 0, 0]], atol=1e-12)


def test_a_matrix_has_the_quaternion_it_is_made_from():
    quaternions = np.random.default_rng(0).normal(size=(100, 4))
    quaternions = np.concatenate([quaternions, np.eye(4), -np.eye(4), [[1, 1, 0, 0]]])
    for quaternion in quaternions:
        pose = matrix((1, 2, 3), quaternion)
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
        unit = quaternion / np.linalg.norm(quaternion)
        found = quaternion_of(pose[:3, :3])
        assert found[3] >= 0
        assert abs(found @ unit) == pytest.approx(1)
        assert pose[:, 3].tolist() == [1, 2, 3, 1]


def test_a_quaternion_of_any_length_is_normalised(buffer):
    buffer.add("odom", "base", 0, HERE, (0, 0, 0, 5))
    buffer.add("odom", "base", 2, HERE, LEFT)
    eighth_turn = (0, 0, math.sin(math.pi / 8), math.cos(math.pi / 8))
    for stamp, quaternion in enumerate((STRAIGHT, eighth_turn, LEFT)):
        expected = matrix(HERE, quaternion)
        np.testing.assert_allclose(buffer.lookup("odom", "base", stamp), expected, atol=1e-12)


# --- time ----------------------------------------------------------------------------------------


def test_between_two_transforms_the_place_is_interpolated(buffer):
    drive(buffer, 1, 2)
    assert position(buffer, "odom", "base", 1.25) == pytest.approx([1.25, 0, 0])


@pytest.mark.parametrize("sign", [1, -1])
def test_between_two_transforms_the_turn_is_uniform_and_the_short_way(buffer, sign):
    buffer.add("odom", "base", 0, HERE, STRAIGHT)
    buffer.add("odom", "base", 3, HERE, [sign * value for value in LEFT])
    for stamp in range(4):
        rotation = buffer.lookup("odom", "base", stamp)[:3, :3]
        assert math.degrees(math.atan2(rotation[1, 0], rotation[0, 0])) == pytest.approx(30 * stamp)


def test_turns_that_are_too_small_for_the_arc_cosine_are_interpolated(buffer):
    buffer.add("odom", "base", 0, HERE, STRAIGHT)
    buffer.add("odom", "base", 2, HERE, (0, 0, 5e-10, 1))  # 1e-9 radians
    assert buffer.lookup("odom", "base", 1)[1, 0] == pytest.approx(5e-10)


def test_a_static_transform_holds_at_all_times(buffer):
    buffer.add("base", "camera", 5 * SECOND, (1, 0, 0), STRAIGHT, static=True)
    assert position(buffer, "base", "camera", 0) == [1, 0, 0]
    assert position(buffer, "base", "camera", 1e6) == [1, 0, 0]


@pytest.mark.parametrize("second", [4, 5, 6])
def test_a_static_transform_is_replaced_by_the_next_one_whatever_its_stamp(buffer, second):
    buffer.add("base", "camera", 5 * SECOND, (1, 0, 0), STRAIGHT, static=True)
    buffer.add("base", "camera", second * SECOND, (2, 0, 0), STRAIGHT, static=True)
    assert position(buffer, "base", "camera", 5) == [2, 0, 0]


def test_a_chain_of_static_and_moving_frames(buffer):
    buffer.add("base", "camera", 0, (0, 0, 1.5), LEFT, static=True)
    buffer.add("map", "odom", 0, (100, 0, 0), LEFT, static=True)
    drive(buffer, 0, 2)
    found = buffer.lookup("map", "camera", SECOND)
    np.testing.assert_allclose(
        found, [[-1, 0, 0, 100], [0, -1, 0, 1], [0, 0, 1, 1.5], [0, 0, 0, 1]], atol=1e-12
    )
    np.testing.assert_allclose(buffer.lookup("camera", "map", SECOND) @ found, np.eye(4), atol=1e-9)


def test_two_branches_meet_at_their_common_ancestor(buffer):
    buffer.add("base", "left", 0, (0, 0.5, 0), STRAIGHT, static=True)
    buffer.add("base", "right", 0, (0, -0.5, 0), STRAIGHT, static=True)
    drive(buffer, 0, 1)
    # at a time for which what is above the common ancestor has no transform
    assert position(buffer, "right", "left", 7) == [0, 1, 0]


def test_transforms_may_come_out_of_order(buffer):
    drive(buffer, 1, 4, 2, 3)
    for second in (1.5, 2.5, 3.5):
        assert position(buffer, "odom", "base", second) == pytest.approx([second, 0, 0])


def test_a_repeated_stamp_replaces(buffer):
    drive(buffer, 1, 2, 3)
    buffer.add("odom", "base", 2 * SECOND, (9, 0, 0), STRAIGHT)
    assert position(buffer, "odom", "base", 2) == [9, 0, 0]
    assert position(buffer, "odom", "base", 1.5) == pytest.approx([5, 0, 0])
    assert position(buffer, "odom", "base", 2.5) == pytest.approx([6, 0, 0])


def test_history_is_bounded(buffer):
    drive(buffer, *range(31))
    oldest = 30 - HISTORY // SECOND
    assert position(buffer, "odom", "base", oldest) == [oldest, 0, 0]
    with pytest.raises(TransformError, match="past"):
        buffer.lookup("odom", "base", (oldest - 2) * SECOND)


def test_between_two_transforms_further_apart_than_the_history(buffer):
    drive(buffer, 0, 40)
    assert position(buffer, "odom", "base", 30) == pytest.approx([30, 0, 0])


def test_a_looped_bag_starts_over(buffer):
    drive(buffer, *range(100, 120))
    drive(buffer, 3, 4)
    assert position(buffer, "odom", "base", 3.5) == pytest.approx([3.5, 0, 0])
    with pytest.raises(TransformError, match="future"):
        buffer.lookup("odom", "base", 119 * SECOND)


def test_a_small_step_back_keeps_the_history(buffer):
    drive(buffer, 10, 11, 4)
    assert position(buffer, "odom", "base", 10.5) == pytest.approx([10.5, 0, 0])


# --- the tree ------------------------------------------------------------------------------------


def test_a_frame_is_the_same_as_itself_even_if_unknown(buffer):
    np.testing.assert_array_equal(buffer.lookup("/camera", "camera", 5), np.eye(4))


def test_leading_slashes_are_stripped(buffer):
    buffer.add("/base", "/camera", 0, (1, 0, 0), STRAIGHT)
    assert position(buffer, "base", "camera", 0) == [1, 0, 0]
    assert position(buffer, "/base", "/camera", 0) == [1, 0, 0]


def test_a_frame_gets_another_parent(buffer):
    drive(buffer, 0, 1)
    buffer.add("dock", "base", 2 * SECOND, (0, 7, 0), STRAIGHT)
    buffer.add("dock", "base", 3 * SECOND, (0, 8, 0), STRAIGHT)
    assert position(buffer, "dock", "base", 2.5) == pytest.approx([0, 7.5, 0])
    assert position(buffer, "odom", "base", 1.5) == [1, 0, 0]  # between the two: as before
    with pytest.raises(TransformError, match="not connected"):
        buffer.lookup("odom", "base", 2 * SECOND)


def test_a_static_frame_that_begins_to_move_forgets_its_static_place(buffer):
    buffer.add("odom", "base", 0, (5, 0, 0), STRAIGHT, static=True)
    drive(buffer, 1)
    assert position(buffer, "odom", "base", 1) == [1, 0, 0]
    with pytest.raises(TransformError, match="past"):
        buffer.lookup("odom", "base", 0)


def test_clear_forgets_all(buffer):
    buffer.add("base", "camera", 0, HERE, STRAIGHT, static=True)
    drive(buffer, 1, 2)
    buffer.clear()
    with pytest.raises(TransformError, match="unknown"):
        buffer.lookup("base", "camera", 0)
    drive(buffer, 3)
    with pytest.raises(TransformError, match="only stamp"):
        buffer.lookup("odom", "base", 2 * SECOND)


def test_a_loop_above_the_target_does_not_matter(buffer):
    for parent, child in (("base", "camera"), ("odom", "base"), ("base", "odom")):
        buffer.add(parent, child, 0, (1, 0, 0), STRAIGHT, static=True)
    assert position(buffer, "base", "camera", 0) == [1, 0, 0]


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "source", "stamp", "reason"),
    [
        ("odom", "ghost", 1.0, ("'ghost'", "'odom'", "unknown")),
        ("ghost", "odom", 1.0, ("'ghost'", "'odom'", "unknown")),
        ("odom", "wall", 1.0, ("not connected", "'odom'", "'room'")),
        ("odom", "camera", 2.12, ("'base'", "120.000 ms", "future", "2.000 s", "newest")),
        ("camera", "odom", 2.12, ("'base'", "120.000 ms", "future", "2.000 s", "newest")),
        ("odom", "base", 0.5, ("'base'", "500.000 ms", "past", "1.000 s", "oldest")),
        ("odom", "person", 1.5, ("'person'", "500.000 ms", "future", "1.000 s", "only")),
        ("odom", "person", 0.5, ("'person'", "500.000 ms", "past", "1.000 s", "only")),
        ("odom", "snake", 1.0, ("loop", "'snake'", "tail -> head -> tail")),
    ],
)
def test_the_reason_names_what_is_missing(buffer, target, source, stamp, reason):
    drive(buffer, 1, 2)
    drive(buffer, 1, child="person")
    buffer.add("base", "camera", 0, HERE, STRAIGHT, static=True)
    buffer.add("room", "wall", 0, HERE, STRAIGHT, static=True)
    for parent, child in (("tail", "snake"), ("head", "tail"), ("tail", "head")):
        buffer.add(parent, child, 0, HERE, STRAIGHT, static=True)
    with pytest.raises(TransformError) as error:
        buffer.lookup(target, source, round(stamp * SECOND))
    assert isinstance(error.value, ValueError)
    for part in reason:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("parent", "child", "translation", "quaternion"),
    [
        ("", "base", HERE, STRAIGHT),
        ("odom", "/", HERE, STRAIGHT),
        ("/base", "base", HERE, STRAIGHT),
        ("odom", "base", (math.nan, 0, 0), STRAIGHT),
        ("odom", "base", (0, math.inf, 0), STRAIGHT),
        ("odom", "base", (0, 0), STRAIGHT),
        ("odom", "base", HERE, (0, 0, 0, 0)),
        ("odom", "base", HERE, (0, 0, 0, math.nan)),
        ("odom", "base", HERE, (0, 0, 1)),
    ],
)
def test_what_is_no_transform_is_rejected(buffer, parent, child, translation, quaternion):
    with pytest.raises(ValueError, match=r"expected .*, got"):
        buffer.add(parent, child, 0, translation, quaternion)
    with pytest.raises(TransformError, match="unknown"):
        buffer.lookup("odom", "base", 0)


# --- messages ------------------------------------------------------------------------------------


def test_a_message_of_transforms(buffer):
    message = SimpleNamespace(
        transforms=[stamped("odom", "base", 1.5, 3.0), stamped("base", "camera", 1.5, 4.0)]
    )
    assert buffer.add_message(message, static=False) == 0
    assert position(buffer, "odom", "camera", 1.5) == [7, 0, 0]
    assert buffer.add_message(message, static=True) == 0
    assert position(buffer, "odom", "camera", 99) == [7, 0, 0]


def test_faulty_transforms_of_a_message_are_counted_and_the_others_kept(buffer):
    transforms = [
        stamped("odom", "base", 1, math.nan),
        stamped("odom", "wheel", 1, 0.0, w=0.0),
        stamped("odom", "person", 1, 2.0),
    ]
    assert buffer.last_fault == ""
    assert buffer.add_message(SimpleNamespace(transforms=transforms), static=False) == 2
    assert "'wheel'" in buffer.last_fault and "quaternion" in buffer.last_fault
    assert position(buffer, "odom", "person", 1) == [2, 0, 0]


def test_odometry_is_the_pose_of_the_child_in_the_frame_of_the_header(buffer):
    assert buffer.add_odometry(odometry("odom", "base", 1, 2.0)) == 0
    assert position(buffer, "odom", "base", 1) == [2, 0, 0]
    assert buffer.add_odometry(odometry("odom", "", 1, 2.0)) == 1
    assert "''" in buffer.last_fault


# --- threads -------------------------------------------------------------------------------------


def test_lookups_while_another_thread_adds(buffer):
    buffer.add("base", "camera", 0, (0, 0, 1), STRAIGHT, static=True)
    drive(buffer, 0, 0.01)
    newest = [0.01]
    looked_up = threading.Event()

    def add() -> None:
        for step in range(2, 3000):  # longer than the history, which so loses its oldest
            drive(buffer, step / 100)
            newest[0] = step / 100
            if step % 400 == 0:  # never further ahead of a lookup than the history is long
                looked_up.clear()
                looked_up.wait(30)

    thread = threading.Thread(target=add, daemon=True)
    thread.start()
    while thread.is_alive():
        second = newest[0] - 0.004
        assert position(buffer, "odom", "camera", second) == pytest.approx([second, 0, 1])
        looked_up.set()
    thread.join()
    assert newest == [29.99]
