"""Shared by the tests of the core."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the helpers beside the tests


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> dict[str, Path]:
    """Layout of a data set -> its root, each written once; to be read only."""
    from dataset_fixtures import FIXTURES

    roots = {name: tmp_path_factory.mktemp(name) for name in FIXTURES}
    for name, fixture in FIXTURES.items():
        fixture.write(roots[name])
    return roots


@pytest.fixture(scope="session")
def expected_frames(tmp_path_factory) -> dict[str, list]:
    """Layout of a data set -> what a reader must give for each of its frames."""
    from dataset_fixtures import FIXTURES

    return {name: f.write(tmp_path_factory.mktemp(name)) for name, f in FIXTURES.items()}


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A small exported model (`tiny_onnx`); to be read only."""
    from tiny_onnx import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="session")
def two_sizes(tmp_path_factory) -> Path:
    """The same model for two native sizes, the second of which is wide; to be read only."""
    from tiny_onnx import write_two_sizes

    return write_two_sizes(tmp_path_factory.mktemp("model") / "two.onnx")


@pytest.fixture(scope="session")
def runtime(model):
    """An engine with that model; to be left open."""
    from video_knet_core.engine.selector import open_runtime

    return open_runtime(model, "onnxruntime-cpu")


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Callable[..., Path]:
    """Small versions of config/models as ONNX: (name, precision, form) -> file, made once.

    With `plain` it is the decoder of a semantic network alone. The checkpoint of each is beside it,
    as NAME.safetensors, or NAME_plain.safetensors.
    """
    pytest.importorskip("torch", reason="an export needs it")
    from networks import shrink_swin, small_version, tell_pixels_apart

    from video_knet_core.cli import main
    from video_knet_core.model.checkpoint import save_model

    folder = tmp_path_factory.mktemp("exported")

    def export(
        name: str, precision: str = "fp32", form: str = "deploy", plain: bool = False
    ) -> Path:
        kernels = {"stages": 0, "fusion": "none", "linking": "none"} if plain else {}
        stem = name + "_plain" * plain
        checkpoint = folder / f"{stem}.safetensors"
        out = folder / f"{stem}_{precision}_{form}.onnx"
        if out.exists():
            return out
        with pytest.MonkeyPatch.context() as patch:
            shrink_swin(patch)
            if not checkpoint.exists():
                save_model(tell_pixels_apart(small_version(name, **kernels)), checkpoint)
            options = ["--precision", precision, *(["--raw"] if form == "raw" else [])]
            assert main(["export", str(checkpoint), str(out), *options]) == 0
        return out

    return export
