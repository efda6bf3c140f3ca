"""The trainer as a whole: what survives a fault, and what several processes make of a run."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import float64_training
import pytest
import torch
from networks import CONFIGS, small_network, small_version
from safetensors.torch import load_file, save_file
from torch import nn
from training_runs import (
    assert_same_weights,
    reference_network,
    take_steps,
    write_run,
)

from video_knet_core.config_io import ConfigError
from video_knet_core.model import checkpoint
from video_knet_core.model.checkpoint import load_model, read_metadata
from video_knet_core.training.batches import batches, collate
from video_knet_core.training.trainer import (
    Trainer,
    find_device,
    train_from_config,
)


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path, small_network())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with `run.yaml`, and in `out` its state after one step; to be read only."""
    folder = tmp_path_factory.mktemp("saved")
    trainer = Trainer(write_run(folder, small_network()), folder / "out", device="cpu")
    trainer.train_step(next(batches(trainer.dataset, 0)))
    trainer.save()
    return folder


@pytest.fixture
def longer_run(tmp_path):
    settings = {"steps": 4, "batch": 2, "warmup_steps": 2, "checkpoint_every": 2}
    return write_run(tmp_path, small_network(), **settings)


@pytest.mark.slow
@pytest.mark.parametrize("frozen_groups", [0, 2])
def test_a_resumed_run_gives_the_weights_of_an_unbroken_one(longer_run, tmp_path, frozen_groups):
    longer_run.write_text(longer_run.read_text() + f"frozen_groups: {frozen_groups}\n")
    train_from_config(longer_run, tmp_path / "whole", device="cpu")
    broken = Trainer(longer_run, tmp_path / "broken", device="cpu")
    take_steps(broken, 2)
    broken.save()
    train_from_config(longer_run, tmp_path / "broken", resume=True, device="cpu")
    whole = load_file(tmp_path / "whole" / "last.safetensors")
    resumed = load_file(tmp_path / "broken" / "last.safetensors")
    start = load_file(tmp_path / "start.safetensors")
    key = "head.seeds.kernel.weight"
    assert not torch.equal(whole[key], start[key])
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, rtol=0, atol=1e-6, msg=key)


def test_a_training_step_reaches_every_unfrozen_parameter(longer_run, tmp_path):
    trainer = Trainer(longer_run, tmp_path / "out", device="cpu")
    values = take_steps(trainer, 1)
    assert {"total", "track", "track_aux", "key_head_semantic", "reference_stage2_dice"} <= set(
        values
    )
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
    assert not trainer.model.backbone._conv_stem.weight.requires_grad


TEMPORAL = {"frames": 3, "train": "temporal", "memory_drop": 0.2, "spoilt": 0.5}


DESIGNS = {
    "paper": (
        {"sticky": False, "fusion": "link_atten"},
        ("fusion.interaction.attention.query", "linking.interaction.attention.query"),
    ),
    "sticky": ({"linking": "none"}, ("slots.local", "slots.last")),
}
"""Ways to remember: kernels of the model, and what learns by them."""


@pytest.mark.parametrize("design", DESIGNS)
def test_what_sees_single_images_is_not_changed_by_a_temporal_step(design, tmp_path):
    """Neither weights nor statistics of batch norms; all that sees time learns."""
    kernels, parts = DESIGNS[design]
    network = small_version("street", stages=3, detail=8, **kernels)
    trainer = Trainer(write_run(tmp_path, network, **TEMPORAL), tmp_path / "out")
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    values = take_steps(trainer, 2)
    of_parts = {name for name in values if name.startswith(("key_", "reference_"))}
    assert {name.split("_")[1] for name in of_parts} == {"stage2"}
    assert set(values) - of_parts == {"total", "track", "track_aux"}
    last = ("stages.2.", "embedding.")
    changed = {
        name
        for name, value in trainer.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert all(name.startswith(last) for name in changed)
    for name, parameter in trainer.model.named_parameters():
        assert parameter.requires_grad == name.startswith(last), name
    for part in parts:
        assert f"stages.2.{part}.weight" in changed
    assert {"stages.2.detail_head.weight", "embedding.layers.0.weight"} <= changed


@torch.no_grad()
def test_a_memory_that_learns_alone_changes_no_first_frame(tmp_path):
    network = small_version("street", fusion="link_atten").eval()
    image = torch.rand(1, 3, 64, 96) * 255
    before, _ = network(image)
    settings = TEMPORAL | {"train": "memory"}
    trainer = Trainer(write_run(tmp_path, network, **settings), tmp_path / "out", device="cpu")
    with torch.enable_grad():
        take_steps(trainer, 2)
    learned = {n for n, p in trainer.model.named_parameters() if p.requires_grad}
    parts = ("stages.1.fusion.", "stages.1.linking.", "stages.1.slots.", "embedding.")
    assert all(name.startswith(parts) for name in learned)
    assert all(any(name.startswith(part) for name in learned) for part in parts)
    after, _ = trainer.model.eval()(image)
    for name in ("mask_logits", "class_logits"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name), rtol=0, atol=1e-3)
    assert not torch.allclose(after.embeddings, before.embeddings, rtol=0, atol=1e-2)


