"""Binary masks as run lengths, encoded and decoded by pycocotools."""

from __future__ import annotations

import json

import numpy as np
import pytest
from dataset_fixtures import run_lengths
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from video_knet_core.run_lengths import RunLengths


@given(arrays(np.bool_, st.tuples(st.integers(0, 6), st.integers(0, 6))))
def test_run_lengths_give_the_mask_back(mask):
    runs = RunLengths.from_mask(mask)
    again = RunLengths.from_coco(json.loads(json.dumps(runs.to_coco())))
    plain = RunLengths.from_coco({"size": mask.shape, "counts": run_lengths(mask)})
    assert runs.area == mask.sum()
    for entry in (runs, again, plain):
        np.testing.assert_array_equal(entry.mask(), mask)


def test_runs_of_no_pixels_are_allowed():
    runs = RunLengths.from_coco({"size": [1, 4], "counts": [0, 1, 0, 2, 1, 0]})
    np.testing.assert_array_equal(runs.mask(), [[True, True, True, False]])
    assert runs.area == 3


@pytest.mark.parametrize(
    "counts",
    [
        *([1, 4], [1, 8], [7, -1], [1, (1 << 32) + 2, 3], [1 << 70], [2.5, 3.5], ["6"], [[6]]),
        *(None, 6, "", "5", "7", "6!", "P", "6\u00e9", "P" * 20 + "0", "\x7f" * 9, "6P"),
    ],
)
def test_malformed_run_lengths_are_rejected(counts):
    """pycocotools reads or writes memory that is not its own for some of them."""
    with pytest.raises(ValueError, match="expected"):
        RunLengths.from_coco({"size": [2, 3], "counts": counts})


@pytest.mark.parametrize("size", [[1 << 40, 3], [1 << 20, 1 << 20], [-2, -3], [2, 3, 1]])
def test_sizes_that_no_image_has_are_rejected(size):
    with pytest.raises(ValueError):
        RunLengths.from_coco({"size": size, "counts": "6"})


def test_run_lengths_need_their_size_and_one_size_for_two_masks():
    with pytest.raises(ValueError, match="counts"):
        RunLengths.from_coco({"counts": [6]})


def test_polygons_are_rasterised_and_joined_as_pycocotools_does_it():
    """By `merge(frPyObjects([OUTLINE], 36, 48))` of pycocotools 2.0.11."""
    outline = np.array([10.2, 5.4, 40.7, 8.1, 33.3, 30.9, 20.0, 22.5, 4.6, 28.8]).reshape(-1, 2)
    runs = RunLengths.from_polygons([outline], (36, 48))
    counts = "]63m04L4K4M4M22O000O100O10000O10000010O1O001O1O001O001O1O010OM3L4M3M3M3M3Mg7"
    assert runs.to_coco() == {"size": [36, 48], "counts": counts}
    box = np.array([[-5.0, -5.0], [20.0, -5.0], [20.0, 20.0], [-5.0, 20.0]])
    assert RunLengths.from_polygons([box, box], (8, 9)).mask().all()
    assert not RunLengths.from_polygons([box[:2]], (8, 9)).area, "a line has no inside"
    assert not RunLengths.from_polygons([], (8, 9)).area


@pytest.mark.parametrize("far", [1e12, np.inf, np.nan])
def test_coordinates_far_off_the_image_are_rejected(far):
    with pytest.raises(ValueError, match="coordinates"):
        RunLengths.from_polygons([np.array([[0, 0], [far, 0], [5, 5]])], (8, 9))
