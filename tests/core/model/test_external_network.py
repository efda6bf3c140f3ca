"""Networks of other packages: found by name, stored, exported, run, trained and measured."""

from __future__ import annotations

import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml
from external_network import CountingConfig, CountingNetwork, counting_network, install
from networks import small_network

from video_knet_core.cli import main
from video_knet_core.config import ExternalConfig, NetworkConfig
from video_knet_core.config_io import ConfigError, to_dict
from video_knet_core.engine.export import export_checkpoint, export_onnx
from video_knet_core.engine.model_file import ModelFile
from video_knet_core.engine.onnx_runtime import OnnxRuntime
from video_knet_core.engine.torch_runtime import TorchRuntime
from video_knet_core.model.checkpoint import (
    CheckpointError,
    build_network,
    load_model,
    load_network,
    load_network_config,
    network_config,
    save_model,
)
from video_knet_core.model.cost import model_cost
from video_knet_core.model.network import ENTRY_POINTS, network_class
from video_knet_core.training.targets import class_targets, stack_targets
from video_knet_core.training.trainer import Trainer

IMAGE = np.zeros((64, 96, 3), np.uint8)


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    install(monkeypatch)


@pytest.fixture
def checkpoint(tmp_path):
    save_model(counting_network(), tmp_path / "counting.safetensors")
    return tmp_path / "counting.safetensors"


def test_a_configuration_names_the_network(tmp_path):
    config = counting_network().config
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(to_dict(config)))
    assert load_network_config(tmp_path / "model.yaml") == config


def test_a_network_that_is_not_installed_is_an_error_with_those_that_are(tmp_path):
    (tmp_path / "model.yaml").write_text("network: other\nclasses: []\n")
    with pytest.raises(ConfigError, match=r"network: expected one of \['counting'\], got 'other'"):
        load_network_config(tmp_path / "model.yaml")


def test_a_checkpoint_gives_the_same_network(checkpoint):
    network = load_network(checkpoint)
    assert isinstance(network, CountingNetwork)
    for own, other in zip(network.parameters(), counting_network().parameters(), strict=True):
        assert torch.equal(own, other)


def test_where_a_video_knet_is_needed_another_network_is_an_error(checkpoint):
    with pytest.raises(CheckpointError, match="expected a Video K-Net, got a CountingNetwork"):
        load_model(checkpoint)


def test_the_exported_file_runs_where_the_package_is_not_installed(tmp_path, monkeypatch):
    network, path = counting_network().eval(), tmp_path / "counting.onnx"
    export_onnx(network, path, "counting")
    monkeypatch.undo()
    config = ModelFile.read(path).config
    assert isinstance(config, ExternalConfig)
    assert (config.network, config.state) == ("counting", (3, 2))
    engines, states = (TorchRuntime(network), OnnxRuntime(path)), [None, None]
    for frame in (1, 2, 3):
        for i, engine in enumerate(engines):
            found, states[i] = engine.step(IMAGE, states[i])
            assert found.areas.tolist() == [0, 8 * 24, 8 * 24]
            assert (states[i] == frame).all()


def test_a_state_of_another_shape_than_the_configuration_says_is_not_exported(tmp_path):
    class Wide(CountingNetwork):
        def segment_frame(self, pixels, previous):
            outputs = super().segment_frame(pixels, previous)
            return outputs | {"kernels": outputs["kernels"][:1]}

    torch.manual_seed(0)
    wide = Wide(counting_network().config)
    message = r"kernels: expected \(3, 2\), the state_shape of the configuration, got \(1, 2\)"
    with pytest.raises(ConfigError, match=message):
        export_onnx(wide, tmp_path / "wide.onnx", "wide")
    assert not list(tmp_path.iterdir())


class NoConfig(CountingNetwork):
    """Its settings are those of all networks."""

    Config = NetworkConfig


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CountingConfig", "network counting: expected a subclass of ExternalNetwork, got "),
        ("NoConfig", "network counting: Config: expected a settings_class of NetworkConfig with "),
    ],
)
def test_what_a_class_lacks_is_named(name, message, monkeypatch):
    point = EntryPoint("counting", f"{__name__}:{name}", ENTRY_POINTS)
    monkeypatch.setattr("video_knet_core.model.network.plugins", lambda group: {"counting": point})
    with pytest.raises(ConfigError, match=message):
        network_class("counting")


