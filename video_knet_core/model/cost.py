"""What a network costs: parameters and operations of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..config import ModelConfig, NetworkConfig
from .checkpoint import AnyNetwork, build_network
from .kernels import PreviousKernels
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


def model_cost(model: AnyNetwork | NetworkConfig, height: int, width: int) -> tuple[PartCost, ...]:
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
    config = model if isinstance(model, NetworkConfig) else model.config
    with FlopCounterMode(display=False) as counter:
        network = step_without_weights(config, height, width)
    root = type(network).__name__  # the counter's paths start with it
    operations = {
        path.removeprefix(root).removeprefix("."): sum(counts.values())
        for path, counts in counter.get_flop_counts().items()
    }
    rows = [
        _cost(part, network.get_submodule(path), path, operations)
        for part, path in _parts(network).items()
    ]
    return (*rows, _cost("total", network, "", operations))


@torch.no_grad()
def step_without_weights(config: NetworkConfig, height: int, width: int) -> AnyNetwork:
    """Run a step in the middle of a video with shapes instead of numbers, for what counts layers.

    Returns:
        The network in eval mode, in which nothing is stored.
    """
    if isinstance(config, ModelConfig):
        kernels = replace(config.kernels, centers=config.kernels.seeds)
        config = replace(config, kernels=kernels)
    with torch.device("meta"):
        network = build_network(config).eval().requires_grad_(False)
        valid = torch.ones(1, dtype=torch.bool)
        previous = PreviousKernels(torch.empty(1, *config.state_shape((height, width))), valid)
        image = torch.empty(3, height, width)
        if isinstance(network, VideoKNet):
            network.auxiliary = None
            network(image[None], previous)
        else:
            network(image, previous)
    return network


def _parts(network: AnyNetwork) -> dict[str, str]:
    """Name of each part that gets a row -> path of its module."""
    if not isinstance(network, VideoKNet):
        return {name.replace("_", " "): name for name, _ in network.named_children()}
    if network.config.neck.name != "semantic_fpn":
        necks, stages = {"neck": "neck"}, {"stages": "stages"}
    else:
        necks = {"neck (feature pyramid)": "neck.pyramid", "neck (towers)": "neck.towers"}
        stages = {f"stage {i}": f"stages.{i}" for i in range(len(network.stages))}
    head = {"kernel head": "head"}
    detail = {} if network.detail is None else {"detail": "detail"}
    return {"backbone": "backbone", **necks, **head, **detail, **stages, "embedding": "embedding"}


def _cost(part: str, module: nn.Module, path: str, operations: Mapping[str, int]) -> PartCost:
    parameters = sum(p.numel() for p in module.parameters())
    return PartCost(part, parameters, _sum(module, path, operations) / 1e9)


def _sum(module: nn.Module, path: str, operations: Mapping[str, int]) -> int:
    """Operations of a module, or of those inside if it is a mere list, which is never called."""
    if path in operations:
        return operations[path]
    children = module.named_children()
    return sum(_sum(child, f"{path}.{name}", operations) for name, child in children)
