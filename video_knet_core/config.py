"""Configuration of a network; `config_io` reads and writes it.

Defaults are the street model's.
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from typing import Annotated, Literal

from pydantic import Field

from .config_io import Classes, expect, settings_class
from .tasks import TASKS

SEMANTIC_NECKS = ("pyramid_pooling", "atrous_pyramid")
STRIDE = 32
"""Height and width inside the network are multiples of this; other images are padded."""
Side = Annotated[int, Field(ge=32, le=16384)]
"""Pixels."""
Fraction = Annotated[float, Field(ge=0, le=1)]
_Numbers = Annotated[int, Field(ge=1, le=1 << 24)]


DILATED = ("efficientnet", "resnet")
"""Beginnings of the names of backbones that can have an output stride of 8."""
LITE0_BLOCKS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of each group of EfficientNet-Lite0."""


@settings_class
class BackboneConfig:
    """Image to pyramid (strides 4, 8, 16, 32)."""

    name: Literal["efficientnet_lite0", "resnet50", "resnet101", "swin_b"] = "efficientnet_lite0"
    width: Annotated[int, Field(ge=1, le=1024)] = 64
    """Channels of the stem of a ResNet; its stages have 4, 8, 16 and 32 times as many."""
    output_stride: Literal[8, 32] = 32
    """Stride of the coarsest map: with 8 the last two steps down are dilated instead, as PSPNet and
    DeepLab have it. Not for swin_b."""
    deep_stem: bool = False
    """ResNet only: three 3x3 convolutions instead of one 7x7, as PSPNet has it."""
    blocks: tuple[Annotated[int, Field(ge=0, le=16)], ...] = LITE0_BLOCKS
    """EfficientNet-Lite0 only: blocks of each of its seven groups. With fewer, the first ones of a
    group keep their ImageNet weights; 0 only for the last group."""

    def __post_init__(self) -> None:
        if self.blocks != LITE0_BLOCKS:
            expect(self.name == "efficientnet_lite0", "name", "efficientnet_lite0", self.name)
            fewer = len(self.blocks) == len(LITE0_BLOCKS) and all(
                least <= own <= most
                for own, least, most in zip(self.blocks, (1,) * 6 + (0,), LITE0_BLOCKS, strict=True)
            )
            expect(fewer, "blocks", f"1 to {LITE0_BLOCKS}, the last from 0 on", self.blocks)
        if not self.name.startswith(DILATED):
            stride = self.output_stride
            expect(stride == 32, "output_stride", f"32 for {self.name}", stride)
        if self.deep_stem:
            expect(self.name.startswith("resnet"), "name", "a ResNet for deep_stem", self.name)


@settings_class
class NeckConfig:
    """Pyramid to one feature map."""

    name: Literal["lean", "semantic_fpn", "pyramid_pooling", "atrous_pyramid"] = "lean"
    """"lean": separable convolutions; "semantic_fpn": the authors', for backbone.output_stride 32.
    Task semantic only, for output stride 8: "pyramid_pooling", PSPNet's, and "atrous_pyramid",
    DeepLabv3+'s."""
    channels: Annotated[int, Field(ge=4, le=8192, multiple_of=4)] = 128
    stride: Literal[4, 8] = 4
    """Of the feature map, lean neck only. The authors' and PSPNet's have 8, DeepLab's 4."""

    @property
    def map_stride(self) -> int:
        """Stride of the feature map, whatever the neck."""
        return {"lean": self.stride, "atrous_pyramid": 4}.get(self.name, 8)


