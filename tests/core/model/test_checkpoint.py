from __future__ import annotations

import os
import pickle

import pytest
import torch
from networks import small_network
from safetensors.torch import load_file, save_file

from video_knet_core.model.checkpoint import (
    METADATA_KEY,
    CheckpointError,
    load_model,
    read_metadata,
    save_model,
    save_tensors,
)


@pytest.fixture
def checkpoint(tmp_path):
    network = small_network()
    save_model(network, tmp_path / "model.safetensors", step=7)
    return network, tmp_path / "model.safetensors"


@pytest.mark.parametrize("text", ["{", "[]", "7"])
def test_damaged_metadata_is_named(text, tmp_path):
    save_tensors({}, tmp_path / "damaged.safetensors", {METADATA_KEY: text})
    with pytest.raises(CheckpointError, match=r"damaged\.safetensors: its metadata"):
        read_metadata(tmp_path / "damaged.safetensors")


def test_a_checkpoint_brings_back_weights_configuration_and_facts(checkpoint):
    network, path = checkpoint
    loaded = load_model(path)
    assert loaded.config == network.config
    assert read_metadata(path)["step"] == 7
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def rewrite(path, change) -> None:
    metadata = {"video_knet": __import__("json").dumps(read_metadata(path))}
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("head.classifier.bias"), "Missing key.*head.classifier.bias"),
        (lambda t: t.update(stranger=torch.zeros(1)), "Unexpected key.*stranger"),
        (
            lambda t: t.update({"head.classifier.bias": torch.zeros(3)}),
            "size mismatch for head.classifier.bias",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(checkpoint, change, words):
    rewrite(checkpoint[1], change)
    with pytest.raises(CheckpointError, match=f"(?s){words}"):
        load_model(checkpoint[1])


def test_files_of_other_kinds_are_rejected(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_model(tmp_path / "absent.safetensors")
    pickled = tmp_path / "pickled.safetensors"
    pickled.write_bytes(pickle.dumps({"weights": [1, 2]}))
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_model(pickled)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(1)}, foreign)
    with pytest.raises(CheckpointError, match="no 'video_knet' metadata"):
        load_model(foreign)


def test_a_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=f"checkpoint {tmp_path} is a folder"):
        load_model(tmp_path)


def test_a_fault_while_writing_leaves_the_old_file(checkpoint, monkeypatch):
    path = checkpoint[1]
    before = path.read_bytes()

    def torn(descriptor):
        os.ftruncate(descriptor, 10)
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", torn)
    with pytest.raises(OSError, match="disk full"):
        save_tensors({"x": torch.zeros(1)}, path, {})
    assert path.read_bytes() == before


def test_others_may_read_a_checkpoint_as_they_may_read_other_files(tmp_path):
    (tmp_path / "other").touch()
    save_tensors({"x": torch.zeros(1)}, tmp_path / "new.safetensors", {})
    modes = {file.stat().st_mode for file in tmp_path.iterdir()}
    assert len(modes) == 1


def test_metadata_that_nest_without_end_are_damaged(tmp_path):
    save_tensors({}, tmp_path / "deep.safetensors", {METADATA_KEY: "[" * 100_000})
    with pytest.raises(CheckpointError, match="its metadata is damaged"):
        read_metadata(tmp_path / "deep.safetensors")