def test_cached_clips_give_the_losses_of_their_images(tmp_path):
    """Half precision apart."""
    model = small_version("street", stages=3, detail=8)
    settings = {"frames": 3, "train": "temporal", "cached_clips": 1}
    trainer = Trainer(write_run(tmp_path, model, **settings), tmp_path / "out", device="cpu")
    ((encoded, targets),) = next(trainer._clips(0))
    images, goals = collate([trainer.dataset[0]])
    found, expected = (trainer.losses(*x, 3) for x in ((encoded, targets), (images, goals)))
    assert found.keys() == expected.keys()
    for name, loss in expected.items():
        assert found[name].item() == pytest.approx(loss.item(), rel=0.02, abs=0.02), name


@pytest.mark.slow
@pytest.mark.parametrize("cached_clips", [0, 2])
def test_a_resumed_temporal_run_gives_the_weights_of_an_unbroken_one(cached_clips, tmp_path):
    settings = TEMPORAL | {"cached_clips": cached_clips, "ema_decay": 0.5}
    path = write_run(tmp_path, small_network(), **settings)
    train_from_config(path, tmp_path / "whole", device="cpu")
    trainer = Trainer(path, tmp_path / "broken", device="cpu")
    take_steps(trainer, 1)
    trainer.save()
    train_from_config(path, tmp_path / "broken", resume=True, device="cpu")
    whole = load_file(tmp_path / "whole" / "last.safetensors")
    key = "stages.2.fusion.interaction.attention.query.weight"
    assert not torch.equal(whole[key], load_file(tmp_path / "start.safetensors")[key])
    assert_same_weights(*(tmp_path / name / "last.safetensors" for name in ("whole", "broken")))


def test_a_run_of_an_older_version_has_the_defaults_of_what_that_did_not_set(saved, tmp_path):
    tensors, facts = checkpoint.load_tensors(saved / "out" / "last.state.safetensors")
    run = json.loads(facts["run"])
    older = {k: v for k, v in run.items() if k not in (*TEMPORAL, "more_sizes")}
    del older["model"]["more_sizes"], older["model"]["backbone"]["blocks"]
    (older["data"]["sprites"],) = older["data"]["sprites"]
    trainer = Trainer(saved / "run.yaml", tmp_path, device="cpu")
    checkpoint.save_tensors(tensors, trainer.files.state, {**facts, "run": json.dumps(older)})
    trainer.resume()
    assert trainer.progress.step == 0, "as saved"
    (tmp_path / "longer").mkdir()
    path = write_run(tmp_path / "longer", small_network(), frames=3)
    longer = Trainer(path, tmp_path, device="cpu")
    with pytest.raises(checkpoint.CheckpointError, match='"frames": 3 as configured, got 2'):
        longer.resume()


def test_training_learns_one_clip(longer_run, tmp_path):
    """The loss falls within a few steps on a fixed batch: gradients point the right way."""
    trainer = Trainer(longer_run, tmp_path / "out", device="cpu")
    batch = next(batches(trainer.dataset, 0))
    first = trainer.train_step(batch)["total"].item()
    trainer.progress.step = 2  # past the warm-up
    for _ in range(12):
        last = trainer.train_step(batch)["total"].item()
    assert last < 0.9 * first


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    """A run by two processes of one pair each, accumulated twice, and how it is configured."""
    folder = tmp_path_factory.mktemp("two")
    settings = {"accumulate": 2, "learning_rate": 1e-4, "losses": {"balance": 0.5, "rank": 0.3}}
    settings["validation"] = {"every": 2, "clips": 3, "frames": 2}
    path = write_run(folder, reference_network(), **settings)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    _train_in_float64(path, folder / "out", *launcher)
    return folder / "out", settings


