"""Settings of the networks of this package; without torch, for robots."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from video_knet_core.config import STRIDE, BackboneConfig, Fraction, NetworkConfig
from video_knet_core.config_io import expect, settings_class

MAP_STRIDE = 4
"""Of the maps that all networks predict."""
TCB_MEMORY = 3
"""Past frames whose context a frame of tcb sees."""
TCB_CELLS = 1 + 4 + 9 + 36
"""Pooled cells of a frame in tcb."""
FLOW_CHANNELS = 32
"""Of the features by which vpsnet finds flow."""


@settings_class
class BaselineConfig(NetworkConfig):
    """Everything that makes one of the networks; stored inside its checkpoints."""

    network: Literal["panoptic_deeplab", "motion_deeplab", "vip_deeplab", "vpsnet", "tcb"] = (
        "panoptic_deeplab"
    )
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    channels: Annotated[int, Field(ge=8, le=1024, multiple_of=8)] = 64
    """Of the decoder; see the network for what else it sets."""
    instances: Annotated[int, Field(ge=0, le=254)] = 40
    """Maximum number of things in a frame; 0 in task semantic."""
    upsample: Annotated[int, Field(ge=1, le=32)] = 2
    """The label map is this many times finer than stride 4."""
    score_threshold: Fraction = 0.3
    """Things below this score are dropped."""
    depth: bool = False
    """Estimate depth; for vip_deeplab."""

    @property
    def slots(self) -> int:
        """Things, then a slot for each stuff class."""
        return self.instances + len(self.classes.stuff)

    @property
    def embedding_size(self) -> int:
        """Columns of the embeddings of things; see the network for what they hold."""
        if self.task == "semantic":
            return 0
        sizes = {"motion_deeplab": 4, "vip_deeplab": self.instances, "vpsnet": self.channels}
        return sizes.get(self.network, 2)

    @property
    def learns_depth(self) -> bool:
        """See `NetworkConfig.learns_depth`."""
        return self.depth

    def memory_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what goes from frame to frame, by name, without the batch dimension."""
        if self.network == "tcb":
            shape = (TCB_MEMORY, TCB_CELLS, coarsest_channels(self.backbone))
            return {"cells": shape, "valid": (TCB_MEMORY,)}
        if self.network == "vpsnet":
            fine, coarse = ((self.height // s, self.width // s) for s in (MAP_STRIDE, 8))
            return {"features": (self.channels, *fine), "flow": (FLOW_CHANNELS, *coarse)}
        if self.network == "vip_deeplab":
            stride = self.backbone.output_stride
            coarsest = coarsest_channels(self.backbone), self.height // stride, self.width // stride
            return {"features": coarsest, "centers": (self.instances, 3)}
        if self.network == "motion_deeplab":
            cells = (self.height // MAP_STRIDE, self.width // MAP_STRIDE)
            return {"image": (3, self.height, self.width), "heat": (1, *cells)}
        return {}

    def state_shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """See `NetworkConfig.state_shape`: the embeddings, then the memory, cut into rows."""
        numbers = sum(math.prod(shape) for shape in self.memory_shapes().values())
        return self.slots, max(1, self.embedding_size + -(-numbers // self.slots))

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("height", "width"):
            value = getattr(self, name)
            expect(value % STRIDE == 0, name, f"a multiple of {STRIDE}", value)
        self._expect_one_of("more_sizes", ((),))
        tasks = ("semantic",) if self.network == "tcb" else ("panoptic",)
        self._expect_one_of("task", tasks, f" for network {self.network!r}")
        things = self.instances > 0
        expected = "at least 1, or 0 in task semantic"
        expect(things == (self.task != "semantic"), "instances", expected, self.instances)
        expect(self.slots <= 254, "instances", "at most 254 with the stuff classes", self.slots)
        self._expect_one_of("depth", (False, self.network == "vip_deeplab"))


def coarsest_channels(backbone: BackboneConfig) -> int:
    """Channels of the last map of a pyramid, as `model/backbone.py` makes it."""
    if backbone.name == "efficientnet_lite0":
        return 320 if backbone.blocks[-1] else 192
    return 1024 if backbone.name == "swin_b" else 32 * backbone.width
