"""The trainer as a whole: what survives a fault, and what several processes make of a run."""

from __future__ import annotations

import math
import multiprocessing
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import golden
import numpy as np
import pytest
import torch
import yaml
from dataset_fixtures import FIXTURES
from networks import CONFIGS, small_config, small_network, small_version
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from video_knet_core.config_io import ConfigError, load_yaml, to_dict
from video_knet_core.data.pairs import CropRange
from video_knet_core.data.video import DatasetError
from video_knet_core.model import checkpoint
from video_knet_core.model.checkpoint import load_model, read_metadata, save_model
from video_knet_core.model.video_knet import VideoKNet
from video_knet_core.training import losses, processes
from video_knet_core.training.batches import batches
from video_knet_core.training.monitor import Monitor
from video_knet_core.training.optimization import set_rate
from video_knet_core.training.targets import IGNORE
from video_knet_core.training.train_config import TrainConfig, ValidationConfig
from video_knet_core.training.trainer import Trainer, find_device, train_from_config
from video_knet_core.training.validation import Quality, Validation

NAN = math.nan


def write_run(folder: Path, model: VideoKNet, **settings: object) -> Path:
    """A tiny run on the synthetic street alone, from the weights of `model`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.yaml").write_text(yaml.safe_dump(to_dict(model.config)))
    save_model(model, folder / "start.safetensors")
    run = {
        "model": "model.yaml",
        "init": "start.safetensors",
        **{"steps": 2, "batch": 1, "height": 64, "width": 96, "warmup_steps": 0},
        **{"workers": 0, "threads": 1, "checkpoint_every": 1},
        "data": {"copy_paste_weight": 0.0, "synthetic_seeds": 1},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(run | settings))
    return path


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path, small_network())


def reference_network() -> VideoKNet:
    """The authors' layers, small, for the street: no batch norm of it learns its statistics."""
    torch.manual_seed(0)
    config = golden.small_config()
    return VideoKNet(replace(config, classes=small_config().classes, height=64, width=96))


def assert_same_weights(a: Path, b: Path) -> None:
    other = load_file(b)
    for key, value in load_file(a).items():
        torch.testing.assert_close(other[key], value, rtol=0, atol=2e-6, msg=key)


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    """A run by two processes of one pair each, accumulated twice, and how it is configured."""
    folder = tmp_path_factory.mktemp("two")
    settings = {"accumulate": 2, "learning_rate": 1e-4, "losses": {"balance": 0.5, "rank": 0.3}}
    settings["validation"] = {"every": 2, "clips": 3, "frames": 2}
    path = write_run(folder, reference_network(), **settings)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = ["-m", "video_knet_core.cli", "train", path, "--out", folder / "out"]
    subprocess.run(
        [*launcher, "--nproc-per-node", "2", *map(str, command), "--device", "cpu"],
        check=True,
        timeout=600,
        cwd=CONFIGS.parent,
    )
    return folder / "out", settings


def test_two_processes_give_the_weights_of_one_with_twice_the_batch(of_two_processes, tmp_path):
    two, settings = of_two_processes
    train_from_config(
        write_run(tmp_path, reference_network(), **settings, batch=2),
        tmp_path / "one",
        None,
        False,
        "cpu",
    )
    start = load_file(tmp_path / "start.safetensors")
    one = load_file(tmp_path / "one" / "last.safetensors")
    assert not torch.equal(start["head.classifier.weight"], one["head.classifier.weight"])
    assert_same_weights(two / "last.safetensors", tmp_path / "one" / "last.safetensors")
    expected = read_metadata(tmp_path / "one" / "best.safetensors")["metrics"]
    assert read_metadata(two / "best.safetensors")["metrics"] == pytest.approx(expected, abs=1e-6)


