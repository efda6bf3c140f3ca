"""`video-knet models` and `video-knet doctor`: what is installed, and what is wrong with it."""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import Mock

import pytest

import video_knet_core.doctor.engine_checks as engine_checks
import video_knet_core.doctor.host_checks as host_checks
import video_knet_core.doctor.ros_checks as ros_checks
from video_knet_core import installation
from video_knet_core.cli import main
from video_knet_core.doctor.examination import examine
from video_knet_core.engine import selector, self_test
from video_knet_core.engine.base import BackendError
from video_knet_core.engine.model_index import download_folder, model_index
from video_knet_core.engine.selector import BACKENDS, Backend, default_model_path
from video_knet_core.installation import shared_file

REPO = Path(__file__).parents[3]

# --- models --------------------------------------------------------------------------------------


def test_models_are_listed_with_files_terms_and_places(capsys):
    assert main(["models", "list", "--json"]) == 0
    models = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    file = models["street"]["files"][0]
    assert file["path"] == str(default_model_path()) and len(file["sha256"]) == 64
    assert models["street_open"]["use"] == "commercial use allowed"
    assert models["street_open"]["card"].endswith("/models/street_open.md")
    assert main(["models", "list"]) == 0
    text = capsys.readouterr().out
    for row in models.values():
        assert row["name"] in text and row["summary"] in text and row["card"] in text