def _train_in_float64(path: Path, out: Path, *launcher: str) -> None:
    script = Path(float64_training.__file__)
    command = [sys.executable, *launcher, script, "train", path, "--out", out, "--device", "cpu"]
    # a script has its own folder first on its path, not the repository as `python -m` has
    path_of_modules = os.pathsep.join((str(CONFIGS.parent), os.environ.get("PYTHONPATH", "")))
    environment = os.environ | {"PYTHONPATH": path_of_modules}
    subprocess.run(list(map(str, command)), check=True, timeout=600, env=environment)


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one_with_twice_the_batch(of_two_processes, tmp_path):
    two, settings = of_two_processes
    path = write_run(tmp_path, reference_network(), **settings, batch=2)
    _train_in_float64(path, tmp_path / "one")
    start = load_file(tmp_path / "start.safetensors")
    one = load_file(tmp_path / "one" / "last.safetensors")
    key = "head.classifier.weight"
    assert one[key].dtype == torch.float64
    assert (one[key] - start[key]).abs().max() > 1e-5, "it has learned"
    assert_same_weights(two / "last.safetensors", tmp_path / "one" / "last.safetensors", 1e-12)
    expected = read_metadata(tmp_path / "one" / "best.safetensors")["metrics"]
    assert read_metadata(two / "best.safetensors")["metrics"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.slow
def test_what_two_processes_began_one_may_end(of_two_processes, tmp_path):
    two, settings = of_two_processes
    path = write_run(tmp_path, reference_network(), **settings, batch=2)
    trainer = Trainer(path, two, device="cpu")
    trainer.resume()
    assert trainer.progress.step == 2


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"learning_rate": 1e-3}, 'expected "learning_rate": 0.001 as configured, got 0.0007'),
        ({"schedule": "step"}, 'expected "schedule": "step" as configured, got "cosine"'),
        ({"steps": 1}, 'expected "steps": 1 as configured, got 2'),
        ({"batch": 2}, 'expected "pairs": 2 as configured, got 1'),
        ({"losses": {"dice": 2.0}}, 'expected "losses.dice": 2.0 as configured, got 4.0'),
        ({"milestones": [0.75, 0.8]}, 'expected "milestones[1]": 0.8 as configured, got 0.9166'),
        ({"network": {"things": 7}}, 'expected "model.kernels.things": 7 as configured, got 6'),
    ],
)
def test_another_run_is_not_resumed_and_its_first_difference_is_named(
    saved, tmp_path, change, difference
):
    network = small_network(**change.pop("network", {}))
    other = Trainer(write_run(tmp_path, network, **change), saved / "out", device="cpu")
    with pytest.raises(checkpoint.CheckpointError) as error:
        other.resume()
    state = saved / "out" / "last.state.safetensors"
    assert str(error.value) == f"{state} is of another run: {difference}"


def test_a_finished_run_continues_with_more_steps(run, tmp_path):
    train_from_config(run, tmp_path / "out", device="cpu")
    run.write_text(run.read_text().replace("steps: 2", "steps: 3"))
    train_from_config(run, tmp_path / "out", resume=True, device="cpu")
    assert read_metadata(tmp_path / "out/last.safetensors")["step"] == 3


def test_a_state_without_a_newer_setting_is_of_the_same_run(saved, tmp_path):
    """Its default is what the older program did."""
    tensors, facts = checkpoint.load_tensors(saved / "out" / "last.state.safetensors")
    older = json.loads(facts["run"])
    del older["data"]["crowd"], older["more_sizes"], older["model"]["kernels"]["detail"]
    path = tmp_path / "last.state.safetensors"
    checkpoint.save_tensors(tensors, path, {**facts, "run": json.dumps(older)})
    trainer = Trainer(saved / "run.yaml", tmp_path, device="cpu")
    trainer.resume()
    assert trainer.progress.step == 0, "as it was saved"
    older["data"]["crowd"] = True
    checkpoint.save_tensors(tensors, path, {**facts, "run": json.dumps(older)})
    with pytest.raises(checkpoint.CheckpointError, match='"data.crowd": false as configured'):
        trainer.resume()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_after_its_step_which_is_saved(number, tmp_path, monkeypatch):
    """Also one to all processes, as Ctrl-C, `timeout` and systemd send it."""
    path = write_run(tmp_path, small_network(), steps=3, checkpoint_every=100, workers=1)
    trainer = Trainer(path, tmp_path / "out", device="cpu")
    steps, step = [], trainer.train_step

    def interrupted(step_batches):
        (worker,) = multiprocessing.active_children()
        # by another process: a worker may end when its parent sends it
        subprocess.run(["kill", f"-{int(number)}", str(worker.pid)], check=True)
        time.sleep(0.5)  # if it ends, DataLoader raises an error here
        signal.raise_signal(number)
        steps.append(step(step_batches))
        return steps[-1]

    received = []

    def handler(number, frame):
        received.append(number)

    before = signal.signal(number, handler)
    try:
        monkeypatch.setattr(trainer, "train_step", interrupted)
        trainer.run()
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
    assert received == [number] and len(steps) == 1
    assert read_metadata(tmp_path / "out/last.safetensors")["step"] == 1
    resumed = Trainer(path, tmp_path / "out", device="cpu")
    resumed.resume()
    assert resumed.progress.step == 1


