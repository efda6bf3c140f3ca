"""What a training run is made of, as read from `config/train/*.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

from ..config import ConfigError, ModelConfig, check_ranges
from ..config_io import load_yaml
from ..data.clip_pairs import TWO_SIDED
from ..data.pairs import CropRange
from ..output_files import expanded

MANY = 1_000_000_000
"""More than anything that is counted here."""
EVALUATION_SEEDS = 1_000_000
"""First street of an evaluation; those below are for training."""


@dataclass(frozen=True)
class ClipConfig:
    """Pairs of frames from a labelled data set; see `docs/data.md` for the names and layouts."""

    dataset: str
    path: str
    """Folder of the data set, relative to the data root."""
    split: str = "train"
    share: float = 1.0
    """Share of all pairs of the run."""
    offsets: tuple[int, ...] = TWO_SIDED
    """Places of the reference frame, counted from the key frame."""
    tracked: bool = False
    """Only pairs with an object that is in both crops, as the authors have it."""
    stills: bool = False
    """Its frames are single pictures: a pair is one of them, moved a little; no offsets then."""
    scale: tuple[float, ...] = CropRange().scale
    """Smallest and largest enlargement of a crop; see `CropRange`."""
    aspect: tuple[float, ...] = CropRange().aspect

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"data.clips: share must be above 0, up to 1, found {self.share}")
        if not self.offsets or not all(0 < abs(offset) <= MANY for offset in self.offsets):
            raise ConfigError(
                f"data.clips: offsets must be numbers other than 0, found {list(self.offsets)}"
            )
        for name in ("scale", "aspect"):
            values = getattr(self, name)
            if len(values) != 2 or not 1e-3 <= values[0] <= values[1] <= 1e3:
                raise ConfigError(
                    f"data.clips: {name} must be two rising numbers in 0.001..1000, "
                    f"found {list(values)}"
                )


@dataclass(frozen=True)
class DataConfig:
    """Sources of training pairs; paths are relative to the data root given on the command line."""

    clips: tuple[ClipConfig, ...] = ()
    """Labelled data sets. What their shares leave is for the two sources below."""
    copy_paste_share: float = 0.65
    """Share of the rest from real stills; what remains comes from the synthetic street."""
    stills: str = "camvid/train"
    sprites: str = "sprites"
    max_sprites: int = 4
    """Most objects pasted into one still ..."""
    crowd: bool = False
    """... in a crowd: recoloured, close together, half of them cut out of the stills."""
    causal: bool = False
    """Of these two sources: the key frame is the later one of a pair, as for a running camera."""
    synthetic_seeds: int = 200
    """Streets 0 .. this - 1 are for training; evaluation uses seeds from 1,000,000 on."""
    street_cache: str = ""
    """Folder of drawn streets, for several runs to share; by default in that of the run."""

    def __post_init__(self) -> None:
        if not 0 <= self.copy_paste_share <= 1:
            raise ConfigError(
                f"data.copy_paste_share must lie in 0..1, found {self.copy_paste_share}"
            )
        ranges = {"max_sprites": (0, 10_000), "synthetic_seeds": (1, EVALUATION_SEEDS)}
        check_ranges(self, "data.", ranges)
        if self.rest < 0:
            shares = [clip.share for clip in self.clips]
            raise ConfigError(f"the shares of data.clips must sum up to at most 1, found {shares}")

    @property
    def rest(self) -> float:
        """Share of all pairs that no clips give."""
        rest = 1 - sum(clip.share for clip in self.clips)
        return 0.0 if abs(rest) < 1e-9 else rest


@dataclass(frozen=True)
class ValidationConfig:
    """What is measured on the way: STQ, in task semantic mIoU, in task instance AP. The model that
    is best at it is kept as best.safetensors."""

    every: int = 0
    """Steps between two validations, 0 = none."""
    dataset: str = "synthetic"
    """The synthetic street, on seeds that neither training nor `eval` uses, or a data set."""
    path: str = ""
    """Folder of the data set, relative to the data root ..."""
    split: str = "val"
    clips: int = 4
    """... and how many of its videos, or how many streets."""
    frames: int = 30
    """At most this many of each."""

    def __post_init__(self) -> None:
        ranges = {"every": (0, MANY), "clips": (1, MANY), "frames": (1, MANY)}
        check_ranges(self, "validation.", ranges)


@dataclass(frozen=True)
class LossWeights:
    """Weights of the authors; `stage_rank` is the image K-Net's (their video configs have 0)."""

    mask: float = 1.0
    dice: float = 4.0
    classification: float = 2.0
    rank: float = 0.1
    stage_rank: float = 0.1
    semantic: float = 1.0
    """Of the head; in task semantic of every stage too ..."""
    auxiliary: float = 0.4
    """... and of the auxiliary head that some necks have there."""
    balance: float = 0.0
    """How far small segments count more in rank and semantic losses: 0 not at all, 1 fully."""
    center: float = 2.0
    """Not in the paper: see `KernelConfig.centers` ..."""
    heat: float = 1.0
    """... and `KernelConfig.seeds`."""
    track: float = 0.25
    track_aux: float = 1.0

    def __post_init__(self) -> None:
        ranges = {field.name: (0.0, 1e6) for field in fields(self)}
        check_ranges(self, "losses.", ranges | {"balance": (0.0, 1.0)})


