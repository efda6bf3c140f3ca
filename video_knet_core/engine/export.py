"""VideoKNet -> ONNX: a static graph, from a uint8 image to a segment map and a table.

Or, in the raw form, to the predictions of the network before its masks are merged. TensorRT must be
able to build every graph: see the comments on types here and in `model.merge`.
"""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from ..config import ExternalConfig, ModelConfig, NetworkConfig
from ..config_io import expect, to_dict
from ..model.checkpoint import AnyNetwork, load_network, sha256
from ..model.kernels import PreviousKernels
from ..model.network import network_name
from ..model.precision import with_half_maps
from ..model.video_knet import VideoKNet
from ..output_files import make_folder, replacing
from .base import Size
from .model_file import (
    FORMAT,
    FORMS,
    INPUTS,
    METADATA_KEY,
    PRECISIONS,
    outputs_of,
    pack,
    size_key,
)
from .torch_runtime import segment_frame

_OPSET = 18
_PREPROCESSING = {"layout": "HWC uint8 RGB", "normalised": "inside the graph"}
"""The image, as described in the metadata."""


class _DeployGraph(nn.Module):
    """The deploy form of a network: tensors of one camera frame in and out, no batch."""

    form = "deploy"

    def __init__(self, model: AnyNetwork) -> None:
        super().__init__()
        self.model = model
        self.outputs = list(outputs_of(self.form, _described(model.config)))

    def forward(
        self, image: Tensor, previous_kernels: Tensor, has_previous: Tensor
    ) -> tuple[Tensor, ...]:
        """image uint8 [H,W,3] RGB, previous_kernels [N,S], has_previous bool [1] -> `OUTPUTS`."""
        previous = PreviousKernels(previous_kernels[None], has_previous)
        outputs = segment_frame(self.model, _pixels(image), previous)
        return tuple(outputs[name] for name in self.outputs)


class _RawGraph(_DeployGraph):
    """The raw form, for evaluation."""

    form = "raw"

    def forward(
        self, image: Tensor, previous_kernels: Tensor, has_previous: Tensor
    ) -> tuple[Tensor, ...]:
        """Those of class_logits [N,K], mask_logits [N,h,w], kernels [N,C] and embeddings [P,E], all
        float32, that the task has."""
        previous = PreviousKernels(previous_kernels[None], has_previous)
        prediction, state = self.model(_pixels(image)[None], previous)
        return tuple(
            getattr(state if name == "kernels" else prediction, name)[0].float()
            for name in self.outputs
        )


_GRAPHS = {"deploy": _DeployGraph, "raw": _RawGraph}


def _pixels(image: Tensor) -> Tensor:
    """[H,W,3] uint8 -> [3,H,W] float32, cast first: all that TensorRT does with 8-bit inputs."""
    return image.float().permute(2, 0, 1)


def export_onnx(
    model: AnyNetwork,
    out: str | Path,
    name: str,
    precision: str = "fp32",
    form: str = "deploy",
    **facts: Any,
) -> None:
    """Write `model` as ONNX (opset 18, static shapes) with its configuration in the metadata.

    For each of several native sizes there is a graph, as `model_file` describes.

    Args:
        model: a float32 network.
        precision: "fp32", or "fp16" for maps in half precision (`model/precision.py`); inputs and
            outputs are the same.
        form: "deploy", which a `Runtime` runs, or "raw", for evaluation.
        facts: more metadata, such as `checkpoint_sha256`.

    Raises:
        ValueError: there is no such precision or form, or this network has not.
        ConfigError: its state has another shape than that of its configuration.
    """
    for key, value, known in (("precision", precision, PRECISIONS), ("form", form, FORMS)):
        if value not in known:
            raise ValueError(f"{key}: expected one of {list(known)}, got {value!r}")
    if not isinstance(model, VideoKNet) and (precision, form) != ("fp32", "deploy"):
        raise ValueError(
            f"{name}: expected precision 'fp32' and form 'deploy' for {type(model).__name__}, got "
            f"{precision!r} and {form!r}"
        )
    half = precision == "fp16" and isinstance(model, VideoKNet)
    graph = _GRAPHS[form](with_half_maps(model) if half else model).eval()
    config = model.config
    proto, *others = (_model_of(graph, size) for size in config.sizes)
    metadata = {
        "format": FORMAT,
        "name": name,
        "precision": precision,
        "form": form,
        "preprocessing": _PREPROCESSING,
        "config": to_dict(_described(config)),
        **facts,
    }
    further = {
        size_key(size): pack(_without_shared_tensors(other, proto))
        for size, other in zip(config.more_sizes, others, strict=True)
    }
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(metadata), **further})
    onnx.checker.check_model(proto)
    out = Path(out)
    make_folder(out.parent)
    with replacing(out) as partial:
        onnx.save(proto, str(partial), format="protobuf")  # not by the name, which has no suffix


def export_checkpoint(
    checkpoint: Path, out: Path, precision: str = "fp32", form: str = "deploy"
) -> None:
    """Export a checkpoint of ours; its hash goes into the metadata."""
    network, digest = load_network(checkpoint), sha256(checkpoint)
    export_onnx(network, out, out.stem, precision, form, checkpoint_sha256=digest)


def _described(config: NetworkConfig) -> NetworkConfig:
    """The configuration that the file holds."""
    if isinstance(config, ModelConfig):
        return config
    return ExternalConfig(
        *(config.classes, config.task, config.height, config.width),
        network=network_name(to_dict(config)),
        state=config.state_shape(config.sizes[0]),
        depth=config.learns_depth,
    )


def _model_of(graph: _DeployGraph, size: Size) -> onnx.ModelProto:
    """The ONNX model for images of one size, without metadata."""
    config = graph.model.config
    inputs = (
        torch.full((*size, 3), 127, dtype=torch.uint8),
        torch.zeros(config.state_shape(size)),
        torch.zeros(1, dtype=torch.bool),
    )
    # that torchvision, none of whose operators a graph has, is not installed
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # of torch about itself
        program = torch.onnx.export(
            graph,
            inputs,
            input_names=list(INPUTS),
            output_names=graph.outputs,
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    _remove_sources(proto.graph)
    (kernels,) = (output for output in proto.graph.output if output.name == "kernels")
    got = tuple(dim.dim_value for dim in kernels.type.tensor_type.shape.dim)
    state = config.state_shape(size)
    expect(got == state, "kernels", f"{state}, the state_shape of the configuration", got)
    return proto


def _without_shared_tensors(proto: onnx.ModelProto, first: onnx.ModelProto) -> bytes:
    """`proto`, but of tensors that `first` has too, under the same name, the name alone."""
    onnx.checker.check_model(proto)
    own = {tensor.name: tensor.SerializeToString() for tensor in first.graph.initializer}
    for tensor in proto.graph.initializer:
        if own.get(tensor.name) == tensor.SerializeToString():
            name = tensor.name
            tensor.Clear()
            tensor.name = name
    return proto.SerializeToString()


def _remove_sources(graph: onnx.GraphProto) -> None:
    """Drop the stack traces that torch writes into each node: they name this machine's folders."""
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
