"""What a training run takes its pairs from, and the batches that it makes of them."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from dataset_fixtures import FIXTURES
from networks import small_config, small_version
from street_fixtures import write_camvid, write_sprites
from training_runs import ROAD, SKY, VOID, small_model, write_run

from synthetic_street.street_pairs import OFFSETS, StreetPairs
from video_knet_core.config_io import ConfigError, from_dict
from video_knet_core.data.camvid import street_ids
from video_knet_core.data.clip_pairs import ClipPairs, ImagePairs
from video_knet_core.data.datasets import open_dataset
from video_knet_core.data.pairs import CropRange
from video_knet_core.data.street_frame import StreetFrame
from video_knet_core.data.video import DatasetError
from video_knet_core.training.batches import PairDataset, batches
from video_knet_core.training.sources import open_clips, open_sources
from video_knet_core.training.train_config import (
    ClipConfig,
    DataConfig,
    TrainConfig,
)
from video_knet_core.training.trainer import (
    Trainer,
)
from video_knet_core.types import SOME_STUFF, ClassInfo, ClassTable

CUSTOM = {"dataset": "custom", "path": "mine", "split": "val"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    FIXTURES["custom"].write(root / "mine")
    return root


def data(*clips: dict, **settings) -> DataConfig:
    return from_dict(DataConfig, {"clips": list(clips), **settings})


def test_a_data_set_alone(root, tmp_path):
    sources = open_sources(data(CUSTOM), small_config(), root, tmp_path)
    assert [(weight, type(source)) for weight, source in sources] == [(1.0, ClipPairs)]


def test_what_clips_leave_is_divided_between_images_and_streets(root, tmp_path):
    config = data({**CUSTOM, "sampling_weight": 0.75}, copy_paste_weight=0.0)
    sources = open_sources(config, small_config(), root, tmp_path)
    assert [(weight, type(source)) for weight, source in sources] == [
        (0.75, ClipPairs),
        (0.25, StreetPairs),
    ]


def test_a_run_draws_labelled_samples_from_it(root, tmp_path):
    clips = data({**CUSTOM, "offsets": [-1], "scale": [1.0, 1.2]})
    settings = TrainConfig("model.yaml", steps=2, batch=1, height=64, width=96, data=clips)
    model = small_config()
    dataset = PairDataset(open_sources(clips, model, root, tmp_path), model, settings)
    images, (key, reference) = dataset[1]
    assert images.shape == (2, 3, 64, 96)
    assert key.masks.shape[1:] == reference.owners.shape == (16, 24)
    assert np.array_equal(images, dataset[1][0])


def test_pairs_may_be_required_to_have_an_object_in_common(root):
    """Crops of a quarter of the width, of which some show no object in both frames."""
    dataset = open_dataset("custom", root / "mine", "val")
    crop = CropRange((4.0, 4.0))
    common = {True: 0, False: 0}
    for tracked in common:
        pairs = ClipPairs(dataset, (1, -1), crop, tracked)
        for seed in range(12):
            pair = pairs.sample(np.random.default_rng(seed), 64, 96)
            common[tracked] += bool(np.intersect1d(*pair.instance).any())
    assert common[False] < common[True] == 12


def test_images_make_pairs_that_move_a_little(root, tmp_path):
    """A data set of pictures that have nothing to do with each other."""
    sources = open_sources(data({**CUSTOM, "pseudo_video": True}), small_config(), root, tmp_path)
    ((_, source),) = sources
    assert isinstance(source, ImagePairs)
    moved = 0
    for seed in range(6):
        pair = source.sample(np.random.default_rng(seed), 64, 96)
        again = source.sample(np.random.default_rng(seed), 64, 96)
        assert np.array_equal(pair.images, again.images)
        ids = [set(np.unique(instance)) for instance in pair.instance]
        assert ids[0] & ids[1] - {0}, "the same objects are in both"
        moved += not np.array_equal(pair.instance[0], pair.instance[1])
    assert moved


def test_causal_pairs_have_the_later_frame_first(tmp_path):
    """A running camera has seen only what was before."""
    pairs = StreetPairs(1, tmp_path, causal=True)
    clip = [
        StreetFrame(np.full((32, 48, 3), t, np.uint8), *np.zeros((2, 32, 48), np.uint8))
        for t in OFFSETS
    ]
    pairs._clip = lambda seed, moment: clip
    for seed in range(10):
        images = pairs.sample(np.random.default_rng(seed), 32, 48).images
        assert images[0].max() > images[1].max()


def test_runs_may_share_their_drawn_streets(tmp_path):
    config = data(copy_paste_weight=0.0, street_cache=str(tmp_path / "shared"))
    ((_, source),) = open_sources(config, small_config(), None, tmp_path / "out")
    assert source.cache == tmp_path / "shared"
    ((_, source),) = open_sources(
        data(copy_paste_weight=0.0), small_config(), None, tmp_path / "out"
    )
    assert source.cache == tmp_path / "out" / "streets"


def test_streets_are_rendered_with_depth_if_the_network_learns_it(tmp_path, monkeypatch):
    model = small_config()
    ((_, source),) = open_sources(data(copy_paste_weight=0.0), model, None, tmp_path)
    assert not source.depth
    monkeypatch.setattr(type(model), "learns_depth", True)
    ((_, source),) = open_sources(data(copy_paste_weight=0.0), model, None, tmp_path)
    assert source.depth


def test_a_data_set_with_other_classes_than_the_model(root, tmp_path):
    FIXTURES["kitti_step"].write(root / "kitti")
    clips = data({"dataset": "kitti_step", "path": "kitti", "split": "val"})
    message = r"kitti_step .*: class 3: expected 'fence' \(stuff\), got 'wall' \(stuff\)"
    with pytest.raises(ConfigError, match=message):
        open_sources(clips, small_config(), root, tmp_path)


def test_a_data_set_that_is_not_there(root, tmp_path):
    with pytest.raises(DatasetError, match="the split 'train'"):
        open_sources(data({**CUSTOM, "split": "train"}), small_config(), root, tmp_path)


def test_a_data_set_needs_a_root(tmp_path):
    with pytest.raises(ConfigError, match="data.clips: custom: a data root is needed"):
        open_sources(data(CUSTOM), small_config(), None, tmp_path)


@pytest.fixture
def street_root(tmp_path):
    write_camvid(tmp_path / "data/camvid/train", car=(slice(30, 60), slice(40, 60)))
    write_sprites(tmp_path / "data/sprites")
    return tmp_path / "data"


def sources(task: str, root, tmp_path, clips=(), sides: int = 2, **settings: object):
    data = from_dict(DataConfig, {"clips": list(clips), **settings})
    return open_sources(data, small_model(task), root, tmp_path / "out", sides)


def test_images_with_sprites_have_the_classes_of_an_instance_model(street_root, tmp_path):
    ((_, source),) = sources("instance", street_root, tmp_path, copy_paste_weight=1.0)
    found = set()
    for seed in range(6):
        pair = source.sample(np.random.default_rng(seed), 64, 96)
        found |= set(np.unique(pair.semantic).tolist())
        assert set(np.unique(pair.semantic[pair.instance > 0])) <= {0, 1, 2}
    assert found <= {0, 1, 2, VOID} and {0, 2, VOID} <= found


def test_the_images_of_camvid_are_a_data_set_of_a_semantic_model(street_root, tmp_path):
    clips = [{"dataset": "camvid", "path": "camvid", "pseudo_video": True}]
    ((_, source),) = sources("semantic", street_root, tmp_path, clips)
    pair = source.sample(np.random.default_rng(0), 64, 96)
    assert {ROAD, SKY} <= set(np.unique(pair.semantic).tolist())
    assert pair.images.shape == (2, 64, 96, 3)


def test_stuff_of_a_data_set_may_be_of_unknown_classes(root, tmp_path):
    clip = {**CUSTOM, "scale": [1.0, 1.0]}
    pairs = [
        open_sources(data(clip | extra), small_config(), root, tmp_path)[0][1].sample(
            np.random.default_rng(0), 48, 64
        )
        for extra in ({}, {"things_only": True})
    ]
    complete, things = (pair.semantic for pair in pairs)
    is_stuff = np.isin(complete, small_config().classes.stuff)
    assert is_stuff.any() and not is_stuff.all()
    assert np.array_equal(things, np.where(is_stuff, SOME_STUFF, complete))
    assert np.array_equal(*(pair.instance for pair in pairs))


def test_what_is_held_out_has_no_stuff_of_unknown_classes(root):
    """No metric knows any; there it is not labelled."""
    clip = ClipConfig(**CUSTOM, things_only=True, hold_out=2)
    taught, held_out = open_clips(clip, small_config(), root)
    things = small_config().classes.things
    assert {*np.unique(taught[0][0].semantic)} - {*things, VOID} == {SOME_STUFF}
    assert {*np.unique(held_out[0][0].semantic)} <= {*things, VOID}


def test_things_alone_are_asked_of_data_with_stuff(root):
    dataset = open_dataset("custom", root / "mine", "val")
    things = [(name, True) for name, _ in dataset.kinds]
    with pytest.raises(DatasetError, match="expected classes of things and stuff, got things"):
        replace(dataset, kinds=tuple(things)).without_stuff()


@pytest.mark.parametrize("pseudo_video", [False, True])
@pytest.mark.parametrize("sides", [1, 2])
def test_objects_are_pasted_into_any_data_set(pseudo_video, sides, root, street_root, tmp_path):
    """Red and green blocks; where there is none, frames and labels stay as they are."""
    clip = {**CUSTOM, "path": str(root / "mine"), "pseudo_video": pseudo_video, "scale": [1.0, 1.2]}
    config, model = {"crowd": False, "max_sprites": 3}, small_config()
    (((_, plain),), ((_, pasted),)) = (
        open_sources(data(clip | extra, **config), model, street_root, tmp_path, sides)
        for extra in ({}, {"paste": True})
    )
    people, in_all = model.classes.id_of("person"), 0
    for seed in range(12):
        before, after = (
            source.sample(np.random.default_rng(seed), 64, 96) for source in (plain, pasted)
        )
        new = after.instance > before.instance.max()
        assert np.array_equal(after.instance[~new], before.instance[~new])
        assert np.array_equal(after.semantic[~new], before.semantic[~new])
        for name in np.unique(after.instance[new]):
            own = after.instance == name
            assert len(np.unique(after.semantic[own])) == 1
            in_all += len(after.images) == sides and own.any((1, 2)).all()
            if (after.semantic[own] == people).all() and own.sum() > 50:
                red, green, _ = after.images[own].mean(0)
                assert red > 2 * green
    assert in_all > 5


def test_sprites_without_a_named_licence_are_left_out(street_root, root, tmp_path):
    index = street_root / "sprites/index.json"
    rows = json.loads(index.read_text())
    rows["walker"]["license"] = "CC BY-NC 2.0"
    index.write_text(json.dumps(rows))
    clip = {**CUSTOM, "path": str(root / "mine"), "paste": True}

    def classes(*licenses: str) -> set[int]:
        config = data(clip, sprite_licenses=licenses)
        ((_, source),) = open_sources(config, small_config(), street_root, tmp_path)
        return {sprite.class_id for sprite in source.paster.sprites}

    person, vehicle = map(small_config().classes.id_of, ("person", "vehicle"))
    assert classes() == classes("CC BY 2.0", "CC BY-NC 2.0") == {person, vehicle}
    assert classes("CC BY 2.0") == {vehicle}
    del rows["van"]
    index.write_text(json.dumps(rows))
    with pytest.raises(ConfigError, match=r"data.sprites: expected cut-outs .*, got .*CC BY 2.0"):
        classes("CC BY 2.0")


@pytest.mark.parametrize("clips", [(), [{"dataset": "camvid", "path": "camvid"}]])
def test_images_alone_come_from_any_source(street_root, tmp_path, clips):
    settings = {} if clips else {"copy_paste_weight": 1.0}
    ((_, source),) = sources("semantic", street_root, tmp_path, clips, sides=1, **settings)
    pair = source.sample(np.random.default_rng(0), 64, 96)
    assert len(pair.images) == len(pair.semantic) == len(pair.instance) == 1


@pytest.mark.parametrize(
    ("name", "is_thing", "message"),
    [
        ("river", False, r"images: expected classes of .*, got \['river'\]"),
        ("sky", True, "images: 'sky': expected stuff, as in the street"),
    ],
)
def test_a_class_must_be_one_of_the_street_and_of_its_kind(name, is_thing, message):
    rows = [ClassInfo(0, "person", True, (0, 0, 0)), ClassInfo(1, name, is_thing, (0, 0, 0))]
    with pytest.raises(ConfigError, match=message):
        street_ids(ClassTable(tuple(rows)), "images")


@pytest.mark.parametrize(
    ("dataset", "split", "task", "message"),
    [
        (
            "vspw",
            "val",
            "panoptic",
            "vspw has no things, which is for the task semantic, the model",
        ),
        ("vspw", "val", "instance", "the model has the task instance"),
        ("kitti_step", "val", "semantic", "things and stuff, which is for the task panoptic"),
        ("youtube_vis_2019", "valid", "semantic", "no stuff, which is for the task instance or"),
    ],
)
def test_a_data_set_for_another_task_is_rejected_with_a_reason(
    dataset, split, task, message, written, tmp_path
):
    clips = [{"dataset": dataset, "path": ".", "split": split}]
    with pytest.raises(ConfigError, match=f"data.clips: {dataset} has .*{message}|{message}"):
        sources(task, written[dataset], tmp_path, clips)


def test_whole_masks_of_a_video_reach_the_targets(written):
    """YouTube-VIS: neighbours overlap there, and a pair has the same ids in maps and masks."""
    dataset = open_dataset("youtube_vis_2019", written["youtube_vis_2019"], "valid")
    pair = ClipPairs(dataset).sample(np.random.default_rng(0), 64, 96)
    assert len(pair.masks) == 2
    for masks, instance in zip(pair.masks, pair.instance, strict=True):
        assert set(np.unique(instance)) - {0} <= set(masks.ids.tolist())


def test_every_source_gives_longer_clips(street_root, root, tmp_path):
    for clips, settings in (
        ([{**CUSTOM, "path": root / "mine"}], {}),
        ([{**CUSTOM, "path": root / "mine", "pseudo_video": True}], {}),
        ([], {"copy_paste_weight": 1.0}),
        ([], {"copy_paste_weight": 0.0, "synthetic_seeds": 1}),
    ):
        clips = [{**clip, "path": str(clip["path"])} for clip in clips]
        ((_, source),) = sources("panoptic", street_root, tmp_path, clips, sides=3, **settings)
        pair = source.sample(np.random.default_rng(0), 64, 96)
        assert pair.images.shape == (3, 64, 96, 3), clips
        assert not np.array_equal(pair.images[1], pair.images[2])


def test_a_clip_of_the_street_goes_one_way_in_time(tmp_path):
    for causal, directions in ((True, {-1}), (False, {-1, 1})):
        source, found = StreetPairs(1, tmp_path, causal=causal, frames=3), set()
        clip = [
            StreetFrame(np.full((32, 48, 3), 9 * t, np.uint8), *np.zeros((2, 32, 48), np.uint8))
            for t in range(4)
        ]
        source._clip = lambda seed, moment, clip=clip: clip
        for seed in range(10):
            images = source.sample(np.random.default_rng(seed), 32, 48).images
            times = [int(image.max()) for image in images]
            assert len(set(times)) == 3
            found |= set(np.sign(np.diff(times)).tolist())
            assert len(set(np.sign(np.diff(times)).tolist())) == 1
        assert found == directions


START_METHODS = sorted({*multiprocessing.get_all_start_methods()} - {"fork"})


@pytest.fixture
def start_method(request):
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.slow
@pytest.mark.parametrize("start_method", START_METHODS, indirect=True)
@pytest.mark.parametrize("task", ["street_lite0", "street_pspnet_lite0", "street_instances_lite0"])
def test_workers_that_do_not_fork_give_the_same_batches(start_method, task, tmp_path):
    """Forkserver is the default of Python 3.14 on Linux, spawn that of macOS and Windows."""
    settings = {"batch": 2, "steps": 2, "photometric": True}
    trainer = Trainer(write_run(tmp_path, small_version(task), **settings), tmp_path, device="cpu")
    dataset = trainer.dataset
    expected = list(batches(dataset, 0))
    dataset.config = replace(dataset.config, workers=1)
    for (images, targets), (other_images, other_targets) in zip(
        *([batch for (batch,) in each] for each in (batches(dataset, 0), expected)), strict=True
    ):
        assert torch.equal(images, other_images)
        assert all(map(torch.equal, targets, other_targets))


def test_a_worker_takes_one_core(request):
    request.addfinalizer(partial(cv2.setNumThreads, cv2.getNumThreads()))
    cv2.setNumThreads(2)  # what a worker would get from this process, with threads that do run
    cv2.GaussianBlur(np.zeros((2000, 2000), np.float32), (0, 0), 3)

    class Threads(torch.utils.data.Dataset):
        config = TrainConfig("model.yaml", steps=2, batch=1, workers=1)

        def __getitem__(self, index):
            return torch.tensor([cv2.getNumThreads(), torch.get_num_threads()]), [(torch.zeros(1),)]

    (batch,) = next(batches(Threads(), 0))
    assert batch[0].tolist() == [[1, 1]]


def test_frames_that_are_left_out_or_held_out_are_not_trained_on(root, tmp_path):
    clip = {**CUSTOM, "pseudo_video": True, "hold_out": 2, "exclude": ["drive_5/0"]}
    ((_, source),) = open_sources(data(clip), small_config(), root, tmp_path)
    names = [f"{video.name}/{frame.name}" for video in source.dataset for frame in video.frames]
    assert names == ["drive_5/1", "drive_6/0", "drive_6/2"]


def test_whole_videos_are_held_out_of_videos(root, tmp_path):
    ((_, source),) = open_sources(data(CUSTOM | {"hold_out": 2}), small_config(), root, tmp_path)
    assert [video.name for video in source.dataset] == ["drive_5"]


def test_one_video_of_one_cannot_be_held_out():
    with pytest.raises(ConfigError, match="hold_out: expected 0, or a number from 2 on, got 1"):
        data(CUSTOM | {"hold_out": 1})