def test_what_two_processes_began_one_may_end(of_two_processes, tmp_path):
    two, settings = of_two_processes
    path = write_run(tmp_path, reference_network(), **settings, batch=2)
    trainer = Trainer(path, two, device="cpu")
    trainer.resume()
    assert trainer.progress.step == 2
    other = Trainer(write_run(tmp_path, reference_network(), **settings), two, device="cpu")
    with pytest.raises(checkpoint.CheckpointError, match="of another run"):
        other.resume()


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"learning_rate": 1e-3}, 'expected "learning_rate": 0.001 as configured, got 0.0007'),
        ({"schedule": "step"}, 'expected "schedule": "step" as configured, got "cosine"'),
        ({"steps": 4}, 'expected "steps": 4 as configured, got 2'),
        ({"batch": 2}, 'expected "pairs": 2 as configured, got 1'),
        ({"losses": {"dice": 2.0}}, 'expected "losses.dice": 2.0 as configured, got 4.0'),
        ({"decay_at": [0.75, 0.8]}, 'expected "decay_at[1]": 0.8 as configured, got 0.9166'),
        ({"network": {"things": 7}}, 'expected "model.kernels.things": 7 as configured, got 6'),
    ],
)
def test_another_run_is_not_resumed_and_its_first_difference_is_named(
    run, tmp_path, change, difference
):
    trainer = Trainer(run, tmp_path / "out", device="cpu")
    trainer.train_step(next(batches(trainer.dataset, 0)))
    trainer.save()
    network = small_network(**change.pop("network", {}))
    other = Trainer(write_run(tmp_path, network, **change), tmp_path / "out", device="cpu")
    with pytest.raises(checkpoint.CheckpointError) as error:
        other.resume()
    state = tmp_path / "out" / "last.state.safetensors"
    assert str(error.value) == f"{state} is of another run: {difference}"


@pytest.mark.parametrize("progress", ["", "{", "[1]", '{"other": 1}'])
def test_a_state_whose_progress_is_damaged_is_named(progress, run, tmp_path):
    trainer = Trainer(run, tmp_path / "out", device="cpu")
    trainer.train_step(next(batches(trainer.dataset, 0)))
    trainer.save()
    state = tmp_path / "out" / "last.state.safetensors"
    tensors, facts = checkpoint.load_tensors(state)
    checkpoint.save_tensors(tensors, state, {**facts, "progress": progress})
    with pytest.raises(checkpoint.CheckpointError, match="is not the state of this run"):
        trainer.resume()


@pytest.mark.parametrize("name", ["cuda:99", "meta", "toaster", "cuda:"])
def test_a_device_that_is_not_there_is_a_mistake_of_the_user(name):
    with pytest.raises(ConfigError, match=rf"device: expected one of .*'cpu'.*, got '{name}'"):
        find_device(name)


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_gpu_that_torch_knows_but_does_not_have(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert find_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match=rf"\['auto', 'cpu'\], got '{name}'"):
        find_device(name)


@pytest.mark.parametrize(
    ("name", "network", "settings"),
    [
        ("street_pspnet_lite0", {}, {"height": 64, "width": 96}),
        ("street_deeplabv3plus_lite0", {}, {"height": 64, "width": 96}),
        ("street_lite0", {}, {"height": 32, "width": 32}),
    ],
)
def test_one_image_is_too_few_for_a_batch_norm_of_one_value(name, network, settings, tmp_path):
    settings = {"batch": 1, "video": False, "steps": 1, **settings}
    path = write_run(tmp_path, small_version(name, **network), **settings)
    with pytest.raises(ConfigError, match="batch: expected at least 2 images .* got batch 1"):
        train_from_config(path, tmp_path / "one", device="cpu")
    path = write_run(tmp_path, small_version(name, **network), **settings | {"batch": 2})
    train_from_config(path, tmp_path / "two", device="cpu")


START_METHODS = sorted({*multiprocessing.get_all_start_methods()} - {"fork"})


@pytest.fixture
def start_method(request):
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


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
        for side, other_side in zip(targets, other_targets, strict=True):
            for one, other in zip(side, other_side, strict=True):
                for key, value in vars(one).items():
                    assert torch.equal(value, getattr(other, key)), key


def test_losses_of_two_processes_add_up_when_one_sees_nothing(monkeypatch):
    """The second has no masks, no positives and no known cell; both ask for the same sums."""
    barrier, found = threading.Barrier(2, timeout=60), {}

    def total(values):
        found[threading.get_ident()] = values
        barrier.wait()
        result = torch.stack(list(found.values())).sum(0)
        barrier.wait()
        return result

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 8, 8, generator=generator)
    goals, valid = (logits > 0.3).float(), torch.ones(5, 8, 8)
    owners = torch.stack((goals[:3].argmax(0), torch.full((8, 8), IGNORE)))
    positives = torch.zeros(2, 5, 3)
    positives[0, :3, 1] = 1

    def gradient(masks: slice, images: slice, count: int) -> torch.Tensor:
        weight = torch.ones((), requires_grad=True)
        kernels = (weight * logits).expand(2, -1, -1, -1)[images]
        scores = kernels.mean((2, 3))[..., None].expand(-1, -1, 3)
        values = [
            losses.mask_loss(weight * logits[masks], goals[masks], valid[masks]),
            losses.dice_loss(weight * logits[masks], goals[masks], valid[masks]),
            losses.rank_loss(kernels, owners[images], balance=0.5),
            losses.class_loss(scores, positives[images], torch.ones_like(scores), count),
        ]
        return torch.autograd.grad(torch.stack(values).sum(), weight)[0]

    whole = gradient(slice(5), slice(2), 3)
    monkeypatch.setattr(processes, "total", total)
    monkeypatch.setattr(processes, "count", lambda: 2)
    with ThreadPoolExecutor(2) as pool:
        shards = (slice(5), slice(0)), (slice(1), slice(1, 2)), (3, 0)
        parts = list(pool.map(gradient, *shards))
    assert not torch.isclose(parts[0], parts[1])
    # the mean over the cells of a batch is that of half as many in each
    torch.testing.assert_close(sum(parts) / 2, whole)


