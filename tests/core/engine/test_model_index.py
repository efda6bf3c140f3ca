"""Models by name: the index of this version, and where a name is looked up."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from video_knet_core.engine import model_index as indexed
from video_knet_core.engine.base import ModelError
from video_knet_core.engine.cache_files import cache_folder
from video_knet_core.engine.model_index import (
    CHECKPOINT,
    EXPORTED,
    SUFFIXES,
    download_folder,
    find_model,
    model_index,
)
from video_knet_core.engine.selector import default_model_path, open_runtime
from video_knet_core.model_download import sha256_of

REPO = Path(__file__).parents[3]


# --- the index -----------------------------------------------------------------------------------


def test_the_index_has_the_files_of_the_folder_and_what_they_hold():
    files = {file.name: file for model in model_index().models for file in model.files}
    paths = {path.name: path for path in (REPO / "models").iterdir() if path.suffix in SUFFIXES}
    assert files.keys() == paths.keys()
    for name, path in paths.items():
        assert (files[name].bytes, files[name].sha256) == (path.stat().st_size, sha256_of(path))


def test_the_files_of_a_model_have_its_name_and_there_is_a_checkpoint():
    for model in model_index().models:
        suffixes = [file.name.removeprefix(model.name) for file in model.files]
        assert suffixes == [suffix for suffix in SUFFIXES if suffix in suffixes]
        assert CHECKPOINT[0] in suffixes
        assert (REPO / model.card).is_file() and model.summary and model.terms
        assert model.use in ("research only", "commercial use allowed")


def test_no_other_weights_are_in_the_repository():
    if not (REPO / ".git").exists():
        pytest.skip("not a git checkout")
    words = ["git", "ls-files", "*.onnx", "*.safetensors", "*.pth", "*.pt", "*.engine", "*.plan"]
    tracked = subprocess.check_output(words, cwd=REPO, text=True).split()
    listed = [f"models/{file.name}" for model in model_index().models for file in model.files]
    assert sorted(tracked) == sorted(listed)


@pytest.mark.parametrize("text", [None, "release: v1\n", "release: v1\nmodels: [{name: a}]\n", "]"])
def test_an_index_that_is_missing_or_damaged_is_an_error_of_the_model(text, tmp_path, monkeypatch):
    def file(name):
        if text is None:
            raise FileNotFoundError(name)
        (tmp_path / "index.yaml").write_text(text)
        return tmp_path / "index.yaml"

    monkeypatch.setattr(indexed, "shared_file", file)
    with pytest.raises(ModelError, match=r"index\.yaml"):
        find_model("street")


# --- where a name is looked up -------------------------------------------------------------------


@pytest.fixture
def places(tmp_path, monkeypatch) -> dict[str, Path]:
    """Two folders of the user, the cache and the package, all empty."""
    first, second, shared = tmp_path / "first", tmp_path / "second", tmp_path / "share"
    monkeypatch.setenv("VIDEO_KNET_MODELS", f"{first}{os.pathsep}{os.pathsep}{second}")
    monkeypatch.setenv("VIDEO_KNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(indexed, "shared_folders", lambda: [shared])
    folders = {"first": first, "second": second, "cache": download_folder(model_index())}
    folders["package"] = shared / "models"
    for folder in folders.values():
        folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return folders


def test_the_places_from_first_to_last(places):
    for name in reversed(places):
        file = places[name] / "mine.onnx"
        file.touch()
        assert find_model("mine") == file


def test_an_exported_model_comes_before_a_checkpoint(places):
    checkpoint, exported = places["second"] / "mine.safetensors", places["second"] / "mine.onnx"
    checkpoint.touch()
    assert find_model("mine") == checkpoint
    exported.touch()
    assert find_model("mine") == exported
    assert find_model("mine", CHECKPOINT) == checkpoint


def test_what_was_downloaded_does_not_hide_what_the_package_exports(places):
    (places["cache"] / "mine.safetensors").touch()
    (places["package"] / "mine.onnx").touch()
    assert find_model("mine") == places["package"] / "mine.onnx"
    assert find_model("mine", CHECKPOINT) == places["cache"] / "mine.safetensors"


def test_a_model_that_is_a_checkpoint_only_is_to_be_exported(places):
    with pytest.raises(ModelError, match="video-knet export street_open street_open.onnx"):
        find_model("street_open", EXPORTED)
    with pytest.raises(ModelError, match="models get street --checkpoint"):
        find_model("stret", CHECKPOINT)


def test_a_folder_that_cannot_be_read_hides_no_other(places, monkeypatch):
    def unreadable(path):
        if path.is_relative_to(places["first"]):
            raise PermissionError(13, "Permission denied", str(path))
        return os.path.isfile(path)

    (places["package"] / "mine.onnx").touch()
    monkeypatch.setattr(Path, "is_file", unreadable)
    assert find_model("mine") == places["package"] / "mine.onnx"


def test_a_folder_that_cannot_be_listed_hides_no_name(places, monkeypatch):
    def closed(path):
        if path == places["first"]:
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    (places["package"] / "mine.onnx").touch()
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", closed)
    with pytest.raises(ModelError, match="did you mean mine"):
        find_model("mne")


def test_a_user_without_a_home_folder_has_a_cache_that_cannot_be_written(monkeypatch):
    for variable in ("VIDEO_KNET_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as without a line in passwd
    assert cache_folder() == Path("/.cache/video_knet")


def test_an_existing_file_comes_first_and_a_folder_does_not(places):
    (places["first"] / "mine.onnx").touch()
    Path("mine").mkdir()
    assert find_model("mine") == places["first"] / "mine.onnx"
    Path("mine").rmdir()
    Path("mine").touch()
    assert find_model("mine") == Path("mine")


@pytest.mark.parametrize("path", ["mine.onnx", "./mine", "mine/", "a/mine", "", ".", "..", "v1.0"])
def test_what_is_no_name_is_a_path(places, path):
    (places["first"] / "mine.onnx").touch()
    assert find_model(path) == Path(path)
    assert find_model(Path("mine")) == Path("mine")
    assert find_model("~/mine") == Path.home() / "mine"


def test_a_name_that_is_unknown_is_answered_with_names_places_and_a_command(places):
    (places["second"] / "mine.onnx").touch()
    with pytest.raises(ModelError) as raised:
        find_model("stret")
    words = str(raised.value)
    for part in ("'stret'", "mine", "did you mean street?", "video-knet models get street"):
        assert part in words
    assert all(str(folder) in words for folder in places.values())


def test_a_home_folder_in_the_variable_is_expanded(places, monkeypatch):
    monkeypatch.setenv("HOME", str(places["first"].parent))
    monkeypatch.setenv("VIDEO_KNET_MODELS", "~/first")
    (places["first"] / "mine.onnx").touch()
    assert find_model("mine") == places["first"] / "mine.onnx"


def test_a_name_runs_as_its_file_does(places, model):
    (places["cache"] / "tiny.onnx").symlink_to(model)
    runtime = open_runtime("tiny", "onnxruntime-cpu")
    assert runtime.info.name == "tiny"
    runtime.close()


def test_the_default_comes_from_the_cache_where_the_package_lacks_it(places, monkeypatch):
    def missing(name):
        raise FileNotFoundError(name)

    monkeypatch.setattr("video_knet_core.engine.selector.shared_file", missing)
    with pytest.raises(ModelError, match="models get street"):
        default_model_path()
    (places["cache"] / "street.onnx").touch()
    assert default_model_path() == places["cache"] / "street.onnx"
