"""`evaluate_model`: a model over the videos of a data set, scored, and saved to be handed in."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
import yaml
from dataset_fixtures import FIXTURES, opened, put

from video_knet_core.cli import main
from video_knet_core.data.clip_pairs import ClipPairs
from video_knet_core.data.datasets import open_dataset
from video_knet_core.data.predictions import Instance, TrackCollector
from video_knet_core.data.video import DatasetError
from video_knet_core.data.vipseg import KINDS as VIPSEG_KINDS
from video_knet_core.data.vipseg import THINGS as VIPSEG_THINGS
from video_knet_core.data.vspw import NAMES as VSPW_NAMES
from video_knet_core.data.youtube_vis import NAMES as YOUTUBE_NAMES
from video_knet_core.engine.base import ModelError, ModelInfo
from video_knet_core.evaluate.dataset_evaluation import evaluate_model, evaluate_predictions
from video_knet_core.run_lengths import RunLengths
from video_knet_core.types import ClassInfo, ClassTable, Detections

HEIGHT, WIDTH = 48, 64


class Stripes:
    """Four upright stripes: the second a thing, the others stuff if there is any.

    A pixel that is nearly black is of no segment.
    """

    name = "stripes"

    def __init__(self, names, things, task="panoptic"):
        rows = (ClassInfo(i, name, i in things, (i, i, i)) for i, name in enumerate(names))
        self.info = ModelInfo("stripes", ClassTable(tuple(rows)), HEIGHT, WIDTH, task)
        stuff = sorted(set(range(len(names))) - set(things)) or sorted(things)
        self.class_ids = np.array([stuff[0], min(things, default=3), stuff[1], stuff[2]])

    def step(self, image, state):
        columns = np.arange(WIDTH) * 4 // WIDTH + 1
        slots = np.where(image.max(axis=2) > 20, columns, 0).astype(np.uint8)
        areas = np.bincount(slots.ravel(), minlength=5)[1:]
        scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
        embeddings = np.eye(4, 8, dtype=np.float32)
        return Detections(slots, self.class_ids, scores, areas, embeddings), None

    def close(self):
        pass


def stripes_for(dataset):
    return Stripes([name for name, _ in dataset.kinds], dataset.things or {3})


@pytest.mark.parametrize("layout", FIXTURES)
def test_any_data_set_trains_is_scored_and_is_handed_in(layout, written, tmp_path):
    dataset = opened(layout, written[layout])
    pair = ClipPairs(dataset).sample(np.random.default_rng(0), 32, 64)
    assert pair.images.shape == (2, 32, 64, 3)
    scores = evaluate_model(dataset, stripes_for(dataset), save=tmp_path)
    assert scores is not None and scores.figures["frames"] == 6
    again = evaluate_predictions(dataset, tmp_path)
    assert again.to_json() == scores.to_json()


@pytest.fixture
def vspw_video(tmp_path):
    """One image of VSPW, of one class, its upper half black."""
    image = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    image[:24] = 0
    put(tmp_path / "data/v/origin/0.png", image)
    put(tmp_path / "data/v/mask/0.png", np.full((HEIGHT, WIDTH), 1, np.uint8))
    (tmp_path / "val.txt").write_text("v")
    return open_dataset("vspw", tmp_path, "val")


@pytest.mark.parametrize("model", [Stripes(VSPW_NAMES, {3}), Stripes(VSPW_NAMES, {}, "semantic")])
def test_stripes_are_scored_as_they_lie(vspw_video, model, tmp_path):
    """Labels of class 0, which the first stripe has, and all pixels without a segment."""
    scores = evaluate_model(vspw_video, model, save=tmp_path / "out")
    assert scores.figures["total"]["miou"] == (1 + 0.25) / 2
    saved = cv2.imread(str(tmp_path / "out/v/0.png"), cv2.IMREAD_UNCHANGED)
    assert saved.dtype == np.uint8 and (saved[:24] == 0).all()
    assert set(np.unique(saved)) <= set(range(5))


VIPSEG_NAMES = [name for name, _ in VIPSEG_KINDS]


@pytest.mark.parametrize(
    ("layout", "model", "message"),
    [
        (
            "vspw",
            (VSPW_NAMES, range(124), "instance"),
            "needs a class of each pixel, got a model of task inst",
        ),
        ("vspw", (VIPSEG_NAMES, VIPSEG_THINGS), "class 2: expected 'door' .*, got 'stair'"),
        ("vspw", (VSPW_NAMES[:-1], {3}), "class 123: expected 'train' .*, got none"),
        (
            "youtube_vis_2019",
            (YOUTUBE_NAMES, {}, "semantic"),
            r"class 0: expected 'person' \(thing\), got 'person' \(stuff\)",
        ),
    ],
)
def test_a_model_of_other_classes_or_of_another_task_is_not_scored(layout, model, message, written):
    with pytest.raises(ModelError, match=message):
        evaluate_model(opened(layout, written[layout]), Stripes(*model))


def youtube_vis_with(edit, written, root):
    """The data set with another index."""
    shutil.copytree(written["youtube_vis_2019"], root)
    path = root / "annotations/valid.json"
    index = json.loads(path.read_text())
    edit(index)
    path.write_text(json.dumps(index))
    return opened("youtube_vis_2019", root)


def test_the_classes_of_one_youtube_vis_release_are_not_those_of_another(written, tmp_path):
    """2021 has 40 classes too, in another order: its first is airplane."""
    names = ["airplane", *(name for name in YOUTUBE_NAMES if name != "airplane")]
    rows = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
    dataset = youtube_vis_with(lambda i: i.update(categories=rows), written, tmp_path / "data")
    message = r"class 0: expected 'airplane' \(thing\), got 'person' \(thing\)"
    model, saved = Stripes(YOUTUBE_NAMES, range(40)), tmp_path / "out"
    with pytest.raises(ModelError, match=message):
        evaluate_model(dataset, model)
    evaluate_model(opened("youtube_vis_2019", written["youtube_vis_2019"]), model, save=saved)
    for predictions in (saved, saved / "results.json"):
        with pytest.raises(DatasetError, match=message):
            evaluate_predictions(dataset, predictions)


def test_saved_predictions_are_of_the_classes_of_the_data_set(written, tmp_path):
    """Two classes change places in classes.yaml after the predictions were saved."""
    dataset = opened("custom", written["custom"])
    evaluate_model(dataset, stripes_for(dataset), save=tmp_path / "out")
    root = tmp_path / "data"
    shutil.copytree(written["custom"], root)
    table = yaml.safe_load((root / "classes.yaml").read_text())
    table["classes"][0], table["classes"][1] = table["classes"][1], table["classes"][0]
    (root / "classes.yaml").write_text(yaml.safe_dump(table))
    with pytest.raises(DatasetError, match="class 0: expected 'sidewalk' .*, got 'road'"):
        evaluate_predictions(opened("custom", root), tmp_path / "out")
    (tmp_path / "out/video_knet_classes.json").unlink()  # those of other programs have none
    assert evaluate_predictions(opened("custom", root), tmp_path / "out").figures["frames"] == 6


def test_a_split_without_labels_is_only_saved(written, tmp_path):
    dataset = youtube_vis_with(lambda i: i.pop("annotations"), written, tmp_path / "data")
    runtime = stripes_for(dataset)
    with pytest.raises(DatasetError, match="published without labels"):
        evaluate_model(dataset, runtime)
    assert evaluate_model(dataset, runtime, save=tmp_path / "out") is None
    tracks = json.loads((tmp_path / "out/results.json").read_text())
    assert {track["video_id"] for track in tracks} == {1, 2}
    assert all(len(track["segmentations"]) == 3 for track in tracks)


def test_of_cityscapes_vps_test_only_every_fifth_frame_is_handed_in(tmp_path):
    image = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    names = [f"0005_{25 + t // 5:04d}_ulm_000000_{t:06d}" for t in range(10)]
    for t, name in enumerate(names):
        end = "leftImg8bit" if t == 4 else "newImg8bit"
        put(tmp_path / f"test/img_all/{name}_{end}.png", image)
    dataset = open_dataset("cityscapes_vps", tmp_path, "test")
    evaluate_model(dataset, stripes_for(dataset), save=tmp_path / "out")
    annotations = json.loads((tmp_path / "out/pred.json").read_text())["annotations"]
    assert [entry["image_id"] for entry in annotations] == [names[4], names[9]]


def mask(*columns):
    pixels = np.zeros((2, 6), bool)
    pixels[:, list(columns)] = True
    return RunLengths.from_mask(pixels)


def test_tracks_are_put_together_from_frames():
    collector = TrackCollector()
    collector.add([Instance(4, 7, 0.5, mask(0)), Instance(9, 2, 0.6, mask(1))])
    collector.add([Instance(4, 1, 0.8, mask(2))])
    collector.add([Instance(4, 7, 0.2, mask(3)), Instance(5, 3, 0.1, mask(4))])
    assert list(collector.tracks) == [4, 9, 5]
    first, second, third = collector.tracks.values()
    assert [runs and runs.area for runs in second.masks] == [2, None, None]
    assert [runs and runs.area for runs in third.masks] == [None, None, 2]
    assert first.score == pytest.approx(0.5) and first.class_id == 1  # 0.8 against 0.5 + 0.2


def test_equal_scores_of_a_track_have_exactly_that_mean():
    """Or ties between tracks would be lost."""
    collector = TrackCollector()
    for _ in range(3):
        collector.add([Instance(1, 0, 0.1, None)])
    assert collector.tracks[1].score == 0.1


def test_a_track_is_in_a_frame_once():
    with pytest.raises(ValueError, match="track 4"):
        TrackCollector().add([Instance(4, 0, 0.5, mask(0)), Instance(4, 0, 0.5, mask(1))])


def test_a_foreign_model_is_named(written, capsys):
    command = ["eval", "dataset", "vipseg", str(written["vipseg"]), "--split", "val"]
    assert main(command) == 2
    assert "class 0: expected 'wall' (stuff), got 'road' (stuff)" in capsys.readouterr().err


def test_the_command_runs_a_model_and_each_video_starts_anew(written, tmp_path, capsys):
    """The shipped model on streets of a thumbnail's size: it finds something, if not much."""
    command = ["eval", "dataset", "custom", str(written["custom"])]
    assert main([*command, "--json", str(tmp_path / "one.json"), "--save", str(tmp_path)]) == 0
    assert main([*command, "--json", str(tmp_path / "two.json")]) == 0
    scores = json.loads((tmp_path / "one.json").read_text())
    assert scores == json.loads((tmp_path / "two.json").read_text())
    assert 0.1 < scores["total"]["sq"] < 1
    saved = {path: path.read_bytes() for path in tmp_path.glob("drive_*/*.png")}
    assert len(saved) == 6
    assert main([*command, "--save", str(tmp_path)]) == 2
    assert "new or empty" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.glob("drive_*/*.png")} == saved