def test_norms_that_do_not_learn_do_not_on_several_gpus_either():
    network = nn.SyncBatchNorm.convert_sync_batchnorm(reference_network()).train()
    norms = [m for m in network.backbone.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert len(norms) > 10
    assert not any(norm.training for norm in norms)


def test_a_fault_while_a_checkpoint_is_written_loses_nothing(run, tmp_path, monkeypatch):
    """The disk fills up in step 2; resumed, the run ends as one without a fault."""
    train_from_config(run, tmp_path / "whole", device="cpu")
    write, states = checkpoint.save_file, []

    def fails_in_step_2(tensors, path, metadata):
        if str(path).endswith(".state.safetensors.partial"):
            states.append(path)
            if len(states) == 2:
                Path(path).write_bytes(b"half a file")
                raise OSError("No space left on device")
        write(tensors, path, metadata)

    monkeypatch.setattr(checkpoint, "save_file", fails_in_step_2)
    with pytest.raises(OSError, match="No space"):
        train_from_config(run, tmp_path / "broken", device="cpu")
    monkeypatch.undo()
    broken = Trainer(run, tmp_path / "broken", device="cpu")
    broken.resume()
    assert broken.progress.step == 1
    train_from_config(run, tmp_path / "broken", resume=True, device="cpu")
    assert_same_weights(*(tmp_path / name / "last.safetensors" for name in ("whole", "broken")))


def test_accumulated_batches_give_the_mean_of_their_gradients(tmp_path):
    path = write_run(tmp_path, reference_network(), clip_norm=1e9)
    dataset = Trainer(path, tmp_path / "out", device="cpu").dataset
    (first,), (second,) = batches(dataset, 0)
    gradients = []
    for step in ([first], [second], [first, second]):
        trainer = Trainer(path, tmp_path / "out", device="cpu")
        trainer.train_step(step)
        gradients.append(trainer.model.head.classifier.weight.grad)
    mean = (gradients[0] + gradients[1]) / 2
    torch.testing.assert_close(gradients[2], mean, rtol=1e-4, atol=1e-7)


def test_a_worker_takes_one_core(run, request):
    request.addfinalizer(partial(cv2.setNumThreads, cv2.getNumThreads()))
    cv2.setNumThreads(2)  # what a worker would get from this process, with threads that do run
    cv2.GaussianBlur(np.zeros((2000, 2000), np.float32), (0, 0), 3)

    class Threads(torch.utils.data.Dataset):
        config = replace(load_yaml(TrainConfig, run), workers=1)

        def __getitem__(self, index):
            return torch.tensor([cv2.getNumThreads(), torch.get_num_threads()]), [[], []]

    (batch,) = next(batches(Threads(), 0))
    assert batch[0].tolist() == [[1, 1]]


def test_the_average_is_the_model_that_is_kept(tmp_path):
    """One of the last two models and half of the mean before them, at a share of a half."""
    path = write_run(tmp_path, small_network(), average=0.5)
    trainer = Trainer(path, tmp_path / "out", device="cpu")
    seen = []
    for step in batches(trainer.dataset, 0):
        trainer.train_step(step)
        seen.append(trainer.model.head.classifier.weight.detach().clone())
    trainer.save()
    kept = load_model(tmp_path / "out" / "last.safetensors").head.classifier.weight
    torch.testing.assert_close(kept.detach(), (seen[0] + seen[1]) / 2)


def test_a_resumed_run_goes_on_with_its_average(tmp_path):
    path = write_run(tmp_path, small_network(), average=0.5)
    train_from_config(path, tmp_path / "whole", device="cpu")
    trainer = Trainer(path, tmp_path / "broken", device="cpu")
    trainer.train_step(next(batches(trainer.dataset, 0)))
    trainer.progress.step = 1
    trainer.save()
    train_from_config(path, tmp_path / "broken", resume=True, device="cpu")
    assert_same_weights(*(tmp_path / name / "last.safetensors" for name in ("whole", "broken")))


def test_the_best_model_has_its_metric_inside_and_pictures_are_logged(tmp_path):
    validation = {"every": 1, "clips": 1, "frames": 1}
    path = write_run(tmp_path, small_network(), validation=validation)
    trainer = Trainer(path, tmp_path / "out", device="cpu")
    scores = iter([0.5, 0.4])
    measure = trainer.validation
    trainer.validation = lambda model: replace(measure(model), scores={"stq": next(scores)})
    trainer.run()
    best = read_metadata(tmp_path / "out" / "best.safetensors")
    assert (best["step"], best["metrics"]["stq"]) == (1, 0.5)
    last = read_metadata(tmp_path / "out" / "last.safetensors")
    assert (last["step"], last["metrics"]["stq"]) == (2, 0.4)
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard")).Reload()
    assert [e.value for e in events.Scalars("validation/stq")] == pytest.approx([0.5, 0.4])
    picture = events.Images("clip 0")[0]
    assert (picture.height, picture.width) == (288, 480)


@pytest.mark.parametrize(
    ("scores", "best", "decided_by"),
    [
        ([{"stq": 0.5}, {"stq": 0.4}, {"stq": 0.3}], 1, "stq"),
        ([{"stq": 0.0}] * 3, 3, "stq"),
        ([{"stq": NAN, "aq": NAN, "sq": s} for s in (0.1, 0.3, 0.2)], 2, "sq"),
        ([{"stq": NAN, "aq": NAN, "sq": 0.25}] * 3, 3, "sq"),
        ([{"stq": NAN, "aq": NAN, "sq": NAN}] * 3, 3, None),
    ],
    ids=["the highest", "the newest of equal ones", "second score", "equal second", "none"],
)
def test_which_model_is_the_best(scores, best, decided_by, tmp_path, capsys):
    validation = {"every": 1, "clips": 1, "frames": 1}
    path = write_run(tmp_path, small_network(), steps=3, validation=validation)
    trainer = Trainer(path, tmp_path / "out", device="cpu")
    rows = iter(scores)
    trainer.validation = lambda model: Quality(next(rows), ())
    trainer.run()
    assert read_metadata(tmp_path / "out" / "best.safetensors")["step"] == best
    assert trainer.progress.best_by == decided_by
    out = capsys.readouterr().out
    unmeasured = [name for name, score in scores[0].items() if math.isnan(score)]
    assert out.count("warning:") == bool(unmeasured)
    assert f"step 1: {next(iter(scores[0]))} " in out and "nan" not in out
    if unmeasured:
        rule = f"{decided_by or 'the newest model'} "
        assert f"warning: {', '.join(unmeasured)} cannot be measured" in out and rule in out


def test_a_resumed_run_keeps_the_best_of_before(tmp_path):
    validation = {"every": 1, "clips": 1, "frames": 1}
    path = write_run(tmp_path, small_network(), validation=validation)
    trainer = Trainer(path, tmp_path / "out", device="cpu")
    trainer.validation = lambda model: Quality({"stq": NAN, "sq": 0.3}, ())
    trainer.train_step(next(batches(trainer.dataset, 0)))
    trainer.progress.step = 1
    with Monitor(tmp_path / "out", 2, 0, silent=True) as monitor:
        trainer.validate(monitor)
    trainer.save()
    other = Trainer(path, tmp_path / "out", device="cpu")
    other.resume()
    assert (other.progress.best, other.progress.best_by) == (0.3, "sq")
    assert other.progress.metrics == {"step": 1, "stq": None, "sq": 0.3}


@pytest.mark.parametrize("void", [False, True])
def test_data_without_tracks_or_labels_is_validated_by_what_it_has(void, tmp_path):
    """As from nightly inspection: no things in it, or nothing labelled yet."""
    FIXTURES["custom"].write(tmp_path / "data" / "mine")
    for path in (tmp_path / "data/mine/val/panoptic").rglob("*.png"):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        road = np.zeros_like(labels)
        cv2.imwrite(str(path), np.full_like(labels, 65535) if void else road)
    validation = {"every": 1, "dataset": "custom", "path": "mine", "clips": 1, "frames": 2}
    path = write_run(tmp_path, small_network(), validation=validation)
    train_from_config(path, tmp_path / "out", tmp_path / "data", device="cpu")
    best = read_metadata(tmp_path / "out" / "best.safetensors")
    assert best["metrics"]["stq"] is best["metrics"]["aq"] is None
    assert best["metrics"]["sq"] is None if void else best["metrics"]["sq"] >= 0
    assert best["step"] == 2 or not void


def test_a_data_set_may_be_the_validation(tmp_path):
    FIXTURES["custom"].write(tmp_path / "data" / "mine")
    validation = {"every": 1, "dataset": "custom", "path": "mine", "clips": 1, "frames": 2}
    path = write_run(tmp_path, small_network(), validation=validation, steps=1)
    train_from_config(path, tmp_path / "out", tmp_path / "data", device="cpu")
    metrics = read_metadata(tmp_path / "out" / "best.safetensors")["metrics"]
    assert metrics["step"] == 1
    assert 0 <= metrics["stq"] < 1
    with pytest.raises(ConfigError, match="validation: own: a data root is needed"):
        train_from_config(path, tmp_path / "other", device="cpu")


def test_a_run_without_validation_needs_no_street():
    classes = golden.small_config().classes
    assert classes != small_config().classes
    Validation(ValidationConfig(), replace(small_config(), classes=classes), None)


@pytest.mark.parametrize("settings", [{"path": "nowhere"}, {"split": "train"}])
def test_a_validation_that_cannot_be_is_an_error_at_once(settings, tmp_path):
    FIXTURES["custom"].write(tmp_path / "mine")
    config = ValidationConfig(**{"every": 1, "dataset": "custom", "path": "mine"} | settings)
    with pytest.raises(DatasetError, match="nowhere|has no split 'train'"):
        Validation(config, small_config(), tmp_path)


def test_mixed_precision_trains_too(tmp_path):
    path = write_run(tmp_path, small_network(), precision="bfloat16", steps=1)
    train_from_config(path, tmp_path / "out", device="cpu")
    start, end = (
        load_file(tmp_path / name) for name in ("start.safetensors", "out/last.safetensors")
    )
    assert not torch.equal(start["head.classifier.weight"], end["head.classifier.weight"])
    assert end["head.classifier.weight"].dtype == torch.float32


@pytest.mark.parametrize(
    ("step", "schedule", "rate"),
    [(0, "step", 0.25), (4, "step", 1.0), (6, "step", 0.1), (9, "step", 0.01), (0, "cosine", 0.25)],
)
def test_the_rate_over_a_run(step, schedule, rate):
    config = TrainConfig(
        "model.yaml", steps=10, warmup_steps=4, schedule=schedule, decay_at=(0.6, 0.9)
    )
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    optimizer.param_groups[0]["base_lr"] = 2.0
    set_rate(optimizer, config, step)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2 * rate)


