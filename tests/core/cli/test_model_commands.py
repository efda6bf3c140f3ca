"""`video-knet info` and `import-checkpoint`."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from video_knet_core.cli import main
from video_knet_core.config_io import to_dict

REPO = Path(__file__).parents[3]


def test_info_prints_classes_size_and_switches(model, capsys):
    assert main(["info", str(model)]) == 0
    report = capsys.readouterr().out
    assert "64 x 96" in report and "fusion on" in report
    assert "task       panoptic" in report and "2 things, 3 stages" in report
    assert "0 stuff road" in report and "1 thing vehicle" in report


@pytest.mark.parametrize(
    ("name", "task", "count"),
    [
        ("street_pspnet_lite0", "semantic", "11 classes"),
        ("street_instances_lite0", "instance", "50 things"),
    ],
)
def test_info_prints_the_task(name, task, count, capsys):
    pytest.importorskip("torch", reason="the cost of a configuration needs it")
    assert main(["info", str(REPO / f"config/models/{name}.yaml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"task       {task}" in lines
    assert any(line.startswith(f"kernels    {count}, 3 stages") for line in lines)
    assert not any(line.startswith("merge") for line in lines)  # there is one way only


@pytest.fixture(scope="module")
def network_files(tmp_path_factory):
    """A small network as a checkpoint, and its configuration."""
    pytest.importorskip("torch", reason="a checkpoint needs it")
    from networks import small_network

    from video_knet_core.model.checkpoint import save_model

    folder, network = tmp_path_factory.mktemp("network"), small_network(fusion="none")
    save_model(network, folder / "small.safetensors")
    (folder / "small.yaml").write_text(yaml.safe_dump(to_dict(network.config)))
    return folder / "small.safetensors", folder / "small.yaml"


def test_info_of_a_checkpoint_and_of_its_configuration_agree_and_have_the_cost(
    network_files, capsys
):
    reports = []
    for path in network_files:
        assert main(["info", str(path)]) == 0
        reports.append(capsys.readouterr().out.splitlines()[1:])
    assert reports[0] == reports[1]
    report = "\n".join(reports[0])
    assert "fusion off, linking on (ffn), embedding on" in report
    assert "at 64 x 96" in report and "a multiply-add counts as 2" in report
    rows = [line.split()[0] for line in reports[0] if "GFLOP" in line and " M " in line]
    assert rows == ["backbone", "neck", "kernel", "stages", "embedding", "total"]


@pytest.mark.slow
def test_info_counts_at_the_size_that_is_given(network_files, capsys):
    totals = []
    for size in ("64x96", "128x96", "100x90"):
        assert main(["info", str(network_files[1]), "--size", size]) == 0
        lines = capsys.readouterr().out.splitlines()
        totals.append(next(line for line in lines if line.strip().startswith("total")))
        height, width = size.split("x")
        assert any(f"at {height} x {width} (padded to " in line for line in lines)
    assert totals[0] != totals[1] == totals[2]  # both are padded to 128 x 96


def run_without_torch(*arguments):
    code = (
        "import sys; sys.modules['torch'] = None;"
        "from video_knet_core.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_info_needs_torch_only_to_count(model, network_files):
    assert "0 stuff road" in run_without_torch("info", model).stdout
    for path in network_files:
        result = run_without_torch("info", path)
        assert result.returncode == 2
        assert result.stderr == (
            "video-knet info: needs torch: pip install 'video_knet_ros[train]'\n"
        )


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """The small recorded weights as the authors' files have them, and what they are of."""
    torch = pytest.importorskip("torch", reason="their files are torch's")
    from golden import small_config, small_weights

    folder, weights = tmp_path_factory.mktemp("official"), small_weights()
    stages = {key for key in weights if key.startswith("roi_head.mask_head.2.")}
    links = {key for key in stages if "previous" in key or "link_ffn" in key}
    for stage in "01":  # they store the link modules of every stage
        weights |= {key.replace("head.2.", f"head.{stage}."): weights[key] for key in links}
    torch.save({"meta": {"epoch": 12}, "state_dict": weights}, folder / "official.pth")
    (folder / "small.yaml").write_text(yaml.safe_dump(to_dict(small_config())))
    return folder / "official.pth", folder / "small.yaml", weights, 2 * len(links)


def import_checkpoint(source, out, config):
    return main(["import-checkpoint", str(source), str(out), "--config", str(config)])


def test_import_writes_a_checkpoint_that_gives_what_the_weights_give(official, tmp_path, capsys):
    from golden import small_config

    from video_knet_core.model.checkpoint import load_model, read_metadata
    from video_knet_core.model.official import import_official

    source, config, weights, _ = official
    out = tmp_path / "out.safetensors"
    assert import_checkpoint(source, out, config) == 0
    assert str(out) in capsys.readouterr().out
    expected, found = import_official(weights, small_config()), load_model(out)
    assert found.config == expected.config
    for key, value in expected.state_dict().items():
        assert found.state_dict()[key].equal(value), key
    facts = read_metadata(out)
    assert facts["source"] == "official.pth"
    assert facts["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()


def test_import_reports_what_it_read_and_what_the_authors_never_use(official, tmp_path, capsys):
    source, config, weights, unused = official
    import_checkpoint(source, tmp_path / "out.safetensors", config)
    report = capsys.readouterr().out
    assert f"{len(weights)} keys read, {len(weights) - unused} used" in report
    assert f"{unused} that the authors' network never uses" in report
    counts = dict(reversed(line.split()) for line in report.splitlines() if "*" in line)
    assert counts["roi_head.mask_head.*.attention_previous"] == "8"
    assert sum(map(int, counts.values())) == unused


class Payload:
    """An object whose unpickling makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


KERNELS = "rpn_head.init_kernels.weight"
BAD_WEIGHTS = {
    "none": (lambda w: None, "no checkpoint"),
    "empty": (lambda w: b"", "empty.pth"),
    "text": (lambda w: b"not weights", "it is not a file of torch"),
    "payload": (lambda w: w | {"extra": Payload("made")}, "it would run posix.mkdir"),
    "number": (lambda w: w | {"extra": 1}, "expected tensors by name"),
    "unnamed": (lambda w: {1: w[KERNELS]}, "expected tensors by name"),
    "another": (lambda w: {"conv1.weight": w[KERNELS]}, "missing backbone.bn1.weight"),
    "less": (lambda w: {k: w[k] for k in w.keys() - {"fc_embed.bias"}}, "missing embedding"),
    "more": (lambda w: w | {"stranger": w[KERNELS]}, "no place for 1 keys: stranger"),
    "shape": (lambda w: w | {KERNELS: w[KERNELS][:3]}, "expected (20, 64), got (3, 64)"),
}
"""What a file has, bytes or weights, made of right weights -> what the error has."""


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_weights_that_cannot_be_imported_are_one_line(
    case, official, tmp_path, monkeypatch, capsys
):
    import torch

    monkeypatch.chdir(tmp_path)
    content, (_, config, weights, _), path = BAD_WEIGHTS[case][0], official, Path(f"{case}.pth")
    content = content(weights)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save({"state_dict": content}, path)
    assert import_checkpoint(path, "out.safetensors", config) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("video-knet import-checkpoint: ") and BAD_WEIGHTS[case][1] in line
    assert len(line) < 2100
    assert not Path("out.safetensors").exists()
    assert not Path("made").exists()  # a payload did not run


def test_a_folder_is_no_checkpoint(official, tmp_path, capsys):
    assert import_checkpoint(tmp_path, tmp_path / "out.safetensors", official[1]) == 2
    assert "Is a directory" in capsys.readouterr().err
