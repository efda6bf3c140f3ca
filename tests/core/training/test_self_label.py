"""Stuff labels by a network, for what is not labelled."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import yaml
from dataset_fixtures import FIXTURES
from networks import small_network, small_version

from video_knet_core.cli import main
from video_knet_core.data.custom import VOID, label_encoder
from video_knet_core.data.dataset_validation import validate
from video_knet_core.data.datasets import open_dataset
from video_knet_core.data.label_png import read_values, write_png
from video_knet_core.model.checkpoint import load_model, save_model
from video_knet_core.training.self_label import class_logits
from video_knet_core.types import NO_CLASS, ClassTable

ROAD, FENCE, VEHICLE = 0, 3, 10
STRIP = (slice(20, 30), slice(None))
SIGNS = torch.tensor([8.0, -8.0]).reshape(1, 2, 1, 1)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Streets of which a strip is not labelled, with boxes of their own in one video."""
    root = tmp_path_factory.mktemp("street") / "mine"
    FIXTURES["custom"].write(root)
    for path in root.glob("val/panoptic/*/*.png"):
        values = read_values(path)
        values[STRIP] = VOID
        write_png(path, values)
    (root / "tracks.json").write_text('{"frames": {}}')
    return root


def network_of(folder, name: str, certain: int, version: str = ""):
    """A network that has one class everywhere, with a probability of about 0.95."""
    network = small_version(version) if version else small_network()
    with torch.no_grad():
        network.head.classifier.weight.zero_()
        logits = network.config.classes.logit_class_ids
        network.head.classifier.bias[:] = torch.tensor([5.25 * (c == certain) for c in logits])
    save_model(network, folder / name)
    return folder / name


def run(source, model, out, *words: str) -> int:
    return main(
        ["self-label", str(source), "--model", str(model), "--out", str(out), "--split", "val"]
        + list(words)
    )


def frames(root):
    return [frame for video in open_dataset("custom", root, "val") for frame in video]


def test_labels_stay_and_the_rest_is_what_the_network_is_sure_of(source, tmp_path, capsys):
    model = network_of(tmp_path, "fence.safetensors", FENCE)
    assert run(source, model, tmp_path / "out") == 0
    assert "6 frames" in capsys.readouterr().out
    assert list(validate("custom", tmp_path / "out", "val")) == []
    for before, after in zip(frames(source), frames(tmp_path / "out"), strict=True):
        assert (before.video, before.name) == (after.video, after.name)
        assert np.array_equal(before.image, after.image)
        unlabelled = before.semantic == NO_CLASS
        assert unlabelled[STRIP].all()
        assert np.array_equal(after.semantic, np.where(unlabelled, FENCE, before.semantic))
        assert np.array_equal(after.instance, before.instance)
    assert (tmp_path / "out/tracks.json").is_file()


@pytest.mark.parametrize(
    ("certain", "confidence"), [(FENCE, "0.97"), (VEHICLE, "0.9")], ids=["unsure", "a thing"]
)
def test_what_the_network_is_not_sure_of_and_things_stay_unlabelled(
    certain, confidence, source, tmp_path
):
    model = network_of(tmp_path, "model.safetensors", certain)
    assert run(source, model, tmp_path / "out", "--confidence", confidence) == 0
    for before, after in zip(frames(source), frames(tmp_path / "out"), strict=True):
        assert np.array_equal(before.semantic, after.semantic)


def test_stuff_may_be_made_again(source, tmp_path, capsys):
    model = network_of(tmp_path, "fence.safetensors", FENCE)
    assert run(source, model, tmp_path / "out", "--things-only", "--max-frames", "1") == 0
    assert "fence              0.0% before" in capsys.readouterr().out
    (after,), before = frames(tmp_path / "out"), frames(source)[0]
    is_thing = np.isin(before.semantic, (8, 9, VEHICLE))
    assert is_thing.any()
    assert np.array_equal(after.semantic, np.where(is_thing, before.semantic, FENCE))
    assert np.array_equal(after.instance, before.instance)


