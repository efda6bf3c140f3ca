"""The registry: trackers and their settings by name."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Annotated, ClassVar

import pytest
from pydantic import Field

from video_knet_core.config_io import ConfigError, settings_class
from video_knet_core.tracking import (
    TRACKERS,
    all_settings,
    build_tracker,
    tracker_settings,
)
from video_knet_core.tracking.embedding import EmbeddingSettings, EmbeddingTracker
from video_knet_core.tracking.tracker import Tracker, TrackerSettings, number


def test_settings_choose_the_tracker():
    settings = tracker_settings(**{"tracker": "sort", "birth_score": 0.4})
    tracker = build_tracker(settings)
    assert type(tracker) is TRACKERS["sort"] and tracker.settings is settings
    assert settings == TRACKERS["sort"].Settings(birth_score=0.4)


def test_embeddings_are_the_default():
    assert type(build_tracker()) is EmbeddingTracker
    assert tracker_settings() == EmbeddingSettings()


@pytest.mark.parametrize(
    ("data", "part"),
    [
        ({"tracker": "deepsort"}, "'sort'"),
        ({"tracker": "iou", "match_threshold": 0.5}, "match_threshold"),
        ({"birth_scor": 0.5}, "birth_score"),
        ({"confirm_frames": 1.5}, "confirm_frames"),
        ({"confirm_frames": 0}, "confirm_frames"),
        ({"match_threshold": 1.5}, "match_threshold"),
        ({"max_coast_s": -1.0}, "max_coast_s"),
    ],
)
def test_what_there_is_not_is_a_config_error(data, part):
    with pytest.raises(ConfigError, match=part):
        tracker_settings(**data)


def test_each_setting_of_each_tracker_is_described():
    found = all_settings()
    for name, tracker in TRACKERS.items():
        for field in dataclasses.fields(tracker.Settings):
            assert name in found[field.name].trackers and found[field.name].description
            assert found[field.name].range or isinstance(found[field.name].default, bool)


def test_a_setting_that_means_something_else_to_an_own_tracker_is_an_error(monkeypatch):
    """The node has one parameter for it, with one default and one range."""

    class Own(Tracker):
        @settings_class
        class Settings(TrackerSettings):
            tracker: ClassVar[str] = "own"
            momentum: float = number(3.0, 1, 5, "Kilograms.")

    monkeypatch.setitem(TRACKERS, "own", Own)
    with pytest.raises(TypeError, match="momentum of tracker own: .*quasi_dense"):
        all_settings()


def test_a_range_without_an_end_is_none(monkeypatch):
    class Own(Tracker):
        @settings_class
        class Settings(TrackerSettings):
            tracker: ClassVar[str] = "own"
            mass: Annotated[float, Field(gt=0)] = 1.0

    monkeypatch.setitem(TRACKERS, "own", Own)
    assert all_settings()["mass"].range is None and all_settings()["mass"].description == ""


def test_a_module_that_cannot_be_imported_is_named_in_the_log_and_ends_nothing(tmp_path):
    (tmp_path / "stale_tracker.py").write_text(
        "from video_knet_core.tracking import removed_name\n"
    )
    program = f"""
import pkgutil
listed = pkgutil.iter_modules
pkgutil.iter_modules = lambda path: path.append({str(tmp_path)!r}) or listed(path)
from video_knet_core import tracking
print(*tracking.TRACKERS)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == sorted(TRACKERS) and "stale_tracker" in done.stderr