def test_a_model_that_is_nowhere_is_not_here(capsys, monkeypatch):
    monkeypatch.setattr("video_knet_core.engine.model_index.shared_folders", lambda: [])
    assert main(["models", "list", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert all(file["path"] is None for row in models for file in row["files"])


def test_get_prints_a_path_and_how_to_use_a_checkpoint(capsys):
    assert main(["models", "get", "street"]) == 0
    output = capsys.readouterr()
    assert output.out == f"{default_model_path()}\n" and output.err == ""
    assert main(["models", "get", "street_open"]) == 0
    output = capsys.readouterr()
    assert output.out.endswith("street_open.safetensors\n") and len(output.out.splitlines()) == 1
    assert "video-knet export" in output.err and "torch" in output.err
    assert main(["models", "get", "street", "--checkpoint"]) == 0
    assert capsys.readouterr().out.endswith("street.safetensors\n")


def test_an_unknown_model_is_one_line_with_the_names(capsys):
    for command in (["models", "get", "stret"], ["info", "stret"], ["bench", "stret"]):
        assert main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "did you mean street?" in line and "street_lite0" in line


def test_commands_take_a_model_by_its_name(track, images, model, monkeypatch, tmp_path, capsys):
    shutil.copy(model, tmp_path / "little.onnx")
    monkeypatch.setenv("VIDEO_KNET_MODELS", str(tmp_path))
    command = ["track", str(images), "--model", "little", "--out", str(tmp_path / "out")]
    assert main([*command, "--backend", "onnxruntime-cpu"]) == 0
    assert str(tmp_path / "little.onnx") in capsys.readouterr().err
    assert main(["info", "little"]) == 0
    assert capsys.readouterr().out.startswith(str(tmp_path / "little.onnx"))


# --- doctor --------------------------------------------------------------------------------------

MESSAGES = {
    file.stem: ros_checks._fields(file.read_text()) for file in (REPO / "msg").glob("*.msg")
}
ROS_FACTS = {"rmw": "rmw_fastrtps_cpp", "messages": MESSAGES, "reason": ""}


@pytest.fixture
def quick(monkeypatch):
    """One engine, and a sourced ROS 2 whose process is not started."""
    monkeypatch.setattr(selector, "BACKENDS", {selector.REFERENCE: BACKENDS[selector.REFERENCE]})
    monkeypatch.setattr(ros_checks, "_probe_ros", lambda: ROS_FACTS)
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    for name in ("ROS_DOMAIN_ID", "ROS_LOCALHOST_ONLY", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        monkeypatch.delenv(name, raising=False)
    profile = REPO / "config/fastdds_large_images.xml"
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", str(profile))


@pytest.fixture
def other_backends(monkeypatch):
    """Set the backends that are tried: name -> what opening a model does; also `Backend`'s."""

    def set_backends(builds=False, **opening):
        fake = ModuleType("fake_engines")
        fake.open_model = lambda name, *arguments: opening[name]()
        fake.engine_is_cached = lambda *arguments: False
        monkeypatch.setitem(sys.modules, "fake_engines", fake)
        names = {name: Backend("fake_engines", "ask", builds=builds) for name in opening}
        monkeypatch.setattr(selector, "BACKENDS", selector.BACKENDS | names)

    return set_backends


def found(model, section):
    """Status, text and remedy of the lines of a section."""
    checks = [check for check in examine(model and str(model)) if check.section == section]
    return [(check.status, check.text, check.remedy) for check in checks]


def statuses(model, section):
    return {status for status, _, _ in found(model, section)}


def test_a_report_of_an_installation_that_works(quick, model, capsys):
    assert main(["doctor", "--model", str(model)]) == 0
    text = capsys.readouterr().out
    sections = ("Versions", "Machine", "ROS 2", "Model", "Engines", "Sample step", "Cache")
    positions = [text.index(f"{section}\n") for section in sections]
    assert positions == sorted(positions) and text.splitlines()[-1].startswith("0 faults")
    assert "tiny, panoptic, 96 x 64, 2 classes" in text and "a model of your own" in text
    assert "2 segments" in text


def test_the_report_as_json(quick, model, capsys):
    assert main(["doctor", "--model", str(model), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["fault"] == 0
    for check in report["checks"]:
        assert check["status"] in ("ok", "absent", "warning", "fault") and check["text"]
        assert check["remedy"] or check["status"] in ("ok", "absent")


def test_the_whole_command_tries_all_engines_and_writes_nothing(tmp_path):
    """In a process of its own, in an empty home, with the shipped model by its name."""
    variables = os.environ | {"HOME": str(tmp_path)}
    variables.pop("VIDEO_KNET_CACHE")
    words = [sys.executable, "-m", "video_knet_core.cli", "doctor", "--model", "street", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, env=variables, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    checks = json.loads(done.stdout)["checks"]
    engines = {c["text"].partition(":")[0] for c in checks if c["section"] == "Engines"}
    assert set(BACKENDS) <= engines
    assert any("is that of street.onnx" in check["text"] for check in checks)
    assert not list(tmp_path.rglob("*"))


def test_wrong_usage_is_2(capsys):
    assert main(["doctor", "street"]) == 2 and main(["doctor", "--modell", "street"]) == 2


def test_paths_in_the_home_folder_begin_with_a_tilde(quick, model, tmp_path, monkeypatch, capsys):
    home = tmp_path / "home"
    (home / "models").mkdir(parents=True)
    shutil.copy(model, home / "models/mine.onnx")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("VIDEO_KNET_CACHE", str(home / "cache"))
    monkeypatch.setenv("SECRET", "hidden-token")
    for options in ([], ["--json"]):
        assert main(["doctor", "--model", "~/models/mine.onnx", *options]) == 0
        text = capsys.readouterr().out
        assert "~/models/mine.onnx" in text and "~/cache" in text
        assert str(home) not in text and "hidden-token" not in text


# --- versions and machine


def test_dependencies_are_compared_with_their_minimum(quick, model, monkeypatch):
    assert statuses(model, "Versions") == {"ok"}
    wrong = {"numpy": "1.20", "torch": "2.0", "natsort": None, "opencv-python-headless": "5.1"}
    real = host_checks._version_of
    monkeypatch.setattr(host_checks, "_version_of", lambda n: wrong[n] if n in wrong else real(n))
    lines = {text.split()[0].rstrip(":"): status for status, text, _ in found(model, "Versions")}
    assert lines["numpy"] == lines["natsort"] == lines["opencv-python-headless"] == "fault"
    assert lines["torch"] == "warning"


def test_minimum_versions_are_known_without_metadata_of_pip(quick, model, monkeypatch):
    monkeypatch.setattr(host_checks.metadata, "distributions", lambda **_: [])
    assert host_checks._requirements()["pydantic"] == ("2.10", "", False)
    monkeypatch.setattr(host_checks, "shared_file", no_file)
    assert "warning" in statuses(model, "Versions")


def no_file(name):
    raise FileNotFoundError(name)


def fake_nvml(**more):
    return SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda device: "Fast GPU",
        nvmlSystemGetDriverVersion=lambda: "570.1",
        nvmlDeviceGetMemoryInfo=lambda device: SimpleNamespace(total=24_000_000_000),
        **more,
    )


def test_a_gpu_that_no_engine_uses_is_a_warning(quick, model, monkeypatch, other_backends):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    assert ("ok", "GPU: Fast GPU, 24 GB, driver 570.1", "") in found(model, "Machine")

    def no_driver():
        raise BackendError("no driver")

    other_backends(**{"onnxruntime-cuda": no_driver})
    lines = found(model, "Engines")
    assert lines[1][:2] == ("absent", "onnxruntime-cuda: no driver")
    assert lines[2][0] == "warning" and "Fast GPU" in lines[2][1]
    other_backends(builds=True, **{"onnxruntime-cuda": no_driver})
    assert [status for status, _, _ in found(model, "Engines")] == ["ok", "ok"]


def test_no_gpu_is_no_fault(quick, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert any(s == "absent" and "nvidia-ml-py" in t for s, t, _ in found(model, "Machine"))


# --- ROS 2


def test_outside_of_ros_it_is_not_installed(quick, model, monkeypatch):
    monkeypatch.delenv("ROS_DISTRO")
    monkeypatch.setattr(ros_checks, "find_spec", lambda name: None)
    ((status, text, _),) = found(model, "ROS 2")
    assert status == "absent" and "not installed" in text


def test_inside_of_ros_all_is_well(quick, model):
    assert statuses(model, "ROS 2") == {"ok"}


@pytest.mark.parametrize(
    ("variable", "value", "status"),
    [
        ("ROS_DOMAIN_ID", "300", "fault"),
        ("ROS_DOMAIN_ID", "x", "fault"),
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", "EVERYWHERE", "warning"),
        ("FASTRTPS_DEFAULT_PROFILES_FILE", "/no/such.xml", "fault"),
        ("FASTRTPS_DEFAULT_PROFILES_FILE", "", "warning"),
    ],
)
def test_a_variable_of_ros_that_is_wrong(quick, model, monkeypatch, variable, value, status):
    monkeypatch.delenv("FASTDDS_DEFAULT_PROFILES_FILE", raising=False)
    monkeypatch.setenv(variable, value)
    ((text, remedy),) = [(t, r) for s, t, r in found(model, "ROS 2") if s == status]
    assert variable in text and value in text and remedy


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ({}, "warning"),
        (MESSAGES | {"ClassInfo": {"id": "uint32"}}, "fault"),
        ({name: MESSAGES[name] for name in MESSAGES if name != "ClassInfo"}, "fault"),
        (MESSAGES | {"Old": {}}, "fault"),
    ],
)
def test_messages_that_are_not_built_or_of_another_version(
    quick, model, monkeypatch, messages, status
):
    facts = ROS_FACTS | {"messages": messages, "reason": "No module named 'video_knet_ros'"}
    monkeypatch.setattr(ros_checks, "_probe_ros", lambda: facts)
    line = found(model, "ROS 2")[-1]
    assert line[0] == status and "colcon build" in line[2]


@pytest.mark.parametrize("code", ["import no_such_rclpy", "import os; os.abort()", "while 1: pass"])
def test_an_rclpy_that_cannot_be_imported_is_a_fault(model, monkeypatch, code):
    monkeypatch.setattr(selector, "BACKENDS", {})
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    monkeypatch.setattr(ros_checks, "_ROS_PROBE", code)
    monkeypatch.setattr(ros_checks, "ROS_S", 1.0)
    lines = found(model, "ROS 2")
    assert [status for status, _, _ in lines] == ["ok", "fault"] and "Python" in lines[1][2]


def test_a_middleware_that_is_not_installed_is_to_be_unset(model, monkeypatch):
    words = "Expected RMW implementation identifier of 'rmw_none', got 'rmw_fastrtps_cpp'"
    monkeypatch.setattr(selector, "BACKENDS", {})
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_none")
    monkeypatch.setattr(ros_checks, "_probe_ros", lambda: words)
    status, _, remedy = found(model, "ROS 2")[-1]
    assert status == "fault" and remedy.startswith("unset RMW_IMPLEMENTATION, or install rmw_none")


def test_files_of_the_current_folder_and_lines_at_the_end_are_not_taken_for_ros(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("json", "sys", "rclpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the user')")
    probe = ros_checks._ROS_PROBE.replace(
        "import json, rclpy", "import json, rclpy_of_test as rclpy"
    )
    (tmp_path / "path").mkdir()
    (tmp_path / "path/rclpy_of_test.py").write_text(
        "import atexit; atexit.register(print, 'the end')\n"
        "get_rmw_implementation_identifier = lambda: 'rmw'"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    monkeypatch.setattr(ros_checks, "_ROS_PROBE", probe)
    assert ros_checks._probe_ros()["rmw"] == "rmw"


def test_the_messages_of_a_real_ros_have_the_fields_of_their_definitions():
    pytest.importorskip("rclpy")
    facts = ros_checks._probe_ros()
    if not facts["messages"]:
        pytest.skip("the package is not built here; `make test` builds it")
    assert facts["messages"] == MESSAGES


# --- model


def broken(path, kind, model):
    """A model file that cannot be used."""
    if kind == "cut":
        path.write_bytes(model.read_bytes()[:-100])
    elif kind == "text":
        path.write_text("this is no model")
    elif kind == "empty":
        path.touch()
    elif kind == "pickle":
        path.write_bytes(b"\x80\x02}q\x00X\x05\x00\x00\x00metaq\x01K\x01s.")
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *[("a.onnx", kind) for kind in ("cut", "text", "empty", "pickle", "missing")],
        *[("a.safetensors", kind) for kind in ("text", "empty", "pickle")],
        ("a.pth", "pickle"),
        ("no_such_name", "missing"),
    ],
)
def test_a_model_that_cannot_be_used_is_a_fault_with_a_remedy(
    quick, model, tmp_path, name, kind, capsys
):
    path = tmp_path / name if "." in name else Path(name)
    broken(path, kind, model)
    assert main(["doctor", "--model", str(path)]) == 1
    output = capsys.readouterr()
    assert "Traceback" not in output.out + output.err and "1 fault," in output.out
    ((status, text, remedy),) = found(path, "Model")
    assert status == "fault" and name in text and "video-knet" in remedy
    assert ("import-checkpoint" in remedy) is (name == "a.pth")
    assert statuses(path, "Engines") == {"absent"}


def test_a_shipped_file_with_another_content_is_a_fault(quick, model, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDEO_KNET_CACHE", str(tmp_path / "cache"))
    for folder, status in ((tmp_path, "ok"), (download_folder(model_index()), "fault")):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(model, folder / "street.onnx")
        lines = found(folder / "street.onnx", "Model")
        assert [line[0] for line in lines] == ["ok", status]
    assert "models get" in lines[1][2]


def test_a_checkpoint_is_described_without_torch(quick, tmp_path):
    path = shared_file("models/street_open.safetensors")
    lines = found("street_open", "Model")
    assert [status for status, _, _ in lines] == ["ok", "ok"] and "480 x 288" in lines[0][1]
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-1])
    ((status, text, _),) = found(cut, "Model")
    assert status == "fault" and "cut short" in text


def test_a_missing_default_is_a_fault(quick, monkeypatch):
    monkeypatch.setattr(selector, "shared_file", no_file)
    monkeypatch.setattr("video_knet_core.engine.model_index.shared_folders", lambda: [])
    ((status, _, remedy),) = found(None, "Model")
    assert status == "fault" and "video-knet models get street" in remedy


def test_a_model_that_finds_nothing_is_a_warning(quick, model, monkeypatch):
    monkeypatch.setattr(engine_checks, "_timed_steps", lambda runtime: (5.0, 0))
    ((status, text, _),) = found(model, "Sample step")
    assert status == "warning" and "0 segments" in text


def test_a_remedy_leaves_the_numpy_of_ros_2_as_it_is(monkeypatch):
    for origin, limit in (("/opt/ros/jazzy/lib/rclpy/__init__.py", "'numpy<2' "), ("/a/rclpy", "")):
        monkeypatch.setattr(installation, "find_spec", lambda name, o=origin: Mock(origin=o))
        assert installation.pip_install("torch") == f"pip install {limit}torch"
        assert installation.pip_install("'numpy<3'") == "pip install 'numpy<3'"


# --- engines


def test_without_onnx_runtime_it_is_named_and_nothing_runs(quick, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "video_knet_core.engine.onnx_runtime", raising=False)
    ((status, text, _),) = found(model, "Engines")
    assert status == "absent" and "onnxruntime" in text and "pip install" in text
    ((status, _, remedy),) = found(model, "Sample step")
    assert status == "fault" and remedy == "pip install onnxruntime"


def test_without_onnx_runtime_an_engine_that_auto_takes_is_one_that_runs(
    quick, model, monkeypatch, other_backends
):
    from video_knet_core.engine.onnx_runtime import OnnxRuntime

    def nothing(*_):
        raise BackendError("no ONNX Runtime to compare results with")

    other_backends(other=lambda: OnnxRuntime(model))
    monkeypatch.setattr(selector, "BACKENDS", {"other": selector.BACKENDS["other"]})
    monkeypatch.setattr(self_test, "expected_classes", nothing)
    ((status, text, _),) = found(model, "Engines")
    assert status == "ok" and "not compared" in text
    assert statuses(model, "Sample step") == {"ok"}


def test_a_model_that_no_engine_can_run_is_not_called_a_missing_package(
    quick, model, monkeypatch, other_backends
):
    def damaged():
        raise FloatingPointError("kernels that are not finite")

    monkeypatch.setattr(selector, "BACKENDS", {})
    other_backends(other=damaged)
    ((status, text, remedy),) = found(model, "Engines")
    assert status == "warning" and "not finite" in text and "copy of the model" in remedy
    ((status, _, remedy),) = found(model, "Sample step")
    assert status == "fault" and "pip" not in remedy


def test_a_damaged_file_that_a_name_stands_for_is_to_be_deleted(
    quick, model, monkeypatch, tmp_path
):
    monkeypatch.setenv("VIDEO_KNET_MODELS", str(tmp_path))
    (tmp_path / "street.onnx").write_bytes(model.read_bytes()[:-100])
    ((status, _, remedy),) = found("street", "Model")
    assert status == "fault"
    assert remedy == f"delete {tmp_path / 'street.onnx'}, then video-knet models get street"


def crash():
    faulthandler.disable()  # of pytest
    os.kill(os.getpid(), signal.SIGSEGV)


def fail():
    raise RuntimeError("a library failed")


def test_an_engine_that_crashes_or_fails_costs_its_line_alone(quick, model, other_backends):
    other_backends(crashing=crash, failing=fail, leaving=lambda: os._exit(3))
    lines = {text.partition(":")[0]: (s, text) for s, text, _ in found(model, "Engines")}
    assert lines["onnxruntime-cpu"][0] == "ok"
    for name, word in (("crashing", "SIGSEGV"), ("failing", "a library failed"), ("leaving", "3")):
        assert lines[name][0] == "warning" and word in lines[name][1]
    assert statuses(model, "Sample step") == {"ok"}


def test_an_engine_that_hangs_is_given_up(quick, model, monkeypatch, other_backends):
    monkeypatch.setattr(selector, "BACKENDS", {})
    monkeypatch.setattr(engine_checks, "ENGINES_S", 1.2)
    other_backends(hanging=lambda: time.sleep(60), later=lambda: None)
    lines = found(model, "Engines")
    assert [status for status, _, _ in lines] == ["warning", "absent"]
    assert statuses(model, "Sample step") == {"warning"}


def test_an_engine_with_other_results_fails_its_self_test(
    quick, model, monkeypatch, other_backends
):
    from video_knet_core.engine.onnx_runtime import OnnxRuntime

    class Wrong(OnnxRuntime):
        def step(self, image, state):
            return super().step(image[::-1].copy(), state)

    other_backends(**{name: lambda: Wrong(model) for name in ("wrong", "wrong-gpu")})
    gpu = Backend("fake_engines", "ask", on_gpu=True)
    monkeypatch.setattr(selector, "BACKENDS", selector.BACKENDS | {"wrong-gpu": gpu})
    lines = {text.partition(":")[0]: (s, text) for s, text, _ in found(model, "Engines")}
    assert lines["wrong"][0] == "ok"
    assert "not used by auto: self-test failed" in lines["wrong"][1]
    assert lines["wrong-gpu"][0] == "warning" and "self-test failed" in lines["wrong-gpu"][1]


def test_the_sample_step_is_that_of_an_engine_that_auto_uses():
    examined = engine_checks.ExaminedModel(None)
    examined._path = Path("m.onnx")
    for name, step_ms, agrees in (("exact", 30.0, True), ("wrong", 1.0, False)):
        trial = engine_checks._Trial("ok", "", step_ms=step_ms, segments=3, agrees=agrees)
        examined._trials[name] = trial
    ((status, text),) = examined.step_lines()
    assert status == "ok" and text.startswith("30.0 ms with exact, 3 segments")


# --- cache


def test_a_cache_that_is_full_or_read_only_is_a_warning(quick, model, monkeypatch, tmp_path):
    ((status, _, _),) = found(model, "Cache")
    assert status == "ok"

    full = partial(open, "/dev/full", "wb", buffering=0)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: full())
    ((status, text, remedy),) = found(model, "Cache")
    assert status == "warning" and "No space left" in text and "VIDEO_KNET_CACHE" in remedy


def test_a_cache_in_the_place_of_a_file_is_a_warning(quick, model, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIDEO_KNET_CACHE", str(tmp_path / "file" / "cache"))
    ((status, _, _),) = found(model, "Cache")
    assert status == "warning"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written_is_a_warning(quick, model, monkeypatch, tmp_path):
    tmp_path.chmod(0o500)
    monkeypatch.setenv("VIDEO_KNET_CACHE", str(tmp_path / "cache"))
    ((status, _, _),) = found(model, "Cache")
    assert status == "warning"


# --- without dependencies


@pytest.mark.parametrize("package", ["pydantic", "typer", "numpy", "psutil", "cv2"])
def test_without_a_dependency_the_module_reports_it(package, model):
    code = (
        "import sys; from importlib import metadata\n"
        f"sys.modules[{package!r}] = None\n"
        "from video_knet_core.doctor.examination import doctor; sys.exit(doctor(sys.argv[1]))"
    )
    words = [sys.executable, "-c", code, str(model)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=REPO)
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    assert done.returncode == (package != "typer") and "Cache" in done.stdout
