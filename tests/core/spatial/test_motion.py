"""Motion: known trajectories, seen with noise, and what does not fit them."""

from __future__ import annotations

import numpy as np
import pytest

from video_knet_core.spatial.motion import (
    FIRST_SPEED,
    MAX_GAP_S,
    MAX_OUTLIERS,
    VELOCITY_FACTOR,
    MotionFilter,
)

SECOND = 1_000_000_000
PERIOD = SECOND // 10
SIGMA = 0.1
NONE = np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros((0, 3, 3))


def measured(ids, positions, sigma: float = SIGMA):
    """Ids, positions and covariances of a frame."""
    places = np.asarray(positions, float).reshape(-1, 3)
    return np.asarray(ids, np.int64), places, np.repeat([np.eye(3) * sigma**2], len(places), 0)


def step(filter_: MotionFilter, frame: int, ids, positions, sigma=SIGMA) -> list[bool]:
    """A frame at 10 Hz, of tracks that are all measured."""
    return filter_.step(frame * PERIOD, list(ids), *measured(ids, positions, sigma)).tolist()


def followed(positions, sigma: float = SIGMA) -> MotionFilter:
    """Track 1, seen at a position in each frame."""
    filter_ = MotionFilter()
    for frame, position in enumerate(positions):
        step(filter_, frame, [1], [position], sigma)
    return filter_


def line(frames: int, speed: float = 2.0) -> np.ndarray:
    """Places along x."""
    places = np.zeros((frames, 3))
    places[:, 0] = speed * 0.1 * np.arange(frames)
    return places


def test_a_constant_velocity_is_recovered_from_noisy_places():
    rng = np.random.default_rng(0)
    velocity = np.array([3.0, -1.0, 0.2])
    places = 5 + velocity * 0.1 * np.arange(60)[:, None] + rng.normal(0, SIGMA, (60, 3))
    _, _, found, spread = followed(places).estimates()
    assert found[0] == pytest.approx(velocity, abs=0.8)
    assert np.sqrt(np.diag(spread[0])) == pytest.approx([0.75] * 3, rel=0.3)


def test_the_place_is_more_certain_than_a_measurement():
    position, covariance, _, _ = followed(line(40)).estimates()
    assert position[0] == pytest.approx([7.8, 0, 0], abs=1e-3)
    assert (np.diag(covariance[0]) < SIGMA**2).all()


def simulated(seed: int, frames: int, sigma: float):
    """Errors and covariances [6] of a track that accelerates at random as the filter assumes."""
    from video_knet_core.spatial.motion import ACCELERATION

    rng = np.random.default_rng(seed)
    place, velocity = rng.normal(0, 10, 3), rng.normal(0, 3, 3)
    filter_ = MotionFilter()
    for frame in range(frames):
        if frame:
            push = rng.normal(0, ACCELERATION, 3)
            place, velocity = place + 0.1 * velocity + 0.005 * push, velocity + 0.1 * push
        step(filter_, frame, [1], [place + rng.normal(0, sigma, 3)], sigma)
    position, covariance, found, spread = (values[0] for values in filter_.estimates())
    return place - position, covariance, velocity - found, spread / VELOCITY_FACTOR**2


@pytest.mark.parametrize("sigma", [0.02, 0.2])
def test_the_covariances_are_those_of_the_errors(sigma):
    """Normalised squared errors of three dimensions have a mean of 3."""
    runs = [simulated(seed, 25, sigma) for seed in range(150)]
    of_place = [error @ np.linalg.solve(cov, error) for error, cov, _, _ in runs]
    of_velocity = [error @ np.linalg.solve(cov, error) for _, _, error, cov in runs]
    assert np.mean(of_place) == pytest.approx(3, abs=0.6)
    assert np.mean(of_velocity) == pytest.approx(3, abs=0.6)


def test_covariances_stay_symmetric_and_positive():
    filter_ = followed(line(500), sigma=1e-3)
    for covariance in (filter_.estimates()[1][0], filter_.estimates()[3][0]):
        assert covariance == pytest.approx(covariance.T)
        assert (np.linalg.eigvalsh(covariance) > 0).all()


# --- the first frames ----------------------------------------------------------------------------


def test_the_velocity_is_unknown_after_one_measurement():
    position, _, velocity, spread = followed(line(1)).estimates()
    assert position[0].tolist() == [0, 0, 0]
    assert np.isnan(velocity).all() and np.isnan(spread).all()


def test_the_velocity_is_known_after_two_and_uncertain():
    _, _, velocity, spread = followed(line(2)).estimates()
    assert velocity[0] == pytest.approx([2, 0, 0], abs=0.2)
    expected = VELOCITY_FACTOR * np.sqrt(2) * SIGMA / 0.1
    assert np.sqrt(spread[0, 0, 0]) == pytest.approx(expected, rel=0.1)
    assert expected < FIRST_SPEED


def test_estimates_are_copies():
    filter_ = followed(line(5))
    for values in filter_.estimates():
        values[:] = 99
    assert filter_.estimates()[0].max() < 1


# --- tracks that are not measured ----------------------------------------------------------------


def test_a_track_that_is_not_measured_goes_on_as_it_went():
    filter_ = followed(line(30))
    for frame in range(30, 35):
        filter_.step(frame * PERIOD, [1], *NONE)
    position, covariance, velocity, _ = filter_.estimates()
    assert position[0, 0] == pytest.approx(0.2 * 34, abs=0.01)
    assert velocity[0] == pytest.approx([2, 0, 0], abs=0.01)
    assert covariance[0, 0, 0] > followed(line(30)).estimates()[1][0, 0, 0]


