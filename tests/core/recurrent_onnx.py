"""A small model with the exporter's interface, all of whose results depend on image and state.

Its operators are those that TensorRT takes: uint8 is cast at once, and cast to only from float32.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tiny_onnx import CHANNELS, HEIGHT, INPUTS, OUTPUTS, SLOTS, WIDTH, metadata

WHITE = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
"""With `nan_at_white` the kernels of this image are NaN."""


def write_recurrent_model(
    path: Path, name: str = "recurrent", seed: int = 0, nan_at_white: bool = False, **facts
) -> Path:
    """Write the model; other seeds have other weights, `facts` go into the metadata."""
    random = np.random.default_rng(seed)
    constants = {
        "to_one": np.array(1 / 255, np.float32),
        "first": np.array([0]),
        "start": np.array([0, 0, 0]),
        "end": np.array([HEIGHT, WIDTH, 3]),
        "stride": np.array([2, 2, 1]),
        "axes": np.array([0, 1, 2]),
        "rows_columns": np.array([0, 1]),
        "plane": np.array([1, 2]),
        "row": np.array([1]),
        "mix": random.normal(size=(3, SLOTS * CHANNELS)).astype(np.float32),
        "kernel_shape": np.array([SLOTS, CHANNELS]),
        "decay": np.array(0.75, np.float32),
        "shift": np.array(0.125, np.float32),
        "to_mask": random.normal(size=(CHANNELS, 3)).astype(np.float32),
        "pixel_shape": np.array([HEIGHT // 2 * (WIDTH // 2), 3]),
        "map_shape": np.array([SLOTS, HEIGHT // 2, WIDTH // 2]),
        "one": np.array(1, np.int64),
        "slots": np.arange(1, SLOTS + 1, dtype=np.int64).reshape(-1, 1, 1),
        "grey": np.array(0.5, np.float32),
    }
    kernels = "sum" if nan_at_white else "kernels"
    nodes = [
        helper.make_node("Cast", ["image"], ["float_image"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float_image", "to_one"], ["bright"]),
        helper.make_node("Sub", ["bright", "grey"], ["pixels_full"]),
        helper.make_node("Slice", ["pixels_full", "start", "end", "axes", "stride"], ["pixels"]),
        helper.make_node("ReduceMean", ["pixels", "rows_columns"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "first"], ["mean_row"]),
        helper.make_node("MatMul", ["mean_row", "mix"], ["fresh_flat"]),
        helper.make_node("Reshape", ["fresh_flat", "kernel_shape"], ["fresh"]),
        helper.make_node("Cast", ["has_previous"], ["had"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["previous_kernels", "had"], ["before"]),
        helper.make_node("Mul", ["before", "decay"], ["faded"]),
        helper.make_node("Mul", ["had", "shift"], ["later"]),
        helper.make_node("Add", ["faded", "later"], ["moved"]),
        helper.make_node("Add", ["moved", "fresh"], [kernels]),
        helper.make_node("MatMul", ["kernels", "to_mask"], ["mask_kernels"]),
        helper.make_node("Reshape", ["pixels", "pixel_shape"], ["pixel_rows"]),
        helper.make_node("Transpose", ["pixel_rows"], ["pixel_columns"], perm=[1, 0]),
        helper.make_node("MatMul", ["mask_kernels", "pixel_columns"], ["masks_flat"]),
        helper.make_node("Reshape", ["masks_flat", "map_shape"], ["masks"]),
        helper.make_node("ArgMax", ["masks"], ["winner"], axis=0, keepdims=0),
        helper.make_node("Add", ["winner", "one"], ["labels"]),
        helper.make_node("Cast", ["labels"], ["float_labels"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["float_labels"], ["segment_map"], to=TensorProto.UINT8),
        helper.make_node("Equal", ["labels", "slots"], ["is_slot"]),
        helper.make_node("Cast", ["is_slot"], ["is_slot_64"], to=TensorProto.INT64),
        helper.make_node("ReduceSum", ["is_slot_64", "plane"], ["areas"], keepdims=0),
        helper.make_node("ArgMax", ["kernels"], ["channel"], axis=1, keepdims=0),
        helper.make_node("Min", ["channel", "one"], ["class_ids"]),
        helper.make_node("ReduceMax", ["kernels", "row"], ["best"], keepdims=0),
        helper.make_node("Sigmoid", ["best"], ["scores"]),
        helper.make_node("Tanh", ["kernels"], ["embeddings"]),
    ]
    if nan_at_white:
        constants |= {"white": np.array(0.4999, np.float32), "nan": np.array(np.nan, np.float32)}
        nodes[14:14] = [
            helper.make_node("ReduceMin", ["pixels"], ["darkest"], keepdims=0),
            helper.make_node("Greater", ["darkest", "white"], ["is_white"]),
            helper.make_node("Where", ["is_white", "nan", "sum"], ["kernels"]),
        ]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(*spec) for spec in INPUTS],
        [helper.make_tensor_value_info(*spec) for spec in OUTPUTS],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, {"video_knet": json.dumps(metadata(name=name, **facts))})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