@settings_class
class KernelConfig:
    """Kernel head, update stages and the three video additions."""

    things: Annotated[int, Field(ge=0, le=254)] = 50
    """Thing kernels; every stuff class has one kernel of its own besides."""
    stages: Annotated[int, Field(ge=0, le=64)] = 3
    """Rounds of updating. In task semantic 0 is possible: the classifier of the head as it is."""
    attention_heads: Annotated[int, Field(ge=1, le=1024)] = 4
    feedforward: Annotated[int, Field(ge=1, le=65536)] = 512
    pooling: Literal["mean", "sum", "softmax"] = "mean"
    """Group features as "mean" over the mask (does not depend on the image size) or "sum"; in task
    semantic also "softmax", a mean weighted by the probability of the class in each pixel."""
    fusion: Literal["none", "link_atten", "update_dynamic_cov"] = "update_dynamic_cov"
    """Kernel Fusion, before the last stage: kernels attend to the previous ones, as they are
    ("link_atten") or updated with this frame's group features first. Changes masks. Or "none"."""
    linking: Literal["none", "ffn", "update", "update_obj"] = "ffn"
    """Kernel Linking, after the last stage: thing kernels attend to the previous ones, as they are
    ("ffn") or updated first, with group features ("update") or with this frame's kernels
    ("update_obj"). Changes embeddings only; in task semantic, which has none, class kernels are
    linked and masks change. Or "none"."""
    position: bool = False
    """Append a position code to the features that kernels are multiplied with: then a kernel is a
    place as well as an appearance, and distant cars side by side are separable."""
    centers: bool = False
    """Train the features to regress the centre of the instance they belong to."""
    seeds: bool = False
    """Start the thing kernels on the image's own instances, at cells that are probably the centre
    of one, instead of learning them. Slot i then is another object in each frame, so fusion must be
    "link_atten" and linking "ffn" (or "none"): the others pair kernels by slot."""
    detail: Annotated[int, Field(ge=0, le=256)] = 0
    """Channels of a map of stride 4 that the last stage refines its masks with, at the boundaries;
    0: its masks are as coarse as the others'. For neck.stride 8."""
    sticky: bool = False
    """An object keeps its slot from frame to frame, and where the image cannot be relied on, its
    mask, class and embedding stay as they were; see `slots.StickySlots`. Needs `seeds`. Not in the
    paper."""
    embedding: bool = True
    """Association embedding; off = raw kernels are the embeddings (the paper's toy experiment)."""


@settings_class
class PanopticConfig:
    """From overlapping masks to one label map."""

    merge: Literal["fast", "reference"] = "fast"
    """"fast": at the mask size, with edges drawn `upsample` times finer; "reference": the
    authors', at the image's size, for task panoptic only."""
    score_threshold: Fraction = 0.3
    """Thing slots below this class score are dropped."""
    overlap_threshold: Fraction = 0.6
    """A thing keeps its segment if it won at least this fraction of its own mask."""
    upsample: Annotated[int, Field(ge=1, le=32)] = 2
    """The label map is this many times finer than the mask logits."""


