"""One trainer for three tasks, and for images alone: targets, losses, scores and first weights."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import golden
import host_device
import numpy as np
import pytest
import torch
import yaml
from networks import CONFIGS, small_config, small_network
from street_fixtures import street_table, write_camvid, write_sprites
from torch import Tensor

from video_knet_core.config import BackboneConfig, ModelConfig, NeckConfig
from video_knet_core.config_io import ConfigError, from_dict, load_yaml, to_dict
from video_knet_core.data.camvid import street_ids
from video_knet_core.data.clip_pairs import ClipPairs
from video_knet_core.data.datasets import open_dataset
from video_knet_core.data.pairs import FramePair
from video_knet_core.data.street_frame import STREET_CLASSES, StreetFrame
from video_knet_core.data.video import InstanceMasks
from video_knet_core.model.checkpoint import load_model, read_metadata
from video_knet_core.model.video_knet import VideoKNet
from video_knet_core.training import processes
from video_knet_core.training.clip_metrics import InstanceMetric, SemanticMetric
from video_knet_core.training.optimization import freeze_temporal_modules, trained
from video_knet_core.training.pair_step import pair_losses
from video_knet_core.training.sources import open_sources
from video_knet_core.training.targets import IGNORE, class_targets, frame_targets
from video_knet_core.training.train_config import DataConfig, LossWeights, TrainConfig
from video_knet_core.training.trainer import Trainer, start_from, train_from_config, with_classes_of
from video_knet_core.training.training_tasks import task_of
from video_knet_core.types import ClassInfo, ClassTable

ROAD, SKY, PERSON, VEHICLE, VOID = 0, 7, 8, 10, 255
MODELS = {
    "panoptic": "street_lite0",
    "semantic": "street_pspnet_lite0",
    "instance": "street_instances_lite0",
}


def small_model(task: str, name: str | None = None, **kernels: object) -> ModelConfig:
    """A model of the street for `task`, of 32 channels and 64 x 96 pixels."""
    config = load_yaml(ModelConfig, CONFIGS / "models" / f"{name or MODELS[task]}.yaml")
    things = 0 if task == "semantic" else 6
    settings = {"things": things, "attention_heads": 2, "feedforward": 64} | kernels
    return replace(
        config,
        height=64,
        width=96,
        neck=replace(config.neck, channels=32),
        kernels=replace(config.kernels, **settings),
    )


def clip(model: ModelConfig) -> FramePair:
    """Sky over road; a vehicle that moves and stands behind a person, and an unlabelled strip."""
    frames = []
    for shift in (0, 8):
        semantic, instance = np.full((64, 96), SKY, np.uint8), np.zeros((64, 96), np.int32)
        semantic[32:] = ROAD
        semantic[16:48, 16 + shift : 56 + shift], instance[16:48, 16 + shift : 56 + shift] = (
            VEHICLE,
            5,
        )
        semantic[24:56, 40:52], instance[24:56, 40:52] = PERSON, 6
        semantic[:, 88:], instance[:, 88:] = VOID, 0
        look = np.array([[90, 90, 90], [40, 90, 220], [220, 30, 30], [30, 220, 30], [0, 0, 0]])
        places = np.searchsorted([ROAD, SKY, PERSON, VEHICLE, VOID], semantic)
        frames.append((look[places].astype(np.uint8), semantic, instance))
    images, semantic, instance = (np.stack(part) for part in zip(*frames, strict=True))
    return FramePair(images, street_ids(model.classes, "test")[semantic], instance)


def inputs(model: ModelConfig, pair: FramePair, batch: int = 1) -> tuple[Tensor, list[list]]:
    """Images and targets of `batch` times the same pair."""
    config, task = TrainConfig("", mask_stride=2, rank_stride=4), task_of(model)
    images = torch.from_numpy(pair.images).permute(0, 3, 1, 2)[None]
    sides = range(len(pair.images))
    targets = [[task.targets(pair, side, model.classes, config)] * batch for side in sides]
    return images.expand(batch, -1, -1, -1, -1), targets


def lean_semantic() -> ModelConfig:
    """Class kernels on the cheap neck of the street."""
    backbone, neck = BackboneConfig(), NeckConfig(channels=32)
    return replace(small_model("semantic"), backbone=backbone, neck=neck)


@pytest.mark.parametrize("task", ["semantic", "instance"])
def test_losses_of_each_task_fall(task):
    model = lean_semantic() if task == "semantic" else small_model(task)
    torch.manual_seed(0)
    network = VideoKNet(model).train()
    criterion = task_of(model).criterion(LossWeights(), model.classes)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    images, targets = inputs(model, clip(model))
    totals = []
    for _ in range(9):
        losses, _ = pair_losses(network, criterion, images, targets)
        optimizer.zero_grad()
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.7 * totals[0]
    assert all(parameter.grad is not None for _, parameter in trained(network))
    assert ("track" in losses) == (task != "semantic")


@pytest.mark.parametrize("task", list(MODELS))
def test_a_step_on_a_device_needs_nothing_beside_it(task, monkeypatch):
    """Losses and gradients of a network on a device, which no tensor of the host may meet."""
    model = lean_semantic() if task == "semantic" else small_model(task)
    criterion = task_of(model).criterion(LossWeights(stage_rank=0.5, balance=0.5), model.classes)
    images, targets = inputs(model, clip(model), batch=2)
    torch.manual_seed(0)
    network = VideoKNet(model).train()
    losses, _ = pair_losses(network, criterion, images, targets)
    torch.stack(list(losses.values())).sum().backward()
    expected = {name: parameter.grad for name, parameter in trained(network)}
    torch.manual_seed(0)
    there = host_device.moved(VideoKNet(model).train())
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no such device
    with host_device.in_use(monkeypatch):
        images = images.to(host_device.DEVICE)
        targets = [[frame.to(host_device.DEVICE) for frame in side] for side in targets]
        found, _ = pair_losses(there, criterion, images, targets)
        torch.stack(list(found.values())).sum().backward()
    assert {name: loss.host.item() for name, loss in found.items()} == {
        name: loss.item() for name, loss in losses.items()
    }
    for name, parameter in trained(there):
        torch.testing.assert_close(parameter.grad.host, expected[name], msg=name)


def test_the_device_refuses_a_tensor_of_the_host(monkeypatch):
    with host_device.in_use(monkeypatch):
        there = torch.ones(3, device=host_device.DEVICE)
        assert (there + torch.tensor(1.0)).host.tolist() == [2, 2, 2]
        assert there[torch.tensor([0, 2])].host.tolist() == [1, 1]
        for wrong in (
            lambda: there + torch.ones(3),
            lambda: torch.ones(3)[torch.zeros(2, dtype=torch.int64, device=there.device)],
            lambda: torch.ones(3).index_put((torch.tensor([0]),), there[:1]),
            lambda: there.index_put((torch.tensor([0, 1]),), torch.ones(2)),
        ):
            with pytest.raises(RuntimeError, match="are not on the device"):
                wrong()


def test_losses_of_a_semantic_network_by_name():
    model = small_model("semantic")
    images, targets = inputs(model, clip(model))
    criterion = task_of(model).criterion(LossWeights(semantic=2.0), model.classes)
    losses, _ = pair_losses(VideoKNet(model).train(), criterion, images, targets)
    parts = ["head", "stage0", "stage1", "stage2", "auxiliary"]
    assert set(losses) == {f"{s}_{p}_semantic" for s in ("key", "reference") for p in parts}
    weight = (losses["key_head_semantic"] / losses["key_auxiliary_semantic"]).item()
    assert weight == pytest.approx(2.0 / 0.4, rel=0.5), "at the start all maps are alike"


def test_a_plain_decoder_learns_with_its_head_alone():
    model = small_model("semantic", "street_deeplabv3plus_lite0", stages=0)
    images, targets = inputs(model, clip(model))
    network = VideoKNet(model).train()
    criterion = task_of(model).criterion(LossWeights(), model.classes)
    losses, _ = pair_losses(network, criterion, images, targets)
    assert {name.split("_", 1)[1] for name in losses} == {"head_semantic", "auxiliary_semantic"}
    torch.stack(list(losses.values())).sum().backward()
    assert all(parameter.grad is not None for _, parameter in trained(network))


def test_class_kernels_learn_to_look_back():
    """The key frame sees the reference's kernels, so fusion and linking get gradients."""
    model = small_model("semantic")
    images, targets = inputs(model, clip(model))
    network = VideoKNet(model).train()
    criterion = task_of(model).criterion(LossWeights(), model.classes)
    losses, _ = pair_losses(network, criterion, images, targets)
    losses["key_stage2_semantic"].backward()
    last = network.stages[-1]
    for part in (last.fusion, last.linking):
        assert all(p.grad is not None and p.grad.any() for p in part.parameters() if p.dim() > 1)