POSITIVE_SETTINGS = ("steps", "batch", "accumulate", "mask_stride", "rank_stride", "threads")
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys((*POSITIVE_SETTINGS, "checkpoint_every"), (1, MANY)),
    **dict.fromkeys(("workers", "warmup_steps"), (0, MANY)),
    "seed": (0, 2**31 - 1),
    **dict.fromkeys(("learning_rate", "backbone_learning_rate", "weight_decay"), (0, 1000)),
    "clip_norm": (1e-9, 1e9),
    "frozen_groups": (0, 7),
    **dict.fromkeys(("height", "width"), (32, 16384)),
}
"""Of the settings of a run."""
TARGET_RULES = ("share", "touch")
PRECISIONS = ("auto", "bfloat16", "float32")
SCHEDULES = ("cosine", "step")


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Sizes are pixels, learning rates are AdamW's."""

    model: str
    """Model config, relative to this file."""
    steps: int = 5000
    batch: int = 4
    """Pairs (twice as many images) that a process takes at once ..."""
    accumulate: int = 1
    """... and how often before the optimiser steps; its gradients are their mean."""
    video: bool = True
    """Off: single images in place of pairs, and no frame looks back. That is an image K-Net, to
    start from for all tasks at half the cost; layers that look back keep their first values."""
    height: int = 256
    width: int = 352
    mask_stride: int = 4
    """Resolution of the mask losses ..."""
    rank_stride: int = 4
    """... and of matching, rank and semantic losses, which compare all kernels."""
    targets: str = "share"
    """Who owns a cell: the segment with the largest "share", or, as the authors have it, the last
    that "touch"es it; then things without id are one instance, and no cell is ignored in masks."""
    photometric: bool = True
    """Change colour, contrast, blur and noise at random; the authors do not."""
    seed: int = 0
    learning_rate: float = 7e-4
    backbone_learning_rate: float = 2e-4
    weight_decay: float = 0.02
    decay_everything: bool = False
    """Weight decay on norms and biases too, as the authors have it."""
    warmup_steps: int = 200
    schedule: str = "cosine"
    """After the warm-up the rates fall along half a "cosine", or to a tenth at each "step" ..."""
    decay_at: tuple[float, ...] = (0.75, 0.9166)
    """... after these parts of the run."""
    clip_norm: float = 1.0
    average: float = 0.0
    """Share that a step leaves of the moving average of the weights, such as 0.998. Above 0 the
    average is what is validated and kept as the model."""
    precision: str = "auto"
    """"bfloat16" (mixed), "float32", or "auto": bfloat16 on a GPU."""
    frozen_groups: int = 2
    """The stem and this many block groups of the backbone keep the weights that they start with."""
    workers: int = 1
    checkpoint_every: int = 250
    threads: int = 2
    init: str | None = None
    """Checkpoint to start from, relative to this file; otherwise ImageNet weights. One of ours, or
    a `.pth` of the authors' Video K-Net or K-Net or of torchvision's ResNet."""
    losses: LossWeights = field(default_factory=LossWeights)
    data: DataConfig = field(default_factory=DataConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def __post_init__(self) -> None:
        check_ranges(self, "", RANGES)
        for name in ("height", "width"):
            value = getattr(self, name)
            if value % 32 or value % self.mask_stride or value % self.rank_stride:
                raise ConfigError(
                    f"{name} must be a multiple of 32, mask_stride and rank_stride, found {value}"
                )
        words = {"targets": TARGET_RULES, "precision": PRECISIONS, "schedule": SCHEDULES}
        for name, known in words.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} must be one of {known}, found {getattr(self, name)!r}")
        if not 0 <= self.average < 1:
            raise ConfigError(f"average must be 0 or more and below 1, found {self.average}")
        if not all(0 <= part <= 1 for part in self.decay_at):
            raise ConfigError(f"decay_at must be parts of the run, 0..1, found {self.decay_at}")

    def load_model_config(self, config_path: Path) -> ModelConfig:
        """Read the model configuration this run names."""
        return load_yaml(ModelConfig, config_path.parent / expanded(self.model))
