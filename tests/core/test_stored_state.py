"""State goes to bytes and back without a change, and nothing else can be in the bytes."""

from __future__ import annotations

import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from synthetic_street import SyntheticStreet
from video_knet_core.engine.selector import default_model_path, open_runtime
from video_knet_core.predictor import VideoPredictor
from video_knet_core.stored_state import StateError, pack, unpack
from video_knet_core.tracking import TRACKERS, tracker_settings


def test_a_tree_comes_back_with_its_types_and_bits():
    tree = {
        1: (0.1 + 0.2, math.nan, -0.0, math.inf, None, True, "name"),
        "list": [{}],
        "scalar": np.float32(0.1),
    }
    found = unpack(pack(tree))
    assert repr(found) == repr(tree) and type(found["scalar"]) is np.float32


def test_arrays_come_back_bit_by_bit():
    rng = np.random.default_rng(0)
    for array in (rng.normal(size=(3, 4)).astype(np.float32), np.zeros((0, 2), bool), np.int64(3)):
        found = unpack(pack([array]))[0]
        assert found.dtype == array.dtype and found.tobytes() == array.tobytes()


def test_equal_trees_have_equal_bytes():
    assert pack({"a": np.ones(3)}) == pack({"a": np.ones(3)})


def test_an_object_of_another_class_is_not_stored():
    with pytest.raises(StateError, match="Payload"):
        pack(Payload(Path()))


class Payload:
    """An object whose unpickling makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_damaged_and_foreign_bytes_are_refused_and_run_nothing(tmp_path):
    good = pack({"a": np.arange(1000)})
    payload = pickle.dumps(Payload(tmp_path / "made"))
    for data in (b"", b"text", good[:100], payload):
        with pytest.raises(StateError):
            unpack(data)
    assert not (tmp_path / "made").exists()


class Remembering:
    """An engine that computes nothing twice: bits that differ would be another question."""

    def __init__(self):
        self._runtime, self._answers = open_runtime(default_model_path()), {}
        self.name, self.info = self._runtime.name, self._runtime.info

    def step(self, image, state):
        question = image.tobytes(), None if state is None else state.tobytes()
        if question not in self._answers:
            self._answers[question] = self._runtime.step(image, state)
        return self._answers[question]

    def portable_state(self, state):
        return self._runtime.portable_state(state)


@pytest.fixture(scope="module")
def clip():
    """An engine and six images of a street."""
    street = SyntheticStreet(3)
    return Remembering(), [street.frame(number).image for number in range(6)]


@pytest.mark.parametrize("association", [a for a in TRACKERS if a != "appearance"])
def test_a_predictor_goes_on_as_if_it_had_never_stopped(association, clip):
    """`appearance` needs torch; what it remembers is what `embedding` does: a vector per track."""
    runtime, images = clip
    config = tracker_settings(association)
    whole, parts = VideoPredictor(runtime, config), VideoPredictor(runtime, config)
    tracks = 0
    for number, image in enumerate(images):
        stamp = number * 100_000_000
        wanted, found = whole.step(image, stamp), parts.step(image, stamp)
        assert repr(found.tracks) == repr(wanted.tracks)
        assert (found.born, found.ended, found.epoch) == (wanted.born, wanted.ended, wanted.epoch)
        assert np.array_equal(found.labels, wanted.labels)
        tracks = max(tracks, sum(track.is_thing for track in found.tracks))
        state = parts.state()
        assert state == whole.state()
        parts = VideoPredictor(runtime, config)
        parts.restore(state)
    assert tracks >= 2