def semantic_reference() -> VideoKNet:
    """A semantic network without anything that sees other images or draws by itself."""
    torch.manual_seed(0)
    config = golden.small_config()
    rows = [{**row, "is_thing": False} for row in config.classes.to_rows()]
    kernels = replace(config.kernels, things=0, embedding=False, linking="ffn", fusion="link_atten")
    model = replace(
        config,
        task="semantic",
        classes=ClassTable.from_rows(rows),
        kernels=kernels,
        panoptic=replace(config.panoptic, merge="fast"),
        height=64,
        width=96,
    )
    network = VideoKNet(model).train()
    network.head.dropout.p = 0.0
    return network


def test_two_processes_give_the_gradients_of_one_in_task_semantic(monkeypatch):
    """Balanced classes, of which each process sees others: sums are over both."""
    barrier, found = threading.Barrier(2, timeout=60), {}

    def total(values):
        found[threading.get_ident()] = values
        barrier.wait()
        result = torch.stack(list(found.values())).sum(0)
        barrier.wait()
        return result

    network = semantic_reference()
    classes = network.config.classes
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 255, (2, 2, 3, 64, 96), np.uint8))
    maps = rng.integers(0, 4, (2, 2, 16, 24), np.uint8)
    maps[1] += 3
    maps[1, 0, :4] = VOID
    maps = maps.repeat(4, 2).repeat(4, 3)
    criterion = task_of(network.config).criterion(LossWeights(balance=0.5), classes)

    def gradient(rows: slice) -> Tensor:
        targets = [[class_targets(m, classes, 4) for m in maps[rows, side]] for side in (0, 1)]
        losses, _ = pair_losses(network, criterion, images[rows], targets)
        weights = network.head.classifier.weight, network.stages[-1].mask_head[-1].weight
        grads = torch.autograd.grad(torch.stack(list(losses.values())).sum(), weights)
        return torch.cat([g.flatten() for g in grads])

    whole = gradient(slice(2))
    monkeypatch.setattr(processes, "total", total)
    monkeypatch.setattr(processes, "count", lambda: 2)
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(gradient, (slice(1), slice(1, 2))))
    assert not torch.allclose(parts[0], parts[1])
    # the mean over the cells of a batch is that of half as many in each
    torch.testing.assert_close(sum(parts) / 2, whole, rtol=1e-3, atol=1e-6)


