"""`video-knet bench`: what it measures, and its output where it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_onnx import HEIGHT, WIDTH, metadata, write_model

from video_knet_core.cli import main
from video_knet_core.engine.base import BackendError
from video_knet_core.engine.selector import BACKENDS, backends_for
from video_knet_core.evaluate.bench import bench
from video_knet_core.machine import machine_facts, open_meter, peak_resident_bytes

STAGES = ["preprocess", "step", "merge", "track", "total"]


def test_the_json_holds_every_stage_of_every_run(model, tmp_path, capsys):
    out = tmp_path / "bench.json"
    options = ["--frames", "6", "--size", "64x96,50x70", "--json", str(out)]
    assert main(["bench", str(model), *options]) == 0
    found = json.loads(out.read_text())
    assert found["format"] == 1 and found["threads"] == 2
    assert found["machine"]["versions"]["numpy"] == np.__version__
    assert found["energy_meter"] or "unavailable" in found["energy_note"]
    assert [run["image"] for run in found["runs"]] == [[64, 96], [50, 70]]
    for run in found["runs"]:
        assert (run["model"], run["frames"]) == ("tiny.onnx", 6)
        assert list(run["stages_ms"]) == STAGES
        for stage in run["stages_ms"].values():
            assert 0 < stage["p50"] <= stage["p99"] <= stage["max"]
        parts = [run["stages_ms"][stage]["mean"] for stage in STAGES[:-1]]
        assert run["stages_ms"]["total"]["mean"] == pytest.approx(sum(parts))
        assert run["fps"] == pytest.approx(1000 / sum(parts))
        assert run["different_class"] == run["different_track"] == 0
    table = capsys.readouterr().out
    assert "tiny.onnx onnxruntime-cpu" in table or "tiny.onnx openvino" in table
    assert "64x96" in table and "50x70" in table


def test_a_model_is_measured_at_its_native_size_by_default(model):
    (row,) = bench([model], frames=2)["runs"]
    assert row["image"] == [HEIGHT, WIDTH]


def test_all_backends_are_those_that_work_and_the_others_are_named_with_the_reason(model):
    report = bench([model], ["all"], frames=2)
    names = [row["backend"] for row in report["runs"]]
    assert "onnxruntime-cpu" in names and len(set(names)) == len(names)
    assert len(names) + len(report["skipped"]) == len(backends_for(model))
    for reason in report["skipped"]:
        assert any(f"cannot run {model}: {name}: " in reason for name in BACKENDS)
    exact = [row for row in report["runs"] if row["backend"] != "openvino-bf16"]
    assert all(row["different_class"] == 0 for row in exact)


def test_a_named_backend_that_does_not_work_is_an_error(model, capsys):
    assert main(["bench", str(model), "--backend", "tensorrt"]) == 2
    assert "tensorrt" in capsys.readouterr().err
    with pytest.raises(BackendError):
        bench([model], ["tensorrt"], frames=1)


def test_several_models_take_turns(model, tmp_path):
    other = write_model(tmp_path / "other.onnx", json.dumps(metadata(name="other")))
    rows = bench([model, other], frames=3, sizes=[(64, 96), (32, 48)])["runs"]
    found = [(row["model"], row["image"][0]) for row in rows]
    assert found == [("tiny.onnx", 64), ("tiny.onnx", 32), ("other.onnx", 64), ("other.onnx", 32)]


def test_stages_and_what_differs_are_summed_up(model):
    """The lower half of a red image is a vehicle, that of a black one is nothing."""
    black, red = np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    red[..., 0] = 255
    images = iter([red, black])

    def step_of(predictor):
        image, times = next(images), iter(range(-5, 101))
        return lambda _, stamp: (predictor.step(image, stamp), {"a": next(times), "b": 1})

    same, other = bench([model, model], frames=101, step_of=step_of)["runs"]
    assert same["stages_ms"]["a"] == {"mean": 50, "p50": 50, "p99": 99, "max": 100}
    assert same["stages_ms"]["total"]["mean"] == 51
    assert same["different_class"] == same["different_track"] == 0
    assert other["different_class"] == other["different_track"] == 0.5


# --- the machine


def test_facts_are_read_from_the_system(tmp_path):
    write(tmp_path / "proc/cpuinfo", "processor : 0\nmodel name\t: Some CPU @ 3 GHz\n")
    write(tmp_path / "proc/device-tree/model", "NVIDIA Jetson AGX Orin\0")
    facts = machine_facts(tmp_path)
    assert facts["cpu"] == "Some CPU @ 3 GHz" and facts["board"] == "NVIDIA Jetson AGX Orin"
    assert facts["cores"] >= 1
    without = machine_facts(tmp_path / "none")
    assert without["board"] is None and without["cpu"]


def test_gpus_are_named_by_nvml(monkeypatch):
    nvml = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda device: f"GPU {device}",
        nvmlDeviceGetTotalEnergyConsumption=lambda device: 2500,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert machine_facts()["gpu"] == ["GPU 0"]
    meter, _ = open_meter(Path("/nothing"))
    assert meter.name == "GPU (NVML)" and meter.joules() == 2.5


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(text))


def test_memory_is_that_of_this_process():
    """In a process of its own: threads of other tests free memory meanwhile."""
    script = (
        "import numpy as np; from video_knet_core.machine import resident_bytes;"
        "before = resident_bytes(); block = np.ones(50_000_000, np.uint8);"
        "print(resident_bytes() - before)"
    )
    growth = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert 40_000_000 < int(growth.stdout) < 80_000_000


def test_the_peak_of_memory_is_in_bytes():
    """Pages of a running Python are more than these, and the kernel counts in kB."""
    assert peak_resident_bytes() > 1_000_000


def test_the_processors_meter_adds_its_packages_and_survives_an_overflow(tmp_path, no_gpu):
    rapl = tmp_path / "class/powercap"
    for package, part in (("intel-rapl:0", 500), ("intel-rapl:1", 900), ("intel-rapl:0:0", 1)):
        write(rapl / package / "energy_uj", part)
        write(rapl / package / "max_energy_range_uj", 1000)
    meter, _ = open_meter(tmp_path)
    write(rapl / "intel-rapl:0/energy_uj", 700)
    write(rapl / "intel-rapl:1/energy_uj", 100)
    assert meter.joules() == pytest.approx((200 + 200) * 1e-6)
    assert meter.joules() == pytest.approx(400e-6)


@pytest.mark.parametrize(
    ("labels", "watts"), [(("VDD_IN", "VDD_CPU"), 10.0), (("VDD_GPU", "VDD_CPU"), 12.0)]
)
def test_a_jetsons_power_is_that_of_its_supply_or_of_all_its_parts(tmp_path, labels, watts):
    hwmon = tmp_path / "class/hwmon/hwmon3"
    write(hwmon / "name", "ina3221\n")
    for channel, (label, milliamperes) in enumerate(zip(labels, (2000, 400), strict=True), 1):
        write(hwmon / f"in{channel}_label", label)
        write(hwmon / f"in{channel}_input", 5000)
        write(hwmon / f"curr{channel}_input", milliamperes)
    write(hwmon / "in7_label", "sum of shunt voltages")
    clock = iter([0.0, 2.0, 2.5])
    meter, _ = open_meter(tmp_path, lambda: next(clock))
    assert meter.joules() == pytest.approx(2 * watts)
    assert meter.joules() == pytest.approx(2.5 * watts)


def test_an_unavailable_meter_has_its_reasons(tmp_path, no_gpu):
    meter, reason = open_meter(tmp_path)
    assert meter is None
    assert reason.startswith("energy meter unavailable: no INA3221") and "no RAPL" in reason