def test_tracks_that_are_gone_are_forgotten():
    filter_ = MotionFilter()
    step(filter_, 0, [4, 9], [[0, 0, 0], [5, 0, 0]])
    step(filter_, 1, [9], [[5, 0, 0]])
    assert filter_.ids.tolist() == [9]
    step(filter_, 2, [4, 9], [[1, 0, 0], [5, 0, 0]])
    _, _, velocity, _ = filter_.estimates()
    assert filter_.ids.tolist() == [9, 4] and np.isnan(velocity).any(axis=1).tolist() == [
        False,
        True,
    ]


def test_measurements_find_their_track_in_any_order():
    one, other, places = (
        MotionFilter(),
        MotionFilter(),
        np.array([[0.0, 0, 0], [9, 0, 0], [0, 9, 0]]),
    )
    for frame in range(5):
        step(one, frame, [1, 2, 3], places + frame)
        order = np.roll([0, 1, 2], frame)
        step(other, frame, np.array([1, 2, 3])[order], (places + frame)[order])
    for a, b in zip(one.estimates(), other.estimates(), strict=True):
        assert a == pytest.approx(b, nan_ok=True)


def test_ids_have_64_bits():
    filter_ = MotionFilter()
    ids = [2**31, 2**31 + 1, 2**53]
    for frame in range(3):
        step(filter_, frame, ids, [[n, 0, 0] for n in range(3)])
    assert filter_.ids.tolist() == ids
    assert filter_.estimates()[0][:, 0] == pytest.approx([0, 1, 2])


def test_a_frame_without_tracks_is_one():
    filter_ = MotionFilter()
    filter_.step(0, [], *NONE)
    filter_.step(PERIOD, [3], *NONE)
    assert [len(values) for values in filter_.estimates()] == [0, 0, 0, 0]


# --- outliers ------------------------------------------------------------------------------------


def test_a_measurement_that_does_not_fit_is_left_out():
    filter_ = followed(line(30))
    step(filter_, 30, [1], [[60.0, 0, 0]])
    assert filter_.estimates()[0][0, 0] == pytest.approx(6, abs=0.01)
    step(filter_, 31, [1], [[6.2, 0, 0]])
    position, _, velocity, _ = filter_.estimates()
    assert (position[0, 0], velocity[0, 0]) == pytest.approx((6.2, 2), abs=0.05)


def test_after_several_of_them_the_track_is_begun_anew():
    filter_ = followed(line(30))
    fits = []
    for frame in range(30, 30 + MAX_OUTLIERS):
        assert not np.isnan(filter_.estimates()[2]).any()
        fits += step(filter_, frame, [1], [[60.0, 0, 0]])
    assert fits == [False] * (MAX_OUTLIERS - 1) + [True]
    position, covariance, velocity, _ = filter_.estimates()
    assert position[0].tolist() == [60, 0, 0]
    assert covariance[0] == pytest.approx(np.eye(3) * SIGMA**2)
    assert np.isnan(velocity[0]).all()


def test_outliers_count_only_in_a_row():
    filter_ = followed(line(30, speed=0))
    for frame in range(30, 60):
        step(filter_, frame, [1], [[50.0 if frame % 3 else 0.0, 0, 0]])
    assert filter_.estimates()[0][0, 0] == pytest.approx(0, abs=0.01)


def test_an_outlier_of_one_track_is_none_of_another():
    filter_ = MotionFilter()
    for frame in range(20):
        step(filter_, frame, [1, 2], [[0, 0, 0], [5, 0, 0]])
    assert step(filter_, 20, [1, 2], [[40, 0, 0], [5, 0, 0]]) == [False, True]
    step(filter_, 21, [1, 2], [[0, 0, 0], [45, 0, 0]])
    assert filter_.estimates()[0][:, 0] == pytest.approx([0, 5], abs=0.01)


# --- time ----------------------------------------------------------------------------------------


def test_frames_need_no_constant_rate():
    rng = np.random.default_rng(0)
    seconds = np.cumsum(rng.uniform(0.02, 0.3, 50))
    filter_ = MotionFilter()
    for second in seconds:
        filter_.step(round(second * SECOND), [1], *measured([1], [[2 * second, 0, 0]]))
    assert filter_.estimates()[2][0] == pytest.approx([2, 0, 0], abs=0.05)


def test_after_a_long_gap_all_is_begun_anew():
    filter_ = followed(line(30))
    stamp = 29 * PERIOD + round((MAX_GAP_S + 0.1) * SECOND)
    filter_.step(stamp, [1], *measured([1], [[50.0, 0, 0]]))
    position, _, velocity, _ = filter_.estimates()
    assert position[0].tolist() == [50, 0, 0] and np.isnan(velocity).all()


def test_after_a_long_gap_there_is_no_track_until_it_is_measured():
    filter_ = followed(line(30))
    filter_.step(100 * SECOND, [1], *NONE)
    assert len(filter_.ids) == 0


def test_when_time_goes_back_far_all_is_begun_anew():
    filter_ = followed(line(30))
    filter_.step(0, [1], *measured([1], [[0.0, 0, 0]]))
    assert np.isnan(filter_.estimates()[2]).all()


def test_a_frame_that_is_a_little_late_does_not_move_the_tracks_twice():
    filter_ = followed(line(30))
    filter_.step(28 * PERIOD, [1], *NONE)
    filter_.step(30 * PERIOD, [1], *NONE)
    assert filter_.estimates()[0][0, 0] == pytest.approx(6, abs=0.01)


def test_frames_of_equal_stamps_are_measurements_of_one_moment():
    filter_ = followed(line(30))
    before = filter_.estimates()[1][0, 0, 0]
    step(filter_, 29, [1], [[5.8, 0, 0]])
    assert filter_.estimates()[0][0, 0] == pytest.approx(5.8, abs=0.01)
    assert filter_.estimates()[1][0, 0, 0] < before