def test_class_targets_ignore_what_is_void():
    semantic = np.full((8, 12), ROAD, np.uint8)
    semantic[:, 4:6], semantic[:, 6:] = SKY, VOID
    goals = class_targets(semantic, small_model("semantic").classes, 4).semantic
    assert goals.tolist() == [[ROAD, SKY, IGNORE]] * 2
    nowhere = class_targets(np.full((8, 8), VOID, np.uint8), small_config().classes, 4)
    assert (nowhere.semantic == IGNORE).all()


def overlapping() -> tuple[np.ndarray, np.ndarray, InstanceMasks]:
    """Vehicle 1 behind vehicle 2, a crowd (no id), and nothing labelled elsewhere."""
    semantic, instance = np.full((32, 32), VOID, np.uint8), np.zeros((32, 32), np.int32)
    whole = np.zeros((2, 32, 32), bool)
    whole[0, 4:20, 4:28], whole[1, 8:24, 12:20] = True, True
    for number, mask in enumerate(whole, start=1):
        semantic[mask], instance[mask] = 2, number
    semantic[28:, :8] = 2
    return semantic, instance, InstanceMasks(np.array([1, 2]), np.array([2, 2]), whole)


def instance_targets(**changes: object):
    semantic, instance, whole = overlapping()
    classes = small_model("instance").classes
    arguments = {"whole": whole, "background": True} | changes
    return frame_targets(semantic, instance, classes, 4, **arguments)


