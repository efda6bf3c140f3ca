"""Configuration: frozen dataclasses; `config_io` reads and writes them.

Defaults are the street model's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from .tasks import TASKS, Task
from .types import ClassTable

STRIDE = 32
"""Height and width inside the network are multiples of this; other images are padded."""
BACKBONES = ("efficientnet_lite0", "resnet50", "resnet101", "swin_b")
NECKS = ("lean", "semantic_fpn", "pyramid_pooling", "atrous_pyramid")
SEMANTIC_NECKS = ("pyramid_pooling", "atrous_pyramid")
POOLINGS = ("mean", "sum", "softmax")
FUSIONS = ("none", "link_atten", "update_dynamic_cov")
LINKINGS = ("none", "ffn", "update", "update_obj")
ASSOCIATIONS = (
    *("embedding", "quasi_dense"),
    *("kernels", "iou", "sort", "mask_propagation", "appearance"),
)


class ConfigError(ValueError):
    """An unusable configuration; the message names the key, what is expected and what it got."""


def check_ranges(config: object, where: str, ranges: Mapping[str, tuple[float, float]]) -> None:
    """ConfigError unless each field lies in its range, both ends included; NaN lies in none."""
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if not low <= value <= high:
            raise ConfigError(
                f"{where}{name}: expected {low:.10g}..{high:.10g}, got {short(value)}"
            )


def short(value: object) -> str:
    """A value of any kind and size, for a message."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:96]} ..."


@dataclass(frozen=True)
class BackboneConfig:
    """Image to pyramid (strides 4, 8, 16, 32)."""

    name: str = "efficientnet_lite0"
    """One of `BACKBONES`."""
    width: int = 64
    """Channels of the stem of a ResNet; its stages have 4, 8, 16 and 32 times as many."""
    output_stride: int = 32
    """Stride of the coarsest map, 8 or 32: with 8 the last two steps down are dilated instead, as
    PSPNet and DeepLab have it. Not for swin_b."""
    deep_stem: bool = False
    """ResNet only: three 3x3 convolutions instead of one 7x7, as PSPNet has it."""

    def __post_init__(self) -> None:
        check_ranges(self, "backbone.", {"width": (1, 1024)})
        if self.output_stride not in (8, 32):
            raise ConfigError(f"backbone.output_stride must be 8 or 32, found {self.output_stride}")
        if self.output_stride != 32 and self.name == "swin_b":
            raise ConfigError("backbone.output_stride must be 32 for swin_b, found 8")
        if self.deep_stem and not self.name.startswith("resnet"):
            raise ConfigError(f"backbone.deep_stem is for ResNets, found {self.name!r}")


@dataclass(frozen=True)
class NeckConfig:
    """Pyramid to one feature map."""

    name: str = "lean"
    """"lean": separable convolutions; "semantic_fpn": the authors', for backbone.output_stride 32.
    Task semantic only, for output stride 8: "pyramid_pooling", PSPNet's, and "atrous_pyramid",
    DeepLabv3+'s."""
    channels: int = 128
    stride: int = 4
    """Of the feature map, lean neck only: 4 or 8. The authors' and PSPNet's have 8, DeepLab's 4."""

    @property
    def map_stride(self) -> int:
        """Stride of the feature map, whatever the neck."""
        return {"lean": self.stride, "atrous_pyramid": 4}.get(self.name, 8)

    def __post_init__(self) -> None:
        check_ranges(self, "neck.", {"channels": (1, 8192)})
        if self.stride not in (4, 8):
            raise ConfigError(f"neck.stride must be 4 or 8, found {self.stride}")