@settings_class
class NetworkConfig:
    """What any network has that an engine runs, whatever it is made of."""

    classes: Classes
    task: str = "panoptic"
    """Name of one of `tasks.TASKS`. "panoptic": one label per pixel, things tracked. "semantic":
    all classes are stuff, and nothing is tracked. "instance": all classes are things; masks may
    overlap, and pixels of none are background."""
    height: Side = 288
    """Native input size in pixels; other images are resized to it."""
    width: Side = 480
    more_sizes: tuple[tuple[Side, Side], ...] = ()
    """Further native sizes (height, width), of other aspects. One file holds the network for each,
    with the same weights, and a camera gets the one whose aspect is nearest to its images'."""

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """All native sizes (height, width)."""
        return ((self.height, self.width), *self.more_sizes)

    @property
    def learns_depth(self) -> bool:
        """Training needs the depth of frames, which takes longer to render."""
        return False

    def state_shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """[N, S] what goes from frame to frame at a native size (height, width), by slot."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        self._expect_one_of("task", tuple(TASKS))
        self._check_classes()
        aspects = {width / height for height, width in self.sizes}
        expected = f"sizes of other aspects than {self.height} x {self.width} and each other"
        expect(len(aspects) == len(self.sizes), "more_sizes", expected, self.more_sizes)

    def _check_classes(self) -> None:
        """The task can have classes of their kinds."""
        task, classes = TASKS[self.task], self.classes
        for kind, possible, indices in (
            ("thing", task.has_things, classes.things),
            ("stuff", task.has_stuff, classes.stuff),
        ):
            names = [classes[i].name for i in indices]
            expected = f"no {kind} class for task {self.task!r}"
            expect(possible or not names, "classes", expected, names)
        expected = f"a thing class for task {self.task!r}"
        expect(bool(classes.things) or not task.has_things, "classes", expected, "none")

    def _expect_one_of(self, key: str, values: tuple[object, ...], suffix: str = "") -> None:
        """ConfigError unless `key` has one of the values; `suffix` is what they are for."""
        got = attrgetter(key)(self)
        expect(got in values, key, " or ".join(map(repr, values)) + suffix, got)


@settings_class
class ExternalConfig(NetworkConfig):
    """What an exported model holds of a network that is defined elsewhere."""

    network: str = ""
    """Its name, for users."""
    state: tuple[_Numbers, _Numbers] = (1, 1)
    """See `state_shape`."""
    depth: bool = False
    """It also returns the depth of each pixel."""

    def state_shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """See `NetworkConfig.state_shape`; it is that of the only native size."""
        return self.state


@settings_class
class ModelConfig(NetworkConfig):
    """Everything that makes a Video K-Net; stored inside every checkpoint and exported model."""

    backbone: BackboneConfig = dataclasses.field(default_factory=BackboneConfig)
    neck: NeckConfig = dataclasses.field(default_factory=NeckConfig)
    kernels: KernelConfig = dataclasses.field(default_factory=KernelConfig)
    panoptic: PanopticConfig = dataclasses.field(default_factory=PanopticConfig)

    @property
    def slots(self) -> int:
        """All kernels: those of things, then one for each stuff class."""
        return self.kernels.things + len(self.classes.stuff)

    def state_shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """What goes from frame to frame at a native size (height, width): for each slot its kernel,
        if it is sticky also what `slots.StickySlots` remembers."""
        memory = 0
        if self.kernels.sticky:
            rows, columns = self._map_size(size)
            memory = self.neck.channels + len(self.classes) + rows * columns
        return self.slots, self.neck.channels + memory

    def _map_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the feature map of an image."""
        height, width = ((n + -n % STRIDE) // self.neck.map_stride for n in size)
        return height, width

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_sizes()
        self._check_task()
        if self.kernels.sticky:
            self._expect_one_of("kernels.seeds", (True,), " for kernels.sticky")
            self._expect_one_of("more_sizes", ((),), " for kernels.sticky")
        if self.kernels.seeds:
            self._check_seeds()

    def _check_sizes(self) -> None:
        neck, heads = self.neck, self.kernels.attention_heads
        expected = f"a multiple of kernels.attention_heads ({heads})"
        expect(neck.channels % heads == 0, "neck.channels", expected, neck.channels)
        strides = {"semantic_fpn": (32,), "lean": (8, 32)}.get(neck.name, (8,))
        self._expect_one_of("backbone.output_stride", strides, f" for {neck.name}")
        if neck.name == "semantic_fpn":
            expected = "a multiple of 32 for semantic_fpn"
            expect(neck.channels % 32 == 0, "neck.channels", expected, neck.channels)
        coarse = self.neck.map_stride == 8 and self.backbone.output_stride == 32
        expected = "0 unless the neck has stride 8 and the backbone 32"
        expect(coarse or not self.kernels.detail, "kernels.detail", expected, self.kernels.detail)
        expected = "at most 254 with one for each stuff class, for an 8-bit segment map"
        expect(self.slots <= 254, "kernels.things", expected, self.slots)

    def _check_task(self) -> None:
        """The task can have this merge and these kernels."""
        task, suffix = TASKS[self.task], f" for task {self.task!r}"
        self._expect_one_of("panoptic.merge", task.merges, suffix)
        if not task.has_things:
            self._expect_one_of("kernels.things", (0,), suffix)
            for name in ("embedding", "position", "centers", "seeds"):
                self._expect_one_of(f"kernels.{name}", (False,), suffix)
            return
        for name in ("things", "stages"):
            value = getattr(self.kernels, name)
            expect(value >= 1, f"kernels.{name}", f"at least 1{suffix}", value)
        self._expect_one_of("neck.name", ("lean", "semantic_fpn"), suffix)
        self._expect_one_of("kernels.pooling", ("mean", "sum"), suffix)

    def _check_seeds(self) -> None:
        things = self.kernels.things
        for size in self.sizes:
            rows, columns = self._map_size(size)
            expected = f"at most the {rows} x {columns} cells that seeds come from"
            expect(things <= rows * columns, "kernels.things", expected, things)
        self._expect_one_of("kernels.position", (True,), " for kernels.seeds")
        self._expect_one_of("kernels.centers", (True,), " for kernels.seeds")
        self._expect_one_of("kernels.fusion", ("none", "link_atten"), " for kernels.seeds")
        self._expect_one_of("kernels.linking", ("none", "ffn"), " for kernels.seeds")
