"""Plans that the real TensorRT-RTX builds, on a machine that needs no GPU, and `build-engine`."""

from __future__ import annotations

import logging
import re

import numpy as np
import onnx
import pytest
from onnx import helper
from recurrent_onnx import write_recurrent_model

from video_knet_core.cli import main
from video_knet_core.engine.base import BackendError, ModelError
from video_knet_core.engine.model_file import ModelFile
from video_knet_core.engine.tensorrt import cuda
from video_knet_core.engine.tensorrt.build import TensorRTLibrary
from video_knet_core.engine.tensorrt.cuda import Gpu
from video_knet_core.engine.tensorrt.plan_cache import PlanCache, read_plan
from video_knet_core.engine.tensorrt.runtime import engine_is_cached, plan_key

pytest.importorskip("tensorrt_rtx_bindings", reason="needs TensorRT-RTX")

RTX = "tensorrt-rtx"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "recurrent.onnx"
    return ModelFile.read(write_recurrent_model(path))


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("VIDEO_KNET_CACHE", str(tmp_path / "cache"))
    return PlanCache()


# --- plans --------------------------------------------------------------------------------------


def build(model, targets, progress=None, workspace_mib=None):
    onnx = model.path.read_bytes()
    return TensorRTLibrary(RTX).build_plan(model.name, onnx, targets, progress, workspace_mib)


@pytest.mark.parametrize("targets", [("sm86",), ("sm86", "sm89")])
def test_a_plan_is_built_without_a_gpu(model, targets):
    plan = build(model, targets)
    assert plan[:4] == b"vtrt" and len(plan) > 10_000


def test_the_targets_matter(model):
    assert build(model, ("sm86",)) != build(model, ("sm120",))


def test_progress_is_reported(model):
    reported = []
    build(model, ("sm86",), lambda phase, part: reported.append((phase, part)))
    phases = {phase for phase, _ in reported}
    assert len(phases) > 1 and all(0 <= part <= 1 for _, part in reported)
    assert {(phase, 1.0) for phase in phases} <= set(reported)


def test_a_progress_callback_that_raises_stops_the_build(model):
    count = 0

    def stop(phase, part):
        nonlocal count
        count += 1
        raise ZeroDivisionError("enough")

    with pytest.raises(ZeroDivisionError, match="enough"):
        build(model, ("sm86",), stop)
    assert count == 1


def test_an_unknown_target_lists_the_known(model):
    with pytest.raises(BackendError, match=r"builds for .*sm86, sm89, .*sm120.*, got 'sm42'"):
        build(model, ("sm86", "sm42"))


def test_an_unsupported_operator_is_named(model, tmp_path):
    proto = onnx.load(str(model.path))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(2, dtype="f"), "square"))
    proto.graph.node.append(helper.make_node("Det", ["square"], ["d"], name="/head/Det"))
    path = tmp_path / "unsupported.onnx"
    onnx.save(proto, str(path))
    with pytest.raises(ModelError, match=r"Det '/head/Det': .+") as caught:
        build(ModelFile.read(path), ("sm86",))
    assert isinstance(caught.value, BackendError)  # `auto` tries the next backend


def test_a_build_for_the_present_gpu_reports_that_there_is_none(model):
    try:
        cuda.find_gpu()
    except BackendError:
        pass
    else:
        pytest.skip("there is a GPU")
    with pytest.raises(BackendError, match=r"CUDA_ERROR|libcuda|NVIDIA|driver"):
        engine_is_cached(model.path, RTX)


def test_a_gpu_that_no_plan_runs_on_is_reported_before_the_build(model, monkeypatch, capsys):
    # as a real H100 answered on 2026-11-26: the build for it succeeds, the plan is not accepted
    monkeypatch.setattr(cuda, "find_gpu", lambda: Gpu("NVIDIA H100", (9, 0)))
    with pytest.raises(BackendError, match=r"runs on .*sm89.* newer GPUs, got NVIDIA H100 .sm90"):
        engine_is_cached(model.path, RTX)
    assert main(["build-engine", str(model.path), "--flavour", RTX]) == 2
    assert "got NVIDIA H100 (sm90)" in capsys.readouterr().err