@dataclass(frozen=True)
class KernelConfig:
    """Kernel head, update stages and the three video additions."""

    things: int = 50
    """Thing kernels; every stuff class has one kernel of its own besides."""
    stages: int = 3
    """Rounds of updating. In task semantic 0 is possible: the classifier of the head as it is."""
    attention_heads: int = 4
    feedforward: int = 512
    pooling: str = "mean"
    """Group features as "mean" over the mask (does not depend on the image size) or "sum"; in task
    semantic also "softmax", a mean weighted by the probability of the class in each pixel."""
    fusion: str = "update_dynamic_cov"
    """Kernel Fusion, before the last stage: kernels attend to the previous ones, as they are
    ("link_atten") or updated with this frame's group features first. Changes masks. Or "none"."""
    linking: str = "ffn"
    """Kernel Linking, after the last stage: thing kernels attend to the previous ones, as they are
    ("ffn") or updated first, with group features ("update") or with this frame's kernels
    ("update_obj"). Changes embeddings only; in task semantic, which has none, class kernels are
    linked and masks change. Or "none"."""
    position: bool = False
    """Append a position code to the features that kernels are multiplied with: then a kernel is a
    place as well as a look, and far cars side by side are easy to part."""
    centers: bool = False
    """Train the features to tell the centre of the instance they are of."""
    seeds: bool = False
    """Start the thing kernels on the image's own instances, at cells that look like the centre of
    one, instead of learning them. Slot i then is another object in each frame, so fusion must be
    "link_atten" and linking "ffn" (or "none"): the others pair kernels by slot."""
    embedding: bool = True
    """Association embedding; off = raw kernels are the embeddings (the paper's toy experiment)."""

    def __post_init__(self) -> None:
        ranges = {"things": (0, 254), "stages": (0, 64), "feedforward": (1, 65536)}
        check_ranges(self, "kernels.", {**ranges, "attention_heads": (1, 1024)})


@dataclass(frozen=True)
class PanopticConfig:
    """From overlapping masks to one label map."""

    merge: str = "fast"
    """"fast": at `upsample` times the mask size; "reference": the authors', at the image's size,
    for task panoptic only."""
    score_threshold: float = 0.3
    """Thing slots below this class score are dropped."""
    overlap_threshold: float = 0.6
    """A thing keeps its segment if it won at least this share of its own mask."""
    upsample: int = 2
    """The label map is this many times finer than the mask logits."""

    def __post_init__(self) -> None:
        ranges = {"score_threshold": (0, 1), "overlap_threshold": (0, 1), "upsample": (1, 32)}
        check_ranges(self, "panoptic.", ranges)


