"""Resizing of maps whose channels come last, in an ONNX graph."""

from __future__ import annotations

import onnx
from onnx import numpy_helper

TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


def resize_channels_last(graph: onnx.GraphProto) -> int:
    """Resize [1,h,w,C] as it is where the graph turns it to [1,C,h,w] for that and back.

    Torch can say it no other way. ONNX Runtime's kernel for channels that come last is three times
    as fast as the other, and the two transpositions go too. Returns the number of places changed.
    """
    sizes = {tensor.name: tensor for tensor in graph.initializer}
    changed = 0
    for node in [node for node in graph.node if node.op_type == "Resize"]:
        before = _transpose(graph, TO_FIRST, output=node.input[0])
        after = _transpose(graph, TO_LAST, input=node.output[0])
        if before is None or after is None or len(_readers(graph, node.output[0])) > 1:
            continue
        if len(node.input) < 4 or node.input[3] not in sizes:
            continue
        size = sizes[node.input[3]]
        last = numpy_helper.to_array(size)[TO_LAST]
        graph.initializer.append(numpy_helper.from_array(last, f"{node.output[0]}_size_last"))
        node.input[0], node.input[3] = before.input[0], graph.initializer[-1].name
        node.output[0] = after.output[0]
        graph.node.remove(after)
        if not _readers(graph, before.output[0]):
            graph.node.remove(before)
        if not _readers(graph, size.name):
            graph.initializer.remove(size)
        changed += 1
    return changed


def _readers(graph: onnx.GraphProto, name: str) -> list[object]:
    """The nodes that read a tensor, and the graph's output if it is one."""
    outputs = [output for output in graph.output if output.name == name]
    return [*(node for node in graph.node if name in node.input), *outputs]


def _transpose(
    graph: onnx.GraphProto, order: list[int], input: str | None = None, output: str | None = None
) -> onnx.NodeProto | None:
    """The transposition to this order that reads or makes the named tensor."""
    for node in graph.node:
        found = node.op_type == "Transpose" and [*node.attribute[0].ints] == order
        if found and (input in node.input or output in node.output):
            return node
    return None
