"""Data sets are scored as they come: with a model, or with maps on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dataset_fixtures import FIXTURES

from video_knet_core.cli import main
from video_knet_core.data.submissions import write_step

PANOPTIC = ("kitti_step", "kitti_step_flat", "cityscapes_vps", "vipseg", "own")


def write_truth(frames, out: Path) -> None:
    """The labels themselves as predictions, with ids that fit 16 bits."""
    ids = np.unique(np.concatenate([np.unique(frame.instance) for frame in frames] + [[0]]))
    for frame in frames:
        instance = np.searchsorted(ids, frame.instance)
        write_step(out, frame.video, frame.name, frame.semantic, instance)


@pytest.mark.parametrize("name", PANOPTIC)
def test_the_labels_themselves_score_one(name, tmp_path, capsys):
    fixture = FIXTURES[name]
    write_truth(fixture.write(tmp_path / "data"), tmp_path / "maps")
    arguments = ["--split", fixture.split, "--predictions", str(tmp_path / "maps")]
    command = ["eval", "dataset", fixture.dataset, str(tmp_path / "data"), *arguments]
    assert main([*command, "--json", str(tmp_path / "scores.json")]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["total"]["stq"] == pytest.approx(1)
    assert scores["total"]["aq"] == pytest.approx(1)
    assert set(scores["per_sequence"]) == {f.name for f in (tmp_path / "maps").iterdir()}
    assert f"all ({scores['frames']} frames)" in capsys.readouterr().out


def test_a_missing_map_a_foreign_model_and_other_data_sets_are_named(tmp_path, capsys):
    fixture = FIXTURES["vipseg"]
    frames = fixture.write(tmp_path / "data")
    command = ["eval", "dataset", "vipseg", str(tmp_path / "data"), "--split", fixture.split]
    assert main([*command, "--predictions", str(tmp_path)]) == 2
    assert f"{frames[0].name}.png" in capsys.readouterr().err
    assert main(command) == 2
    assert "street_lite0: vipseg has 124 classes with things" in capsys.readouterr().err
    assert main(["eval", "dataset", "vspw", str(tmp_path)]) == 2
    assert "must be one of ['kitti_step'" in capsys.readouterr().err


def test_a_model_runs_over_the_videos_and_each_starts_anew(tmp_path, capsys):
    """The shipped model on streets of a thumbnail's size: it sees something, if not much."""
    FIXTURES["own"].write(tmp_path / "data")
    command = ["eval", "dataset", "own", str(tmp_path / "data")]
    assert main([*command, "--json", str(tmp_path / "one.json")]) == 0
    assert main([*command, "--json", str(tmp_path / "two.json")]) == 0
    scores = json.loads((tmp_path / "one.json").read_text())
    assert scores == json.loads((tmp_path / "two.json").read_text())
    assert 0.1 < scores["total"]["sq"] < 1