def test_the_example_of_the_page_can_be_trained_exported_and_run(tmp_path, monkeypatch):
    page = Path(__file__).parents[3] / "docs/explanation/baselines.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    module = ModuleType("my_package")
    monkeypatch.setitem(sys.modules, "my_package", module)
    exec(code, module.__dict__)
    point = EntryPoint("my_network", "my_package:MyNetwork", ENTRY_POINTS)
    found = {"my_network": point}
    monkeypatch.setattr("video_knet_core.model.network.plugins", lambda group: found)
    classes = [{"name": n, "is_thing": False, "color": [0, 0, i]} for i, n in enumerate("abc")]
    settings = {"network": "my_network", "task": "semantic", "height": 64, "width": 96}
    torch.manual_seed(0)
    network = build_network(network_config(settings | {"classes": classes}))
    labels = np.repeat(np.array([[0], [1], [255], [2]], np.uint8), 16, 0).repeat(96, 1)
    targets = stack_targets([class_targets(labels, network.config.classes, 8)])
    loss = network.losses(network.frames(torch.zeros(1, 3, 64, 96)), targets, 1)["semantic"]
    loss.backward()
    assert loss > 0 and network.classifier.weight.grad.abs().sum() > 0
    save_model(network, tmp_path / "m.safetensors")
    export_checkpoint(tmp_path / "m.safetensors", tmp_path / "m.onnx")
    detections, state = OnnxRuntime(tmp_path / "m.onnx").step(IMAGE, None)
    assert detections.segment_map.shape == (16, 24) and state.shape == (3, 1)
    assert detections.areas.sum() == 16 * 24


@pytest.mark.parametrize(("precision", "form"), [("fp16", "deploy"), ("fp32", "raw")])
def test_it_has_one_form_of_export(tmp_path, precision, form):
    with pytest.raises(ValueError, match="expected precision 'fp32' and form 'deploy'"):
        export_onnx(counting_network(), tmp_path / "counting.onnx", "counting", precision, form)


def test_its_cost_is_counted_by_part():
    rows = {row.part: row for row in model_cost(counting_network(), 64, 96)}
    assert rows["classifier"].gflops == pytest.approx(2 * 24 * 2 * 16 * 24 / 1e9)
    assert rows["total"].parameters > rows["backbone"].parameters > 0


def test_info_describes_all_its_files(checkpoint, tmp_path, capsys):
    export_onnx(counting_network(), tmp_path / "counting.onnx", "counting")
    (tmp_path / "counting.yaml").write_text(yaml.safe_dump(to_dict(counting_network().config)))
    for file in (checkpoint, tmp_path / "counting.onnx", tmp_path / "counting.yaml"):
        main(["info", str(file)])
        shown = capsys.readouterr().out
        assert "network    counting" in shown
        assert "class   10 thing vehicle" in shown


@pytest.mark.parametrize("cached", [0, 2])
@pytest.mark.slow
def test_a_decoder_is_trained_on_the_backbone_of_another_network(tmp_path, cached):
    start = small_network()
    save_model(start, tmp_path / "start.safetensors")
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(to_dict(counting_network().config)))
    run = {
        **{"model": "model.yaml", "init": "start.safetensors", "init_part": "backbone"},
        **{"train": "decoder", "cached_clips": cached, "steps": 2, "batch": 2, "workers": 0},
        **{"height": 64, "width": 96, "checkpoint_every": 1},
        "data": {"copy_paste_weight": 0.0, "synthetic_seeds": 1},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    trainer = Trainer(tmp_path / "run.yaml", tmp_path / "out", device="cpu")
    before = trainer.model.classifier.weight.clone()
    trainer.run()
    assert not torch.equal(trainer.model.classifier.weight, before)
    expected, got = start.backbone.state_dict(), trainer.model.backbone.state_dict()
    assert all(torch.equal(value, got[name]) for name, value in expected.items())
    assert isinstance(load_network(tmp_path / "out/last.safetensors").config, CountingConfig)
