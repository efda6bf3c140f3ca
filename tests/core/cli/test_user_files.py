"""No command writes over what it reads, nor over what it did not write."""

from __future__ import annotations

import shutil

import pytest
import yaml

from video_knet_core.cli import main
from video_knet_core.config import ModelConfig
from video_knet_core.config_io import load_yaml
from video_knet_core.engine.selector import default_model_path
from video_knet_core.output_files import exclusive
from video_knet_core.training.train_config import TrainConfig


@pytest.fixture
def mine(tmp_path):
    """A file of the user; what it holds does not matter, since it is rejected before it is read."""
    path = tmp_path / "mine.onnx"
    shutil.copy(default_model_path(), path)
    return path


def rejected(command, capsys, tmp_path):
    """The error of a command that changes no file."""
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert main([str(word) for word in command]) == 2
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    return capsys.readouterr().err


def test_export_and_build_engine_keep_their_model(mine, capsys, tmp_path):
    assert "is the input" in rejected(["export", mine, mine], capsys, tmp_path)
    plan = mine.rename(tmp_path / "mine.plan")
    link = tmp_path / "link.onnx"
    link.symlink_to(plan)
    assert "is the input" in rejected(["build-engine", link, "--out", plan], capsys, tmp_path)


@pytest.mark.parametrize(
    ("command", "suffix"),
    [
        (["export", "a.safetensors", "{out}"], ".onnx"),
        (["import-checkpoint", "a.pth", "{out}", "--config", "street_lite0"], ".safetensors"),
        (["bench", "--json", "{out}"], ".json"),
        (["eval", "dataset", "custom", "root", "--json", "{out}"], ".json"),
        (["eval", "judges", "--root", "root", "--json", "{out}"], ".json"),
        (["build-engine", str(default_model_path()), "--out", "{out}"], ".plan"),
    ],
)
def test_a_result_is_never_written_over_a_file_of_another_kind(command, suffix, capsys, tmp_path):
    photo = tmp_path / "photo.jpg"
    photo.write_text("mine")
    command = [word.format(out=photo) for word in command]
    assert f"ends in {suffix}" in rejected(command, capsys, tmp_path)
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    command = [word.replace(str(photo), str(folder)) for word in command]
    assert "got the folder" in rejected(command, capsys, tmp_path)


def test_an_imported_checkpoint_is_not_written_over_its_source(mine, capsys, tmp_path):
    source = mine.rename(tmp_path / "mine.safetensors")
    command = ["import-checkpoint", source, source, "--config", "street_lite0"]
    assert "is the input" in rejected(command, capsys, tmp_path)


def test_scores_are_not_written_over_the_data_or_the_predictions(capsys, tmp_path):
    for name in ("root", "predictions"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.json").write_text("{}")
    for name in ("root", "predictions"):
        command = ["eval", "dataset", "custom", tmp_path / "root"]
        command += ["--predictions", tmp_path / "predictions"]
        command += ["--json", tmp_path / name / "index.json"]
        assert "is the input" in rejected(command, capsys, tmp_path)


@pytest.mark.parametrize("name", ["last.state.safetensors", "last.safetensors", "best.safetensors"])
def test_a_training_replaces_no_weights_of_another(name, capsys, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("weights")
    command = ["train", "street_lite0", "--out", tmp_path / "out", "--device", "cpu"]
    assert name in rejected(command, capsys, tmp_path)


def test_paths_in_a_configuration_may_begin_with_a_tilde(monkeypatch, tmp_path):
    pytest.importorskip("torch")
    monkeypatch.setenv("HOME", str(tmp_path))
    shipped = default_model_path().parents[1] / "config"
    shutil.copy(shipped / "models/street_lite0.yaml", tmp_path / "mine.yaml")
    settings = yaml.safe_load((shipped / "train/street_lite0.yaml").read_text())
    path = tmp_path / "elsewhere/train.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(settings | {"model": "~/mine.yaml"}))
    model = load_yaml(TrainConfig, path).load_model_config(path)
    assert model == load_yaml(ModelConfig, tmp_path / "mine.yaml")


def test_two_trainings_into_one_folder_exclude_each_other(capsys, tmp_path):
    pytest.importorskip("torch")
    from video_knet_core.training.trainer import train_from_config

    shipped = default_model_path().parents[1] / "config/train/street_lite0.yaml"
    settings = yaml.safe_load(shipped.read_text())
    settings |= {
        "model": str(shipped.parents[1] / "models/street.yaml"),
        "init": str(default_model_path().with_suffix(".safetensors")),
        "data": {"copy_paste_weight": 0.0, "synthetic_seeds": 1},
        "validation": {"every": 0},
    }
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(settings))
    with exclusive(tmp_path / "out"), pytest.raises(OSError, match="another process"):
        train_from_config(path, tmp_path / "out", None, device="cpu")
