"""Errors in metres of an engine that knows the street: those of sensors and filter alone."""

from __future__ import annotations

import numpy as np
import pytest
from street_fixtures import Oracle

from synthetic_street import SyntheticStreet
from video_knet_core.evaluate.metres import DISTANCES, SOURCES, evaluate_metres

SEED, FRAMES = 40_002, 12


@pytest.fixture(scope="module")
def figures():
    return evaluate_metres(Oracle(SyntheticStreet(SEED)), [SEED], FRAMES).figures


def test_there_is_a_row_for_each_source_and_distance(figures):
    assert list(figures) == [f"{s} {low}-{high} m" for s in SOURCES for low, high in DISTANCES]


def test_the_same_tracks_are_compared_for_each_source(figures):
    for low, high in DISTANCES:
        assert len({figures[f"{source} {low}-{high} m"]["tracks"] for source in SOURCES}) == 1
    assert figures["depth 0-30 m"]["tracks"] > FRAMES


@pytest.mark.parametrize(("source", "limit"), [("depth", 0.01), ("stereo", 0.03), ("ground", 0.1)])
def test_the_range_of_known_masks_has_a_small_error(figures, source, limit):
    found = figures[f"{source} 0-30 m"]
    assert found["ranged"] > (0.3 if source == "ground" else 0.9)
    assert 0 < found["error"] < limit
    assert found["2 sigma"] > 0.8


def test_velocities_have_a_small_error_with_depth(figures):
    found = figures["depth 0-30 m"]
    speeds = [found["parked m/s"], found["moving m/s"]]
    assert np.nanmax(speeds) < 0.8


def test_without_streets_there_are_no_figures():
    found = evaluate_metres(Oracle(SyntheticStreet(SEED)), [], 5)
    assert all(row["tracks"] == 0 for row in found.figures.values())