def test_a_gpu_newer_than_the_library_is_tried(model, monkeypatch):
    monkeypatch.setattr(cuda, "find_gpu", lambda: Gpu("Some GPU", (13, 0)))
    assert not engine_is_cached(model.path, RTX)


# --- the command --------------------------------------------------------------------------------


def test_the_command_fills_the_cache(model, cache, capsys):
    assert main(["build-engine", str(model.path), "--target", "SM89,sm86"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (path,) = cache.folder.glob("*.plan")
    assert lines[0] == str(path)
    assert lines[1].startswith("recurrent fp32 64 x 96, tensorrt-rtx 1.")
    assert "for sm86, sm89: " in lines[1] and lines[1].endswith(" s") and " MB in " in lines[1]


def test_the_run_path_finds_what_was_built_ahead(model, monkeypatch):
    main(["build-engine", str(model.path), "--target", "sm86,sm89"])
    for capability, cached in (((8, 6), True), ((8, 9), True), ((12, 0), False)):
        monkeypatch.setattr(cuda, "find_gpu", lambda c=capability: Gpu("Some GPU", c))
        assert engine_is_cached(model.path, RTX) == cached


def test_a_second_build_is_none(model, capsys, caplog):
    command = ["build-engine", str(model.path), "--target", "sm89"]
    with caplog.at_level(logging.INFO):
        assert main(command) == main(command) == 0
    assert caplog.text.count("building an engine for recurrent") == 1
    first, second = capsys.readouterr().out.splitlines()[::2]
    assert first == second


def test_the_engine_can_be_written_elsewhere(model, cache, tmp_path, monkeypatch, capsys):
    out = tmp_path / "for_the_robot.plan"
    assert main(["build-engine", str(model.path), "--target", "sm89", "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out and not list(cache.folder.glob("*.plan"))
    monkeypatch.setattr(cuda, "find_gpu", lambda: Gpu("Some GPU", (8, 9)))
    assert not engine_is_cached(model.path, RTX)
    cache.folder.mkdir(exist_ok=True)
    out.rename(cache.folder / out.name)
    assert engine_is_cached(model.path, RTX)


def test_the_key_of_a_plan_is_that_of_the_model(model, tmp_path):
    out = tmp_path / "a.plan"
    main(["build-engine", str(model.path), "--target", "sm89", "--out", str(out)])
    library = TensorRTLibrary(RTX)
    expected = plan_key(model, model.path.read_bytes(), library, "ignored", ("sm89",))
    assert read_plan(out)[0] == expected and expected.gpu == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "sm42"], r"builds for .*sm89.*, got 'sm42'"),
        (["--target", "sm89", "--flavour", "tensorrt"], "tensorrt cannot be imported"),
        (["--target", "sm89", "--out", "/dev/null/a.plan"], "got the file /dev/null"),
    ],
)
def test_what_cannot_be_done_is_reported(model, capsys, options, message):
    assert main(["build-engine", str(model.path), *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.search(message, captured.err), captured.err


def test_without_a_gpu_the_command_names_the_targets(model, capsys, monkeypatch):
    def none():
        raise cuda.CudaError("cuInit: CUDA_ERROR_NO_DEVICE")

    monkeypatch.setattr(cuda, "find_gpu", none)
    assert main(["build-engine", str(model.path), "--flavour", RTX]) == 2
    assert "CUDA_ERROR_NO_DEVICE; without a GPU name --target, of sm75" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written(model, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIDEO_KNET_CACHE", str(tmp_path / "file" / "cache"))
    assert main(["build-engine", str(model.path), "--target", "sm89"]) == 2
    assert "could not be cached" in capsys.readouterr().err