def test_masks_that_overlap_are_learned_whole():
    targets, front = instance_targets(), instance_targets(whole=None)
    assert targets.ids.tolist() == front.ids.tolist() == [1, 2]
    assert targets.masks[0, 3, 3] == 1 and front.masks[0, 3, 3] == 0, "hidden behind the other"
    assert torch.equal(targets.owners, front.owners), "a cell goes to the one in front"
    assert targets.owners[3, 3] == 1


def test_unlabelled_pixels_are_background_and_crowds_are_not():
    targets = instance_targets()
    assert targets.valid[0, 0] == 1 and targets.masks[:, 0, 0].tolist() == [0, 0]
    assert targets.valid[7, 0] == 0, "a crowd: nobody knows whose"
    assert instance_targets(background=False).valid[0, 0] == 0, "as in task panoptic"


def test_an_instance_that_is_quite_hidden_is_learned_too():
    semantic, instance, whole = overlapping()
    semantic[whole.masks[0]], instance[whole.masks[0]] = 2, 2
    targets = frame_targets(
        semantic, instance, small_model("instance").classes, 4, whole=whole, background=True
    )
    assert targets.ids.tolist() == [1, 2]
    assert not (targets.owners == 0).any()


def test_background_teaches_the_head_that_there_is_nothing():
    """Logits that call everything a vehicle cost more where nothing is than where one is."""
    model = small_model("instance")
    criterion = task_of(model).criterion(LossWeights(), model.classes)
    logits = torch.full((1, 3, 8, 8), -4.0, requires_grad=True)
    criterion._semantic(logits, [instance_targets()]).backward()
    vehicle = logits.grad[0, 2]
    assert vehicle[0, 0] > 0, "less of it where nothing is"
    assert vehicle[3, 3] < 0, "more of it where one is"
    assert vehicle[7, 0] < 0, "also in a crowd"


def test_images_alone_leave_what_looks_back_as_it_was():
    model = small_model("panoptic")
    torch.manual_seed(0)
    network = VideoKNet(model).train()
    freeze_temporal_modules(network)
    images, targets = inputs(model, clip(model).key(), batch=2)
    assert images.shape == (2, 1, 3, 64, 96)
    criterion = task_of(model).criterion(LossWeights(), model.classes)
    losses, matches = pair_losses(network, criterion, images, targets)
    assert set(matches) == {"key"}
    assert all(name.startswith("key_") for name in losses)
    torch.stack(list(losses.values())).sum().backward()
    without = {name for name, p in network.named_parameters() if p.grad is None}
    assert without == {
        name for name, _ in network.named_parameters() if name not in dict(trained(network))
    }
    assert any(name.startswith("embedding.") for name in without)


def test_a_key_frame_alone_has_the_losses_of_one_without_previous_kernels():
    """The reference side of a pair looks at nothing too."""
    model = small_model("panoptic")
    torch.manual_seed(0)
    network = VideoKNet(model).eval()
    network.stages[0].training = network.stages[1].training = network.training = True
    pair = clip(model)
    swapped = FramePair(pair.images[::-1].copy(), pair.semantic[::-1], pair.instance[::-1])
    criterion = task_of(model).criterion(LossWeights(), model.classes)
    alone, _ = pair_losses(network, criterion, *inputs(model, pair.key()))
    both, _ = pair_losses(network, criterion, *inputs(model, swapped))
    for name, loss in alone.items():
        expected = both[name.replace("key_", "reference_")].item()
        assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-6), name


def test_a_run_of_images_keeps_the_model_with_the_best_miou(root, tmp_path):
    """Also what such a run needs to go on: layers that do not learn have no optimiser state."""
    write_camvid(root / "camvid/val_clip", frames=2)
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(to_dict(lean_semantic())))
    settings = {
        **{"model": "model.yaml", "video": False, "steps": 1, "batch": 2, "warmup_steps": 0},
        **{"height": 64, "width": 96, "workers": 0, "threads": 1},
        "data": {"clips": [{"dataset": "camvid", "path": "camvid"}]},
        "validation": {"every": 1, "dataset": "camvid", "path": "camvid", "split": "val_clip"},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(settings))
    train_from_config(path, tmp_path / "run", root, device="cpu")
    metrics = read_metadata(tmp_path / "run" / "best.safetensors")["metrics"]
    assert list(metrics) == ["step", "miou"] and 0 <= metrics["miou"] < 1
    again = Trainer(path, tmp_path / "run", root, "cpu")
    again.resume()
    assert again.progress.best == metrics["miou"]


