"""Every network goes through the commands that a Video K-Net goes through."""

from __future__ import annotations

import json

import cv2
import pytest
import torch
import yaml
from deeplab_cases import MODELS, small_config

from synthetic_street import SyntheticStreet
from video_knet_core.cli import main
from video_knet_core.config_io import to_dict
from video_knet_core.model.checkpoint import build_network, save_model
from video_knet_core.tracking import TRACKERS

SYSTEMS = {
    "panoptic_deeplab": "iou",
    "motion_deeplab": "motion_offsets",
    "vip_deeplab": "stitching",
    "vpsnet": "masktrack",
    "tcb": "embedding",  # it has no things, and so nothing is tracked
}


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    street = SyntheticStreet(1, 64, 96)
    for t in range(3):
        cv2.imwrite(str(folder / f"{t}.png"), street.frame(t).image[..., ::-1])
    return folder


def test_there_is_a_configuration_of_the_street_for_each():
    found = {path.stem.removeprefix("street_") for path in MODELS.glob("street_*.yaml")}
    assert found == set(SYSTEMS)


def test_their_trackers_are_known_by_name():
    assert {*SYSTEMS.values(), "unitrack"} <= set(TRACKERS)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "tracker"), SYSTEMS.items())
def test_a_checkpoint_is_exported_tracked_evaluated_and_built(network, tracker, frames, tmp_path):
    torch.manual_seed(0)
    settings = {"instances": 0} if network == "tcb" else {}
    save_model(build_network(small_config(network, **settings)), tmp_path / "last.safetensors")
    checkpoint, model, out = (str(tmp_path / n) for n in ("last.safetensors", "m.onnx", "out"))
    assert main(["export", checkpoint, model]) == 0
    engine = ["--model", model, "--tracker", tracker]
    assert main(["track", str(frames), *engine, "--out", out]) == 0
    lines = (tmp_path / "out" / "tracks.jsonl").read_text().splitlines()
    assert [json.loads(line)["stamp"] for line in lines] == sorted(
        json.loads(line)["stamp"] for line in lines
    )
    assert len(lines) == 3
    if network != "tcb":  # that command measures tracks
        assert main(["eval", "synthetic", *engine, "--clips", "1", "--frames", "2"]) == 0
    pytest.importorskip("tensorrt_rtx_bindings")
    plan = tmp_path / "m.plan"
    assert main(["build-engine", model, "--target", "sm86", "--out", str(plan)]) == 0
    assert plan.stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("network", [n for n in SYSTEMS if n != "tcb"])
def test_it_is_trained_by_a_run_file(network, tmp_path):
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(to_dict(small_config(network))))
    run = {
        **{"model": "model.yaml", "steps": 1, "batch": 2, "workers": 0, "train": "decoder"},
        **{"height": 64, "width": 96, "data": {"copy_paste_weight": 0.0, "synthetic_seeds": 1}},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    assert main(["train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "last.safetensors").is_file()
