"""A model file with the exporter's interface and nothing inside: seconds to none to make and run.

The upper half of the image is road; the lower half is a vehicle where the red channel is above 127.
Its kernels count the frames since the start of the stream. There is one for each task.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from video_knet_core.engine.model_file import METADATA_KEY, pack, size_key

HEIGHT, WIDTH, SLOTS, CHANNELS = 64, 96, 3, 4
WIDE = 32, 160
"""The second native size of `write_two_sizes`."""
CLASSES = [
    {"name": "road", "is_thing": False, "color": [128, 64, 128]},
    {"name": "vehicle", "is_thing": True, "color": [0, 0, 142]},
]
INPUTS = [
    ("image", TensorProto.UINT8, [HEIGHT, WIDTH, 3]),
    ("previous_kernels", TensorProto.FLOAT, [SLOTS, CHANNELS]),
    ("has_previous", TensorProto.BOOL, [1]),
]
OUTPUTS = [
    ("segment_map", TensorProto.UINT8, [HEIGHT // 2, WIDTH // 2]),
    ("class_ids", TensorProto.INT64, [SLOTS]),
    ("scores", TensorProto.FLOAT, [SLOTS]),
    ("areas", TensorProto.INT64, [SLOTS]),
    ("embeddings", TensorProto.FLOAT, [SLOTS, CHANNELS]),
    ("kernels", TensorProto.FLOAT, [SLOTS, CHANNELS]),
]


MASKS = ("masks", TensorProto.UINT8, [SLOTS, HEIGHT // 2, WIDTH // 2])


@dataclass(frozen=True)
class Task:
    """What makes the model of a task another one than the panoptic."""

    classes: list[dict]
    kernels: dict
    outputs: list[tuple]
    class_ids: tuple[int, ...]
    scores: tuple[float, ...]
    upper: int = HEIGHT // 4
    """Rows of the map that slot 0 has."""
    rest: int = 0
    """In the map where neither slot 0 nor slot 1 is."""


TASKS = {
    "panoptic": Task(CLASSES, {"things": SLOTS - 1}, OUTPUTS, (0, 1, 1), (0.9, 0.8, 0.0)),
    "semantic": Task(
        [{"name": n, "is_thing": False, "color": [9, 9, 9]} for n in ("sky", "sign", "road")],
        {"things": 0, "embedding": False},
        [output for output in OUTPUTS if output[0] != "embeddings"],
        (0, 1, 2),
        (0.9, 0.8, 0.7),
        rest=3,
    ),
    # slot 0 reaches further down, and lies over a part of slot 1
    "instance": Task(
        [{"name": n, "is_thing": True, "color": [9, 9, 9]} for n in ("person", "vehicle")],
        {"things": SLOTS},
        [*OUTPUTS, MASKS],
        (0, 1, 1),
        (0.9, 0.8, 0.0),
        upper=HEIGHT * 3 // 8,
    ),
}


def metadata(task="panoptic", **changes):
    config = {
        "task": task,
        "height": HEIGHT,
        "width": WIDTH,
        "classes": TASKS[task].classes,
        "neck": {"channels": CHANNELS},
        "kernels": TASKS[task].kernels,
    }
    return {"format": 1, "name": "tiny", "config": config, "checkpoint_sha256": "0"} | changes


def write_model(
    path: Path, meta=None, rename=(), step=1.0, task="panoptic", size=(HEIGHT, WIDTH)
) -> Path:
    """Write the model; `rename` = (old, new) name of an output, `step` = what a frame adds."""
    facts, (height, width) = TASKS[task], size
    upper = np.zeros((height // 2, width // 2), bool)
    upper[: facts.upper * height // HEIGHT] = True
    shapes = {"image": [height, width, 3], "segment_map": [height // 2, width // 2]}
    shapes["masks"] = [SLOTS, *shapes["segment_map"]]
    constants = {
        "class_ids": np.array(facts.class_ids),
        "scores": np.array(facts.scores, np.float32),
        "embeddings": np.eye(SLOTS, CHANNELS, dtype=np.float32),
        "upper": upper,
        "upper_mask": upper[None].astype(np.uint8),
        "no_mask": np.zeros((1, *upper.shape), np.uint8),
        "none": np.array(facts.rest, np.uint8),
        "road": np.array(1, np.uint8),
        "vehicle": np.array(2, np.uint8),
        "half": np.array(127, np.int32),
        "step": np.array(step, np.float32),
        "slots": np.arange(1, SLOTS + 1, dtype=np.int64).reshape(-1, 1, 1),
        "first": np.array([0, 0, 0]),
        "end": np.array([height, width, 1]),
        "stride": np.array([2, 2, 1]),
        "axes": np.array([0, 1, 2]),
        "last": np.array([2]),
        "first_axis": np.array([0]),
        "plane": np.array([1, 2]),
    }
    nodes = [
        helper.make_node("Slice", ["image", "first", "end", "axes", "stride"], ["red_3d"]),
        helper.make_node("Squeeze", ["red_3d", "last"], ["red"]),
        helper.make_node("Cast", ["red"], ["red_32"], to=TensorProto.INT32),  # else no old runtime
        helper.make_node("Greater", ["red_32", "half"], ["bright"]),
        helper.make_node("Where", ["bright", "vehicle", "none"], ["lower_half"]),
        helper.make_node("Where", ["upper", "road", "lower_half"], ["segment_map"]),
        *(_whole_masks() if task == "instance" else _masks_of_the_map()),
        helper.make_node("Cast", ["masks"], ["masks_64"], to=TensorProto.INT64),
        helper.make_node("ReduceSum", ["masks_64", "plane"], ["areas"], keepdims=0),
        helper.make_node("Cast", ["has_previous"], ["had"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["previous_kernels", "had"], ["before"]),
        helper.make_node("Add", ["before", "step"], ["kernels"]),
    ]
    new_name = dict([rename]) if rename else {}
    for node in nodes:
        node.output[:] = [new_name.get(name, name) for name in node.output]
    used = {name for node in nodes for name in node.input} | {name for name, *_ in facts.outputs}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(n, t, shapes.get(n, s)) for n, t, s in INPUTS],
        [
            helper.make_tensor_value_info(new_name.get(n, n), t, shapes.get(n, s))
            for n, t, s in facts.outputs
        ],
        [numpy_helper.from_array(constants[name], name) for name in constants if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    if meta is not None:
        helper.set_model_props(model, {"video_knet": meta})
    onnx.save(model, str(path))
    return path


def _masks_of_the_map() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", ["segment_map"], ["map_64"], to=TensorProto.INT64),
        helper.make_node("Equal", ["map_64", "slots"], ["masks"]),
    ]


def _whole_masks() -> list[onnx.NodeProto]:
    """Also where slot 0 is in front of slot 1."""
    return [
        helper.make_node("Cast", ["bright"], ["bright_2d"], to=TensorProto.UINT8),
        helper.make_node("Unsqueeze", ["bright_2d", "first_axis"], ["bright_mask"]),
        helper.make_node("Concat", ["upper_mask", "bright_mask", "no_mask"], ["masks"], axis=0),
    ]


def write_tiny_model(path: Path, task: str = "panoptic") -> Path:
    return write_model(path, json.dumps(metadata(task)), task=task)


def write_two_sizes(path: Path) -> Path:
    """The model for two native sizes, as the exporter writes it."""
    data = metadata()
    data["config"] = data["config"] | {"more_sizes": [WIDE]}
    first = onnx.load(str(write_model(path, json.dumps(data))))
    other = onnx.load(str(write_model(path, size=WIDE)))
    own = {tensor.name: tensor for tensor in first.graph.initializer}
    for tensor in other.graph.initializer:
        if tensor == own[tensor.name]:
            tensor.CopyFrom(TensorProto(name=tensor.name))
    packed = pack(other.SerializeToString())
    helper.set_model_props(first, {METADATA_KEY: json.dumps(data), size_key(WIDE): packed})
    onnx.save(first, str(path))
    return path
