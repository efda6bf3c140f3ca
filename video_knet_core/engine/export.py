"""VideoKNet -> ONNX: one static graph, from a uint8 image to a segment map and a table."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from ..config import to_dict
from ..model.checkpoint import load_model, sha256
from ..model.kernels import PreviousKernels
from ..model.video_knet import VideoKNet
from .channels_last import resize_channels_last
from .frame import segment_frame
from .onnx_runtime import FORMAT, INPUTS, METADATA_KEY, OUTPUTS

OPSET = 18


class FrameGraph(nn.Module):
    """The deploy face of a network: tensors of one camera frame in and out, no batch."""

    def __init__(self, model: VideoKNet) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, image: Tensor, previous_kernels: Tensor, has_previous: Tensor
    ) -> tuple[Tensor, ...]:
        """image uint8 [H,W,3] RGB, previous_kernels [N,C], has_previous bool [1]; see `OUTPUTS`."""
        pixels = image.float().permute(2, 0, 1)  # TensorRT takes uint8 for a cast alone
        previous = PreviousKernels(previous_kernels[None], has_previous)
        return tuple(segment_frame(self.model, pixels, previous)[0])


def example_inputs(model: VideoKNet) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of the right shapes: a grey image and a first frame."""
    config = model.config
    image = torch.full((config.height, config.width, 3), 127, dtype=torch.uint8)
    return image, torch.zeros(config.slots, config.neck.channels), torch.zeros(1, dtype=torch.bool)


def export_onnx(model: VideoKNet, out: str | Path, name: str, **facts: Any) -> None:
    """Write `model` as ONNX (opset 18, static shapes) with its configuration in the metadata."""
    graph = FrameGraph(model).eval()
    program = torch.onnx.export(
        graph,
        example_inputs(model),
        input_names=list(INPUTS),
        output_names=list(OUTPUTS),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    _forget_sources(proto.graph)
    resize_channels_last(proto.graph)
    metadata = {"format": FORMAT, "name": name, "config": to_dict(model.config), **facts}
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(metadata)})
    onnx.checker.check_model(proto)
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    onnx.save(proto, str(partial))
    os.replace(partial, out)


def _forget_sources(graph: onnx.GraphProto) -> None:
    """Drop the stack traces that torch writes into each node: they name this machine's folders."""
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


def export_checkpoint(checkpoint: Path, out: Path) -> None:
    """Export a checkpoint of ours; its hash goes into the metadata."""
    export_onnx(load_model(checkpoint), out, name=out.stem, checkpoint_sha256=sha256(checkpoint))
