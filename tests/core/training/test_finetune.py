"""From custom data to a model, by one command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from networks import small_config, small_network
from training_runs import small_model

from video_knet_core.cli import main
from video_knet_core.config import ModelConfig
from video_knet_core.config_io import ConfigError, load_yaml
from video_knet_core.data.video import DatasetError
from video_knet_core.engine.selector import open_runtime
from video_knet_core.model.checkpoint import CheckpointError, load_model, read_metadata, save_model
from video_knet_core.model.video_knet import VideoKNet
from video_knet_core.training import finetune
from video_knet_core.training.finetune import FinetuneOptions, prepare
from video_knet_core.training.initial_weights import build_model
from video_knet_core.training.sources import open_sources
from video_knet_core.training.train_config import TrainConfig
from video_knet_core.types import ClassTable

FLOOR, WALL, CART = range(3)
ROWS = [
    {"name": "road", "is_thing": False, "color": [1, 2, 3]},
    {"name": "wall", "is_thing": False, "color": [4, 5, 6]},
    {"name": "cart", "is_thing": True, "color": [7, 8, 9]},
]
SIZE = HEIGHT, WIDTH = 60, 100


def write_custom(root: Path, videos: int = 1, frames: int = 6, split: str = "train") -> Path:
    """A cart that drives along a wall on a floor, in layout `custom`."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.yaml").write_text(yaml.safe_dump({"classes": ROWS}))
    for number in range(videos):
        for t in range(frames):
            labels = np.full(SIZE, WALL * 1000, np.uint16)
            labels[30:] = FLOOR * 1000
            labels[20:50, 10 + 2 * t : 40 + 2 * t] = CART * 1000 + 4
            labels[:, :4] = 65535
            look = np.array([[90, 90, 90], [200, 180, 40], [30, 30, 220], [0, 0, 0]], np.uint8)
            image = look[np.minimum(labels // 1000, 3)]
            name = f"{t}.png" if videos == 1 else f"drive_{number}/{t}.png"
            for kind, pixels in (("images", image), ("panoptic", labels)):
                path = root / split / kind / name
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), pixels)
    return root


