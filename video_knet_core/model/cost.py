"""What a network costs: parameters and operations of its parts, and the memory it must touch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from ..config import ModelConfig
from .kernels import PreviousKernels
from .neck import SemanticFPN
from .video_knet import VideoKNet


@dataclass(frozen=True)
class PartCost:
    """One part of a network, or all of it ("total")."""

    part: str
    parameters: int
    """Numbers that training changes; the running statistics of batch norms are none."""
    gflops: float
    """1e9 floating point operations of one step. Only convolutions and matrix products count, and a
    multiply-add counts as two."""


def model_cost(model: VideoKNet | ModelConfig, height: int, width: int) -> tuple[PartCost, ...]:
    """Cost of one step in the middle of a video, with previous kernels, of one image.

    What only the losses read (the auxiliary head; centres, where no seeds need them) is left out,
    as it is from an exported model.

    Args:
        model: a network, or the configuration of one.
        height, width: image size in pixels; the network pads it to multiples of 32.

    Returns:
        A row per part in the order of the computation, then their total.

    Raises:
        ConfigError: a package that the backbone is made of is missing.
    """
    network = _weightless(model.config if isinstance(model, VideoKNet) else model)
    operations = _operations(network, height, width)
    rows = [
        _cost(part, network.get_submodule(path), path, operations)
        for part, path in _parts(network).items()
    ]
    return (*rows, _cost("total", network, "", operations))


def _weightless(config: ModelConfig) -> VideoKNet:
    """The network in eval mode, with shapes instead of numbers: nothing is computed or stored."""
    kernels = replace(config.kernels, centers=config.kernels.seeds)
    config = replace(config, kernels=kernels)
    with torch.device("meta"):
        network = VideoKNet(config).eval().requires_grad_(False)
    network.auxiliary = None
    return network


@dataclass(frozen=True)
class Layer:
    """One convolution or matrix product."""

    operations: int
    """A multiply-add counts as two."""
    elements: int
    """Numbers that it reads (inputs and weights) or writes."""


def layers(config: ModelConfig, height: int, width: int) -> tuple[Layer, ...]:
    """The layers that one step of `model_cost` runs, in order.

    Whatever lies between them (activations, normalisation, resizing, merge) is left out, as if it
    cost nothing: what a machine needs for the layers is a bound that no engine can go below.
    """
    with _LayerCounter() as counter, torch.no_grad():
        _step(_weightless(config), height, width)
    return tuple(counter.layers)


def roofline_s(
    layers: Iterable[Layer], element_bytes: int, operations_per_s: float, bytes_per_s: float
) -> float:
    """Seconds that the layers need at a minimum there: each is bound by its operations or
    by its memory traffic (Williams et al., Roofline, 2009)."""
    return sum(
        max(layer.operations / operations_per_s, layer.elements * element_bytes / bytes_per_s)
        for layer in layers
    )


class _LayerCounter(TorchDispatchMode):
    """Records every operation that torch can count."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[Layer] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            tensors = [value for value in (*args, result) if isinstance(value, Tensor)]
            operations = count(*args, **(kwargs or {}), out_val=result)
            self.layers.append(Layer(operations, sum(tensor.numel() for tensor in tensors)))
        return result


def _step(network: VideoKNet, height: int, width: int) -> None:
    """One step in the middle of a video."""
    config = network.config
    with torch.device("meta"):
        valid = torch.ones(1, dtype=torch.bool)
        previous = PreviousKernels(torch.empty(1, config.slots, config.neck.channels), valid)
        network(torch.empty(1, 3, height, width), previous)


@torch.no_grad()
def _operations(network: VideoKNet, height: int, width: int) -> dict[str, int]:
    """Floating point operations of one step in each module, by its path; "" is the network."""
    with FlopCounterMode(display=False) as counter:
        _step(network, height, width)
    root = type(network).__name__  # the counter's paths start with it
    return {
        path.removeprefix(root).removeprefix("."): sum(counts.values())
        for path, counts in counter.get_flop_counts().items()
    }


def _parts(network: VideoKNet) -> dict[str, str]:
    """Name of each part that gets a row -> path of its module."""
    if not isinstance(network.neck, SemanticFPN):
        necks, stages = {"neck": "neck"}, {"stages": "stages"}
    else:
        necks = {"neck (feature pyramid)": "neck.pyramid", "neck (towers)": "neck.towers"}
        stages = {f"stage {i}": f"stages.{i}" for i in range(len(network.stages))}
    head = {"kernel head": "head"}
    return {"backbone": "backbone", **necks, **head, **stages, "embedding": "embedding"}


def _cost(part: str, module: nn.Module, path: str, operations: Mapping[str, int]) -> PartCost:
    parameters = sum(p.numel() for p in module.parameters())
    return PartCost(part, parameters, _sum(module, path, operations) / 1e9)


def _sum(module: nn.Module, path: str, operations: Mapping[str, int]) -> int:
    """Operations of a module, or of those inside if it is a mere list, which is never called."""
    if path in operations:
        return operations[path]
    children = module.named_children()
    return sum(_sum(child, f"{path}.{name}", operations) for name, child in children)