@pytest.mark.parametrize("name", sorted(p.stem for p in (CONFIGS / "train").glob("*.yaml")))
def test_the_shipped_runs_can_draw_their_crops(name):
    path = CONFIGS / "train" / f"{name}.yaml"
    config = load_yaml(TrainConfig, path)
    assert len(config.load_model_config(path).classes) > 1
    rng = np.random.default_rng(0)
    for clip in config.data.clips:
        crop = CropRange(clip.scale, clip.aspect)
        for _ in range(50):
            matrix = crop.draw(rng, (375, 1242), config.height, config.width)
            assert np.isfinite(matrix).all()


def test_a_smaller_source_keeps_its_shape_in_the_crops_corner():
    crop = CropRange((0.5, 0.5), (1.0, 1.0))
    for seed in range(4):
        matrix = crop.draw(np.random.default_rng(seed), (100, 400), 120, 400)
        assert abs(matrix[0, 0]) == pytest.approx(0.5)
        assert matrix[1, 1] == pytest.approx(0.5)
        assert (matrix[0, 2], matrix[1, 2]) in ((0, 0), (399, 0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"average": 1.0}, "average must be 0 or more and below 1, found 1.0"),
        ({"schedule": "linear"}, r"schedule must be one of \('cosine', 'step'\), found 'linear'"),
        ({"precision": "half"}, "precision must be one of .*, found 'half'"),
        ({"seed": 2**31}, "seed: expected 0..2147483647, got 2147483648"),
        ({"accumulate": 0}, "accumulate: expected 1..1000000000, got 0"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig("model.yaml", **settings)