def sources(task: str, root, tmp_path, clips=(), video: bool = True, **settings: object):
    data = from_dict(DataConfig, {"clips": list(clips), **settings})
    return open_sources(data, small_model(task), root, tmp_path / "out", video)


@pytest.fixture
def root(tmp_path):
    write_camvid(tmp_path / "data/camvid/train", car=(slice(30, 60), slice(40, 60)))
    write_sprites(tmp_path / "data/sprites")
    return tmp_path / "data"


def test_stills_with_sprites_have_the_classes_of_an_instance_model(root, tmp_path):
    ((_, source),) = sources("instance", root, tmp_path, copy_paste_weight=1.0)
    found = set()
    for seed in range(6):
        pair = source.sample(np.random.default_rng(seed), 64, 96)
        found |= set(np.unique(pair.semantic).tolist())
        assert set(np.unique(pair.semantic[pair.instance > 0])) <= {0, 1, 2}
    assert found <= {0, 1, 2, VOID} and {0, 2, VOID} <= found


def test_the_stills_of_camvid_are_a_data_set_of_a_semantic_model(root, tmp_path):
    clips = [{"dataset": "camvid", "path": "camvid", "pseudo_video": True}]
    ((_, source),) = sources("semantic", root, tmp_path, clips)
    pair = source.sample(np.random.default_rng(0), 64, 96)
    assert {ROAD, SKY} <= set(np.unique(pair.semantic).tolist())
    assert pair.images.shape == (2, 64, 96, 3)


@pytest.mark.parametrize("clips", [(), [{"dataset": "camvid", "path": "camvid"}]])
def test_images_alone_come_from_any_source(root, tmp_path, clips):
    settings = {} if clips else {"copy_paste_weight": 1.0}
    ((_, source),) = sources("semantic", root, tmp_path, clips, video=False, **settings)
    pair = source.sample(np.random.default_rng(0), 64, 96)
    assert len(pair.images) == len(pair.semantic) == len(pair.instance) == 1