@pytest.mark.parametrize("scale", [1, 2], ids=["native", "twice as large"])
def test_probabilities_lie_where_the_image_has_them(scale):
    """The input is padded, on one side of the image only, and there are two views of it."""

    def encode(pixels):
        padded = torch.nn.functional.pad(pixels[:, :1], (0, 28, 0, 21))
        bright = torch.nn.functional.avg_pool2d(padded / 255, 8)
        return SimpleNamespace(head=SimpleNamespace(semantic_logits=bright * SIGNS))

    model = SimpleNamespace(config=SimpleNamespace(sizes=((75, 100),)), encode=encode)
    image = np.zeros((75 * scale, 100 * scale, 3), np.uint8)
    image[:, 80 * scale :] = 255
    found = class_logits(model, image).softmax(0)
    assert found.shape == (2, *image.shape[:2])
    torch.testing.assert_close(found.sum(0), torch.ones(image.shape[:2]))
    assert (found[0, :, : 71 * scale] < 0.51).all()
    assert (found[0, :, 89 * scale :] > 0.99).all()


def test_input_that_cannot_be_used_is_one_line(source, tmp_path, capsys):
    model = network_of(tmp_path, "fence.safetensors", FENCE)
    instances = network_of(tmp_path, "things.safetensors", 0, "street_instances_lite0")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note.txt").touch()
    copy = shutil.copytree(source, tmp_path / "copy")
    next(copy.glob("val/panoptic/drive_6/*.png")).unlink()
    for words, message in (
        ((source, model, tmp_path / "full"), "full holds other files"),
        ((source, model, tmp_path / "a", "--confidence", "1.5"), "confidence"),
        ((source, instances, tmp_path / "a"), "the model has the task instance"),
        ((source, tmp_path / "none.safetensors", tmp_path / "a"), "no checkpoint"),
        ((tmp_path / "full", model, tmp_path / "a"), "expected the split 'val'"),
    ):
        assert run(*words) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert run(copy, model, tmp_path / "broken") == 2
    assert "has no label image" in capsys.readouterr().err
    assert not (tmp_path / "broken/classes.yaml").exists(), "no reader takes an incomplete result"


def test_sky_and_vegetation_by_colour(source, tmp_path):
    """What is not labelled is sky and meadow; a white van, and grey ground, are neither."""
    root = tmp_path / "mine"
    shutil.copytree(source, root)
    frame = open_dataset("custom", root, "val")[0].frames[0]
    values = read_values(frame.labels)
    image = np.full((*values.shape, 3), 100, np.uint8)
    image[:12], image[20:] = (190, 210, 240), (70, 120, 50)
    image[14:18, :10] = 250  # bright, but not joined to the upper edge
    assert cv2.imwrite(str(frame.image), image[..., ::-1])
    semantic = np.full(values.shape, NO_CLASS, np.uint8)
    semantic[22, 3] = VEHICLE
    write_png(Path(frame.labels), label_encoder(root)(semantic, np.zeros(values.shape, np.int64)))
    model = network_of(tmp_path, "fence.safetensors", FENCE)
    words = ["--by-colour", "--max-frames", "1"]
    assert run(root, model, tmp_path / "out", *words) == 0
    (after,) = frames(tmp_path / "out")
    classes = load_model(model).config.classes
    assert (after.semantic[:10] == classes.id_of("sky")).all()
    assert (after.semantic[13:19] == FENCE).all()
    meadow = after.semantic[22:] == classes.id_of("vegetation")
    assert after.semantic[22, 3] == VEHICLE
    assert meadow.sum() == meadow.size - 1


def test_only_stuff_is_found_by_colour(source, tmp_path, capsys):
    """Of a network that has plants as things, say."""
    network = small_network()
    rows = network.config.classes.to_rows()
    for row in rows:
        row["name"] = {"vegetation": "hedge", "person": "vegetation"}.get(row["name"], row["name"])
    network.config = replace(network.config, classes=ClassTable.from_rows(rows))
    save_model(network, tmp_path / "plants.safetensors")
    root = tmp_path / "mine"
    shutil.copytree(source, root)
    content = yaml.safe_load((root / "classes.yaml").read_text())
    names = [row["name"] for row in rows]
    content["classes"] = [c | {"name": n} for c, n in zip(content["classes"], names, strict=True)]
    (root / "classes.yaml").write_text(yaml.safe_dump(content))
    words = ["--by-colour", "--max-frames", "1"]
    assert run(root, tmp_path / "plants.safetensors", tmp_path / "out", *words) != 0
    assert "expected stuff called vegetation, got road" in capsys.readouterr().err