def write_coco(root: Path, images: int = 6, objects: bool = True) -> Path:
    """Squares, as an annotation program exports them; the last image has none."""
    (root / "images").mkdir(parents=True)
    rows, annotations = [], []
    for n in range(images):
        cv2.imwrite(str(root / f"images/{n}.png"), np.full((*SIZE, 3), 30 * n % 255, np.uint8))
        rows.append({"id": n, "file_name": f"images\\{n}.png", "height": HEIGHT, "width": WIDTH})
        if n < images - 1:
            box = [10.0, 10.0, 40.0, 10.0, 40.0, 40.0, 10.0, 40.0]
            polygons = [box] if objects else []
            annotations.append({"image_id": n, "category_id": 2, "segmentation": polygons})
    categories = [{"id": 0, "name": "objects"}, {"id": 2, "name": "Vehicle"}]
    index = {"images": rows, "categories": categories, "annotations": annotations}
    (root / "result.json").write_text(json.dumps(index))
    return root


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A small model of the street as a checkpoint to start from; to be read only."""
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    save_model(small_network(), path)
    return path


@pytest.fixture
def options(start):
    return FinetuneOptions(init=start, steps=2, size=(64, 96), threads=1)


def run_of(out: Path) -> TrainConfig:
    return load_yaml(TrainConfig, out / "train.yaml")


# --- the run -------------------------------------------------------------------------------------


def test_the_files_of_a_run_load_again_and_have_the_data(tmp_path, options):
    data, out = write_custom(tmp_path / "data", videos=2), tmp_path / "out"
    text = "\n".join(prepare(data, out, options, "cpu"))
    run = run_of(out)
    model = run.load_model_config(out / "train.yaml")
    assert (model.task, model.height, model.width) == ("panoptic", 64, 96)
    assert model.classes == ClassTable.from_rows(ROWS)
    assert (run.steps, run.height, run.width, run.batch, run.threads) == (2, 64, 64, 4, 1)
    (clip,) = run.data.clips
    assert (clip.hold_out, clip.pseudo_video, run.validation.dataset) == (2, False, "held_out")
    ((_, source),) = open_sources(run.data, model, data, out)
    assert [video.name for video in source.dataset] == ["drive_0"]
    assert "road" in text and "begins as road" in text and "cart" in text


def test_classes_begin_with_the_rows_of_known_ones(tmp_path, options, start):
    data, out = write_custom(tmp_path / "data"), tmp_path / "out"
    lines = prepare(data, out, replace(options, like={"Cart": "vehicle"}), "cpu")
    known, model = load_model(start), build_model(run_of(out), out / "train.yaml")
    rows = {row: known.config.classes.logit_class_ids.index(row) for row in (0, 10)}
    ours, theirs = (net.head.classifier.weight for net in (model, known))
    order = model.config.classes.logit_class_ids
    assert torch.equal(ours[order.index(FLOOR)], theirs[rows[0]])
    assert torch.equal(ours[order.index(CART)], theirs[rows[10]])
    assert not any(torch.equal(ours[order.index(WALL)], row) for row in theirs)
    assert torch.equal(model.neck.state_dict().popitem()[1], known.neck.state_dict().popitem()[1])
    assert lines[-1].startswith("new classes  wall; ") and "--like wall=" in lines[-1]


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"truck": "vehicle"}, "--like: expected one of road, wall, cart, got 'truck'"),
        ({"cart": "truck"}, "--like: expected one of road, sidewalk, .*, got 'truck'"),
    ],
)
def test_names_that_are_no_classes_are_rejected(like, message, tmp_path, options):
    data, out = write_custom(tmp_path / "data"), tmp_path / "out"
    with pytest.raises(ConfigError, match=message):
        prepare(data, out, replace(options, like=like), "cpu")
    assert not out.exists()


def test_objects_of_coco_are_a_model_of_task_instance(tmp_path, options):
    data, out = write_coco(tmp_path / "data"), tmp_path / "out"
    text = "\n".join(prepare(data, out, options, "cpu"))
    model = load_yaml(ModelConfig, out / "model.yaml")
    assert model.task == "instance" and [row.name for row in model.classes] == [
        "objects",
        "Vehicle",
    ]
    assert model.classes[1].color == small_config().classes[10].color
    assert "objects" in text and "not in the data" in text
    (clip,) = run_of(out).data.clips
    assert (clip.dataset, clip.pseudo_video, clip.hold_out) == ("custom_coco", True, 5)


def test_images_without_an_object_can_be_left_out(tmp_path, options, caplog):
    data = write_coco(tmp_path / "data")
    prepare(data, tmp_path / "kept", options, "cpu")
    assert "1 of 6 images have no object and count as background" in caplog.text
    prepare(data / "result.json", tmp_path / "out", replace(options, skip_empty=True), "cpu")
    (clip,) = run_of(tmp_path / "out").data.clips
    assert clip.exclude == ("images/5/5",) and clip.path == "result.json"


def test_frames_that_cannot_be_used_are_left_out_with_a_warning(tmp_path, options, caplog):
    data = write_custom(tmp_path / "data", frames=8)
    (data / "train/images/3.png").unlink()
    prepare(data, tmp_path / "out", options, "cpu")
    assert run_of(tmp_path / "out").data.clips[0].exclude == ("train/3",)
    assert "train/3: has no image" in caplog.text and "1 of 8 frames cannot be used" in caplog.text


def test_a_split_val_is_what_is_validated_on(tmp_path, options):
    data = write_custom(write_custom(tmp_path / "data"), split="val", frames=2)
    prepare(data, tmp_path / "out", options, "cpu")
    run = run_of(tmp_path / "out")
    assert (run.validation.dataset, run.validation.split) == ("custom", "val")
    assert not run.data.clips[0].hold_out


def test_a_single_image_is_enough_to_train(tmp_path, options):
    data, out = write_custom(tmp_path / "data", frames=1), tmp_path / "out"
    prepare(data, out, options, "cpu")
    run = run_of(out)
    assert not run.validation.every and not run.data.clips[0].hold_out
    model = run.load_model_config(out / "train.yaml")
    ((_, source),) = open_sources(run.data, model, data, out)
    pair = source.sample(np.random.default_rng(0), 64, 64)
    assert (pair.semantic != 255).any()


# --- what cannot be learned from -----------------------------------------------------------------


def without_objects(root: Path) -> None:
    for path in (root / "train/panoptic").iterdir():
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(labels == 65535, labels, labels // 1000 * 1000))


def unlabelled(root: Path) -> None:
    for path in (root / "train/panoptic").iterdir():
        cv2.imwrite(str(path), np.full(SIZE, 65535, np.uint16))


def eight_bits(root: Path) -> None:
    for path in (root / "train/panoptic").iterdir():
        cv2.imwrite(str(path), np.zeros(SIZE, np.uint8))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_objects, "expected objects of cart, got none with an instance id above 0"),
        (unlabelled, "got 6 of which none can be used, as train/0: no pixel is labelled"),
        (eight_bits, "none can be used, as train/0: .*16 bit, got 8 bit; .*label_divisor: 1"),
        (lambda root: (root / "classes.yaml").unlink(), "expected a folder with classes.yaml"),
        (lambda root: (root / "train").rename(root / "other"), "expected the split 'train'"),
    ],
)
def test_data_without_anything_usable_is_named_and_nothing_is_written(
    damage, message, tmp_path, options
):
    data, out = write_custom(tmp_path / "data"), tmp_path / "out"
    damage(data)
    with pytest.raises(DatasetError, match=message):
        prepare(data, out, options, "cpu")
    assert not out.exists()


def test_boxes_alone_are_no_masks(tmp_path, options):
    data = write_coco(tmp_path / "data", objects=False)
    with pytest.raises(DatasetError, match="objects of objects, Vehicle, got none with a mask"):
        prepare(data, tmp_path / "out", options, "cpu")


def test_two_categories_of_one_name_are_named(tmp_path, options):
    data = write_coco(tmp_path / "data")
    index = json.loads((data / "result.json").read_text())
    index["categories"][0]["name"] = "vehicle"
    (data / "result.json").write_text(json.dumps(index))
    with pytest.raises(DatasetError, match="categories: class names must differ"):
        prepare(data, tmp_path / "out", options, "cpu")


def test_files_of_the_user_are_not_replaced(tmp_path, options, capsys):
    data, out = write_custom(tmp_path / "data"), tmp_path / "out"
    out.mkdir()
    (out / "train.yaml").write_text("mine")
    assert main(["finetune", str(data), "--out", str(out), "--device", "cpu"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["train.yaml"]
    assert (out / "train.yaml").read_text() == "mine"


# --- the model -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ((360, 480), (320, 416)),
        ((1080, 1920), (288, 480)),
        ((1920, 1080), (480, 288)),
        ((100, 120), (96, 128)),
        ((375, 1242), (192, 672)),
    ],
)
def test_the_input_has_the_shape_of_the_images(image, expected):
    model = finetune.model_for(replace(small_config(), height=288, width=480), ROADS, image)
    assert (model.height, model.width) == expected


ROADS = ClassTable.from_rows(ROWS)


@pytest.mark.parametrize("name", ["street_lite0", "street"])
def test_stuff_alone_is_a_semantic_model_with_the_same_classifier(name):
    start = VideoKNet(small_model("panoptic", name))
    stuff = ClassTable.from_rows([row | {"is_thing": False} for row in ROWS])
    config = finetune.model_for(start.config, stuff, SIZE)
    assert config.task == "semantic"
    model = finetune.started(config, start, {"wall": "building"})
    rows = [start.config.classes.logit_class_ids.index(i) for i in (0, 2)]
    assert torch.equal(model.head.classifier.weight[:2], start.head.classifier.weight[rows])
    assert torch.equal(
        model.head.branch.state_dict().popitem()[1], start.head.semantic.state_dict().popitem()[1]
    )


def test_the_only_input_is_of_the_shape_of_the_images():
    start = replace(small_config(), height=64, width=96, more_sizes=((64, 64),))
    model = finetune.model_for(start, ROADS, (64, 96), (96, 96))
    assert model.sizes == ((96, 96),)


def test_many_classes_of_stuff_leave_room_for_fewer_things():
    rows = [{"name": f"part {i}", "is_thing": i < 2, "color": [0, 0, 0]} for i in range(252)]
    start = replace(small_config(), kernels=replace(small_config().kernels, things=50))
    model = finetune.model_for(start, ClassTable.from_rows(rows), (288, 480))
    assert (model.kernels.things, model.slots) == (4, 254)


# --- from start to end ---------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_trains_exports_and_continues(tmp_path, start, capsys):
    data, out = write_custom(tmp_path / "data", videos=2), tmp_path / "out"
    command = ["finetune", str(data), "--out", str(out), "--device", "cpu", "--threads", "1", "-q"]
    assert main([*command, "--init", str(start), "--steps", "1", "--size", "64x96"]) == 0
    text, errors = capsys.readouterr()
    assert errors == ""
    assert f"model:={(out / 'model.onnx').resolve()} " in text
    assert "best.safetensors of step 1: stq " in text
    runtime = open_runtime(out / "model.onnx", "onnxruntime-cpu")
    assert runtime.info.classes == ROADS
    image = cv2.imread(str(data / "train/images/drive_0/0.png"))
    detections, _ = runtime.step(cv2.resize(image, (96, 64)), None)
    assert detections.segment_map.ndim == 2
    assert main([*command, "--resume", "--steps", "2"]) == 0
    assert read_metadata(out / "last.safetensors")["step"] == 2
    assert run_of(out).steps == 2


def test_a_run_continues_with_its_own_settings(tmp_path, options):
    data, out = write_custom(tmp_path / "data"), tmp_path / "out"
    prepare(data, out, options, "cpu")
    finetune.resume(data, out, FinetuneOptions(steps=7, threads=3))
    assert (run_of(out).steps, run_of(out).threads) == (7, 3)
    before = (out / "train.yaml").read_bytes()
    for wrong, message in (
        ({"steps": 6}, "--steps: expected 7 or more, got 6"),
        ({"size": (64, 64)}, "--size: expected none with --resume"),
        ({"init": Path("x")}, "--init: expected none with --resume"),
    ):
        with pytest.raises(ConfigError, match=message):
            finetune.resume(data, out, FinetuneOptions(**wrong))
    other = write_coco(tmp_path / "other")
    with pytest.raises(ConfigError, match="DATA: expected custom . as in .* got 'custom_coco"):
        finetune.resume(other, out, FinetuneOptions())
    with pytest.raises(ConfigError, match="expected the run of an earlier call"):
        finetune.resume(data, tmp_path / "none", FinetuneOptions())
    assert (out / "train.yaml").read_bytes() == before


def test_a_checkpoint_to_start_from_that_is_none_is_named(tmp_path, options):
    data = write_custom(tmp_path / "data")
    with pytest.raises(CheckpointError, match="no checkpoint .*none.safetensors"):
        prepare(data, tmp_path / "out", replace(options, init=tmp_path / "none.safetensors"))


def test_the_shipped_model_is_what_a_run_starts_from(tmp_path, monkeypatch, start):
    monkeypatch.setattr(finetune, "default_model_path", lambda: start.with_suffix(".onnx"))
    assert finetune.shipped_checkpoint() == start
    monkeypatch.undo()
    assert finetune.shipped_checkpoint().is_file()