def test_a_new_run_does_not_replace_another(saved):
    state = saved / "out" / "last.state.safetensors"
    before = state.read_bytes()
    with pytest.raises(ConfigError, match="holds a run already"):
        train_from_config(saved / "run.yaml", saved / "out", device="cpu")
    assert state.read_bytes() == before


@pytest.mark.parametrize("text", ["", "of another program", "[1]", "7"])
def test_a_state_of_another_program_is_another_run(text, run, tmp_path):
    (tmp_path / "out").mkdir()
    trainer = Trainer(run, tmp_path / "out", device="cpu")
    save_file({"weight": torch.zeros(1)}, trainer.files.state, {"run": text})
    with pytest.raises(checkpoint.CheckpointError, match="is of another run"):
        trainer.resume()


@pytest.mark.parametrize("progress", ["", "{", "[1]", '{"other": 1}'])
def test_a_state_whose_progress_is_damaged_is_named(progress, saved, tmp_path):
    tensors, facts = checkpoint.load_tensors(saved / "out" / "last.state.safetensors")
    trainer = Trainer(saved / "run.yaml", tmp_path, device="cpu")
    state = tmp_path / "last.state.safetensors"
    checkpoint.save_tensors(tensors, state, {**facts, "progress": progress})
    with pytest.raises(checkpoint.CheckpointError, match="is not the state of this run"):
        trainer.resume()


@pytest.mark.parametrize("name", ["cuda:99", "meta", "toaster", "cuda:"])
def test_a_device_that_is_not_there_is_a_mistake_of_the_user(name):
    with pytest.raises(ConfigError, match=rf"device: expected one of .*'cpu'.*, got '{name}'"):
        find_device(name)


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_gpu_that_torch_names_but_does_not_have(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert find_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match=rf"\['auto', 'cpu'\], got '{name}'"):
        find_device(name)


@pytest.mark.slow
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


def test_norms_that_do_not_learn_do_not_on_several_gpus_either():
    network = nn.SyncBatchNorm.convert_sync_batchnorm(reference_network()).train()
    norms = [m for m in network.backbone.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert len(norms) > 10
    assert not any(norm.training for norm in norms)


@pytest.mark.slow
def test_a_fault_while_a_checkpoint_is_written_loses_nothing(run, tmp_path, monkeypatch):
    """The disk fills up in step 2; resumed, the run ends as one without a fault."""
    train_from_config(run, tmp_path / "whole", device="cpu")
    sync, states = os.fsync, []

    def fails_in_step_2(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path.endswith(".state.safetensors.partial"):
            states.append(path)
            if len(states) == 2:
                os.ftruncate(descriptor, 10)
                raise OSError("No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fails_in_step_2)
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


def test_the_average_is_the_model_that_is_kept(tmp_path):
    """One of the last two models and half of the mean before them, with a weight of a half."""
    path = write_run(tmp_path, small_network(), ema_decay=0.5)
    trainer = Trainer(path, tmp_path / "out", device="cpu")
    seen = []
    for step in batches(trainer.dataset, 0):
        trainer.train_step(step)
        seen.append(trainer.model.head.classifier.weight.detach().clone())
    trainer.save()
    kept = load_model(tmp_path / "out" / "last.safetensors").head.classifier.weight
    torch.testing.assert_close(kept.detach(), (seen[0] + seen[1]) / 2)


def test_a_resumed_run_continues_with_its_average(tmp_path):
    path = write_run(tmp_path, small_network(), ema_decay=0.5)
    train_from_config(path, tmp_path / "whole", device="cpu")
    trainer = Trainer(path, tmp_path / "broken", device="cpu")
    trainer.train_step(next(batches(trainer.dataset, 0)))
    trainer.progress.step = 1
    trainer.save()
    train_from_config(path, tmp_path / "broken", resume=True, device="cpu")
    assert_same_weights(*(tmp_path / name / "last.safetensors" for name in ("whole", "broken")))


def test_mixed_precision_trains_too(tmp_path):
    path = write_run(tmp_path, small_network(), precision="bfloat16", steps=1)
    train_from_config(path, tmp_path / "out", device="cpu")
    start, end = (
        load_file(tmp_path / name) for name in ("start.safetensors", "out/last.safetensors")
    )
    assert not torch.equal(start["head.classifier.weight"], end["head.classifier.weight"])
    assert end["head.classifier.weight"].dtype == torch.float32
