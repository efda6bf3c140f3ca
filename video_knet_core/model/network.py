"""What all networks have: a backbone, and the networks of other packages by name.

A package adds a network to training, evaluation and export with an entry point of the group
`video_knet_core.networks` that names a subclass of `ExternalNetwork`; `network: NAME` in a
configuration selects it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..config import STRIDE, BackboneConfig, NetworkConfig
from ..config_io import ConfigError, expect
from ..installation import plugins
from .backbone import build_backbone
from .kernels import PreviousKernels

ENTRY_POINTS = "video_knet_core.networks"


class Frames(NamedTuple):
    """Images, and what the backbone makes of them."""

    images: Tensor
    """[F,3,H,W] RGB 0..255."""
    pyramid: tuple[Tensor, ...]
    """[F,Ci,H/s,W/s] of the padded images, see `model/backbone.py`."""


class Network(nn.Module):
    """A backbone and the statistics of its input; subclasses add what comes after it."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: BackboneConfig) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone)
        self.register_buffer("mean", torch.tensor(self.backbone.mean), persistent=False)
        self.register_buffer("std", torch.tensor(self.backbone.std), persistent=False)

    @property
    def map_dtype(self) -> torch.dtype:
        """What the backbone and all other maps are computed in; see `precision`."""
        return next(self.backbone.parameters()).dtype

    def normalized(self, images: Tensor) -> Tensor:
        """[F,3,H,W] RGB 0..255 -> the input of the backbone, padded on the right and at the bottom
        to multiples of 32."""
        below, right = (-size % STRIDE for size in images.shape[-2:])
        scaled = (images - self.mean[:, None, None]) / self.std[:, None, None]
        return pad(scaled.to(self.map_dtype), (0, right, 0, below))

    def frames(self, images: Tensor) -> Frames:
        """[F,3,H,W] RGB 0..255 through the backbone."""
        return Frames(images, tuple(self.backbone(self.normalized(images))))


class ExternalNetwork(Network, ABC):
    """A network of another package. Its state goes in and comes out, as that of `VideoKNet`."""

    Config: ClassVar[type[NetworkConfig]]
    """Its settings; the constructor takes one of them."""
    config: NetworkConfig
    balance: float = 0.0
    """`LossWeights.balance` of the run that trains it, for semantic losses that have none."""

    def forward(self, pixels: Tensor, previous: PreviousKernels | None) -> dict[str, Tensor]:
        """See `segment_frame`."""
        return self.segment_frame(pixels, previous)

    @abstractmethod
    def segment_frame(self, pixels: Tensor, previous: PreviousKernels | None) -> dict[str, Tensor]:
        """One step, of operations that every engine has: see `model/merge.py`.

        Args:
            pixels: [3,H,W] RGB 0..255, of a native size.
            previous: kernels [1,N,S], the state of the frame before, and whether there was one;
                None = there was none.

        Returns:
            The outputs of the deploy form (`engine/model_file.py`) by name; "kernels" is the new
            state [N,S], whose first columns are the embeddings.
        """

    @abstractmethod
    def losses(self, frames: Frames, targets: Any, sides: int) -> dict[str, Tensor]:
        """The weighted losses by name of B clips of T frames.

        Args:
            frames: of the B newest frames, then those of each older side.
            targets: `training.targets` of the same frames, in the same order.
            sides: T.
        """


def network_class(name: Any) -> type[ExternalNetwork]:
    """The class of an installed network.

    Raises:
        ConfigError: there is none of that name, or it is no `ExternalNetwork` with a `Config`.
    """
    found = plugins(ENTRY_POINTS)
    if not isinstance(name, str) or name not in found:
        known = sorted(found) or "none, as no package with networks is installed"
        raise ConfigError(f"network: expected one of {known}, got {name!r}")
    loaded: type[ExternalNetwork] = found[name].load()
    is_network = isinstance(loaded, type) and issubclass(loaded, ExternalNetwork)
    expect(is_network, f"network {name}", "a subclass of ExternalNetwork", loaded)
    config = getattr(loaded, "Config", None)
    complete = (
        isinstance(config, type)
        and issubclass(config, NetworkConfig)
        and config.state_shape is not NetworkConfig.state_shape
        and any(field.name == "network" for field in fields(config))
    )
    expected = "a settings_class of NetworkConfig with the field network, and with state_shape"
    expect(complete, f"network {name}: Config", expected, config)
    return loaded


def network_name(data: Any) -> Any:
    """What the plain data of a configuration name as their network; None is Video K-Net."""
    return data.get("network") if isinstance(data, Mapping) else None