def test_a_street_without_one_of_the_classes_is_refused():
    table = ClassTable(
        (ClassInfo(0, "road", False, (0, 0, 0)), ClassInfo(1, "river", False, (0, 0, 0)))
    )
    with pytest.raises(ConfigError, match=r"stills: classes must be of .*, got \['river'\]"):
        street_ids(table, "stills")
    assert street_ids(street_table(), "stills")[:11].tolist() == list(range(len(STREET_CLASSES)))


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
def test_a_data_set_for_another_task_is_refused_in_words(
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


def test_weights_of_other_classes_are_taken_by_name():
    table = ClassTable(
        tuple(
            ClassInfo(i, name, False, (0, 0, 0)) for i, name in enumerate(("Sky", "river", "road"))
        )
    )
    start = small_network()
    model = VideoKNet(replace(small_model("instance"), classes=small_model("instance").classes))
    state = with_classes_of(model, start)
    rows = start.head.classifier.weight[:3]
    assert torch.equal(state["head.classifier.weight"], rows), "things are the first rows"
    semantic = VideoKNet(replace(small_model("semantic"), classes=table))
    from_street = with_classes_of(semantic, VideoKNet(small_model("semantic")))
    weight, own = from_street["head.classifier.weight"], semantic.head.classifier.weight
    assert torch.equal(weight[1], own[1]), "no street has a river"
    assert not torch.equal(weight[0], own[0]) and not torch.equal(weight[2], own[2])


@pytest.mark.parametrize(
    "names",
    [("汽车", "行人", "天空", "树"), ("машина", "человек", "небо", "дерево"), tuple("abcd")],
)
def test_names_of_any_script_take_their_own_rows(names):
    """The first two change places, and the last is new."""

    def network(*rows: str) -> VideoKNet:
        classes = (ClassInfo(i, name, False, (0, 0, 0)) for i, name in enumerate(rows))
        return VideoKNet(replace(small_model("semantic"), classes=ClassTable(tuple(classes))))

    start, model = network(*names[:3]), network(names[1], names[0], names[2], names[3])
    taken = with_classes_of(model, start)["head.classifier.weight"]
    old, fresh = start.head.classifier.weight, model.head.classifier.weight
    assert torch.equal(taken[:3], old[[1, 0, 2]]) and torch.equal(taken[3], fresh[3])


def test_a_class_of_the_street_keeps_its_kind():
    rows = [ClassInfo(0, "road", True, (0, 0, 0)), ClassInfo(1, "person", True, (0, 0, 0))]
    with pytest.raises(ConfigError, match="stills: 'road' must be stuff, as in the street"):
        street_ids(ClassTable(tuple(rows)), "stills")


def test_an_instance_model_starts_from_the_shipped_one():
    shipped = load_model(CONFIGS.parent / "models" / "street_lite0.safetensors")
    config = load_yaml(ModelConfig, CONFIGS / "models" / "street_instances_lite0.yaml")
    model = VideoKNet(config)
    start_from(model, with_classes_of(model, shipped))
    own, theirs = model.stages[-1].class_head[-1], shipped.stages[-1].class_head[-1]
    assert torch.equal(own.weight, theirs.weight[:3])


class Seen:
    """What a predictor would give: masks by track id, all of one class and score."""

    def __init__(self, masks: dict[int, np.ndarray], class_id: int = 2) -> None:
        self.masks = masks
        self.tracks = [
            SimpleNamespace(label=i, track_id=i, class_id=class_id, score=0.9) for i in masks
        ]

    def mask(self, track) -> np.ndarray:
        return self.masks[track.track_id]


def test_ap_of_tracks_is_one_for_the_truth_and_less_for_half_of_it():
    """Whole masks count, and an object may come later and go earlier than the clip."""
    semantic, instance, whole = overlapping()
    both = SimpleNamespace(semantic=semantic, instance=instance, masks=whole)
    first = InstanceMasks(whole.ids[:1], whole.class_ids[:1], whole.masks[:1])
    one = SimpleNamespace(semantic=semantic, instance=instance, masks=first)
    classes, device = small_model("instance").classes, torch.device("cpu")
    perfect, half = InstanceMetric(classes), InstanceMetric(classes)
    for clip_number in (0, 1):
        for truth in (one, both, one):
            masks = {7 + int(i): m for i, m in zip(truth.masks.ids, truth.masks.masks, strict=True)}
            perfect.update(truth, Seen(masks), clip_number)
            half.update(truth, Seen({8: masks[8] & (np.arange(32) < 18)}), clip_number)
    assert perfect.scores(device) == {"ap": pytest.approx(1.0), "ap50": pytest.approx(1.0)}
    scores = half.scores(device)
    assert list(scores) == ["ap", "ap50"], "the first decides which model is the best"
    assert 0 < scores["ap"] < scores["ap50"] < 0.6


def test_true_masks_come_from_the_map_where_there_are_no_others():
    semantic, instance, _ = overlapping()
    truth = StreetFrame(np.zeros((32, 32, 3), np.uint8), semantic, instance)
    metric = InstanceMetric(small_model("instance").classes)
    crowd = (semantic == 2) & (instance == 0)
    metric.update(truth, Seen({1: instance == 1, 2: instance == 2, 3: crowd}), 0)
    assert metric.scores(torch.device("cpu"))["ap"] == pytest.approx(1.0), "a crowd is ignored"


def test_miou_counts_what_is_predicted_for_labelled_pixels():
    semantic = np.array([[ROAD, ROAD, SKY, VOID]], np.uint8)
    seen = SimpleNamespace(semantic_map=lambda: np.array([[ROAD, SKY, SKY, PERSON]], np.uint8))
    metric = SemanticMetric(small_model("semantic").classes)
    metric.update(SimpleNamespace(semantic=semantic), seen, 0)
    assert metric.scores(torch.device("cpu")) == {"miou": pytest.approx(0.5)}


def test_texts_of_all_processes_are_gathered_in_their_order(monkeypatch):
    barrier, found = threading.Barrier(2, timeout=60), {}
    mine = threading.local()

    def total(values):
        found[mine.number] = values
        barrier.wait()
        result = torch.stack(list(found.values())).sum(0).to(values.dtype)
        barrier.wait()
        return result

    def gather(number: int, text: str) -> list[str]:
        mine.number = number
        return processes.gathered(text, torch.device("cpu"))

    monkeypatch.setattr(processes, "total", total)
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "number", lambda: mine.number)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(gather, (0, 1), ("fu\u00df", ""))) == [["fu\u00df", ""]] * 2