@dataclass(frozen=True)
class ModelConfig:
    """Everything that makes a network; stored inside every checkpoint and exported model."""

    classes: ClassTable
    task: str = "panoptic"
    """One of `tasks.TASKS`. "panoptic": one label per pixel, things tracked. "semantic": all
    classes are stuff, and nothing is tracked. "instance": all classes are things; masks may
    overlap, and pixels of none are background."""
    height: int = 288
    """Native input size in pixels; other images are resized to it."""
    width: int = 480
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    neck: NeckConfig = field(default_factory=NeckConfig)
    kernels: KernelConfig = field(default_factory=KernelConfig)
    panoptic: PanopticConfig = field(default_factory=PanopticConfig)

    @property
    def slots(self) -> int:
        """All kernels: those of things, then one for each stuff class."""
        return self.kernels.things + len(self.classes.stuff)

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_numbers()
        self._check_task()
        if self.kernels.seeds:
            self._check_seeds()

    def _check_choices(self) -> None:
        choices = {
            "task": (self.task, tuple(TASKS)),
            "backbone.name": (self.backbone.name, BACKBONES),
            "neck.name": (self.neck.name, NECKS),
            "kernels.pooling": (self.kernels.pooling, POOLINGS),
            "kernels.fusion": (self.kernels.fusion, FUSIONS),
            "kernels.linking": (self.kernels.linking, LINKINGS),
            "panoptic.merge": (self.panoptic.merge, ("fast", "reference")),
        }
        for name, (found, known) in choices.items():
            if found not in known:
                raise ConfigError(f"{name} must be one of {list(known)}, found {found!r}")

    def _check_numbers(self) -> None:
        kernels, channels = self.kernels, self.neck.channels
        check_ranges(self, "", {"height": (32, 16384), "width": (32, 16384)})
        if TASKS[self.task].has_things:
            check_ranges(kernels, "kernels.", {"things": (1, 254), "stages": (1, 64)})
        if channels % 4 or channels % kernels.attention_heads:
            raise ConfigError(
                f"neck.channels must be a multiple of 4 and of kernels.attention_heads "
                f"({kernels.attention_heads}), found {channels}"
            )
        strides = {"semantic_fpn": (32,), "lean": (8, 32)}.get(self.neck.name, (8,))
        if self.backbone.output_stride not in strides:
            raise ConfigError(
                f"backbone.output_stride must be {' or '.join(map(str, strides))} for "
                f"{self.neck.name}, found {self.backbone.output_stride}"
            )
        if self.neck.name == "semantic_fpn" and channels % 32:
            raise ConfigError(
                f"neck.channels must be a multiple of 32 for semantic_fpn, found {channels}"
            )
        if self.slots > 254:
            raise ConfigError(f"at most 254 kernels fit an 8-bit segment map, found {self.slots}")

    def _check_task(self) -> None:
        """Classes, merge and settings are possible in the task."""
        task, kernels = TASKS[self.task], self.kernels
        self._check_classes(task)
        if self.panoptic.merge not in task.merges:
            raise ConfigError(
                f"panoptic.merge {self.panoptic.merge!r} is for task 'panoptic', "
                f"found task {self.task!r}"
            )
        if not task.has_things:
            wanted: dict[str, object] = {"things": 0}
            wanted |= dict.fromkeys(("embedding", "position", "centers", "seeds"), False)
            for name, value in wanted.items():
                if getattr(kernels, name) != value:
                    raise ConfigError(
                        f"task {self.task!r} needs kernels.{name} {value}, "
                        f"found {getattr(kernels, name)}"
                    )
            return
        for name, found, wrong in (
            ("neck.name", self.neck.name, SEMANTIC_NECKS),
            ("kernels.pooling", kernels.pooling, ("softmax",)),
        ):
            if found in wrong:
                raise ConfigError(f"{name} {found!r} is for task 'semantic' only")

    def _check_classes(self, task: Task) -> None:
        classes = self.classes
        if task.has_things and not classes.things:
            raise ConfigError(f"task {task.name!r} needs a thing class, found none")
        for kind, possible, indices in (
            ("things", task.has_things, classes.things),
            ("stuff", task.has_stuff, classes.stuff),
        ):
            if indices and not possible:
                names = [classes[i].name for i in indices]
                raise ConfigError(f"task {task.name!r} has no {kind}, found the classes {names}")

    def _check_seeds(self) -> None:
        stride = self.neck.map_stride
        rows, columns = ((n + -n % STRIDE) // stride for n in (self.height, self.width))
        if self.kernels.things > rows * columns:
            raise ConfigError(
                f"kernels.things must be at most the {rows} x {columns} cells that seeds come "
                f"from, found {self.kernels.things}"
            )
        for name, wanted in {
            "position": (True,),
            "centers": (True,),
            "fusion": ("none", "link_atten"),
            "linking": ("none", "ffn"),
        }.items():
            found = getattr(self.kernels, name)
            if found not in wanted:
                options = " or ".join(map(repr, wanted))
                raise ConfigError(f"kernels.seeds needs kernels.{name} {options}, found {found!r}")


@dataclass(frozen=True)
class TrackingConfig:
    """Life of an id. Times are seconds, so that they hold at any frame rate."""

    association: str = "embedding"
    """What tells a track again, one of `ASSOCIATIONS`.

    "embedding": our tracker. "quasi_dense": the authors', with its own constants; of the other
    settings it knows only positional_ids and reset_gap_s. To compare with, in our tracker but with
    constants of their own in place of match_threshold, overlap_weight and embedding_momentum:
    "kernels" (raw kernels), "iou" (the last mask), "sort" (boxes where a Kalman filter expects
    them), "mask_propagation" (masks carried by optical flow) and "appearance" (features of an
    ImageNet network; needs torch)."""
    positional_ids: bool = False
    """Quasi-dense only: give ids to the wrong segments after a duplicate, as the authors do."""
    match_threshold: float = 0.5
    """Least cosine of the embeddings of a match, 0..1."""
    overlap_weight: float = 0.5
    """Weight of box overlap in the order of possible matches; 0 = by embeddings alone."""
    birth_score: float = 0.3
    """Least class score of a segment that starts a track."""
    confirm_frames: int = 2
    """Frames with pixels before a tentative track is confirmed."""
    max_coast_s: float = 2.0
    """A confirmed track without pixels is remembered this long."""
    max_tentative_coast_s: float = 0.2
    embedding_momentum: float = 0.8
    """Weight of the new embedding in the memory of a track."""
    reset_gap_s: float = 5.0
    """A longer gap between stamps resets the tracker, as does a step back by over half a second."""

    def __post_init__(self) -> None:
        if self.association not in ASSOCIATIONS:
            raise ConfigError(
                f"association must be one of {list(ASSOCIATIONS)}, found {self.association!r}"
            )
        fractions = ("match_threshold", "birth_score", "embedding_momentum")
        check_ranges(self, "", {name: (0, 1) for name in fractions})
        if self.confirm_frames < 1:
            raise ConfigError(f"confirm_frames must be at least 1, found {self.confirm_frames}")
        for name in ("overlap_weight", "max_coast_s", "max_tentative_coast_s", "reset_gap_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be 0 or more, found {getattr(self, name)}")
