"""What a training run is made of, as read from `config/train/*.yaml`."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ..config import Fraction, NetworkConfig, Side
from ..config_io import Text, expect, settings_class
from ..data.clip_pairs import TWO_SIDED
from ..data.pairs import CropRange
from ..output_files import expanded

_MANY = 1_000_000_000
"""More than anything that is counted here."""
EVALUATION_SEEDS = 1_000_000
"""First street of an evaluation; those below are for training."""
TEMPORAL = ("temporal", "memory")
"""Values of `TrainConfig.train` with which only parts that see time learn, and what is by them."""
HELD_OUT = "held_out"
"""Name of a validation on what `ClipConfig.hold_out` keeps from training."""
_Positive = Annotated[int, Field(ge=1, le=_MANY)]
_Count = Annotated[int, Field(ge=0, le=_MANY)]
_Rate = Annotated[float, Field(ge=0, le=1000)]
_Weight = Annotated[float, Field(ge=0, le=1e6)]
_Range = tuple[float, float]


@settings_class
class ClipConfig:
    """Pairs of frames from a labelled data set; docs/reference/data.md has names and layouts."""

    dataset: Text
    path: Text
    """Folder of the data set, relative to the data root."""
    split: Text = "train"
    sampling_weight: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of all pairs of the run."""
    offsets: Annotated[tuple[int, ...], Field(min_length=1)] = TWO_SIDED
    """Places of the reference frame, counted from the key frame."""
    tracked: bool = False
    """Only pairs with an object that is in both crops, as the authors have it."""
    pseudo_video: bool = False
    """Its frames are single images: a pair is one of them, moved a little; no offsets then."""
    exclude: tuple[Text, ...] = ()
    """Frames to leave out, as VIDEO/FRAME."""
    things_only: bool = False
    """Its labels of stuff are unwanted: what has one is stuff of an unknown class."""
    paste: bool = False
    """Objects of `data.sprites` are pasted on top, which are exactly labelled and tracked."""
    hold_out: Annotated[int, Field(ge=0, le=_MANY)] = 0
    """Every n-th video, with `pseudo_video` every n-th image, is not trained on: it is for the
    validation "held_out". 0 = none; see `VideoDataset.hold_out`."""
    scale: _Range = CropRange().scale
    """Smallest and largest enlargement of a crop; see `CropRange`."""
    aspect: _Range = CropRange().aspect

    def __post_init__(self) -> None:
        possible = all(0 < abs(offset) <= _MANY for offset in self.offsets)
        expect(possible, "offsets", "numbers other than 0", self.offsets)
        expect(self.hold_out != 1, "hold_out", "0, or a number from 2 on", self.hold_out)
        for name in ("scale", "aspect"):
            low, high = getattr(self, name)
            expected = "two rising numbers in 0.001..1000"
            expect(1e-3 <= low <= high <= 1e3, name, expected, (low, high))


@settings_class
class DataConfig:
    """Sources of training pairs; paths are relative to the data root given on the command line."""

    clips: tuple[ClipConfig, ...] = ()
    """Labelled data sets. What their weights leave is for the two sources below."""
    copy_paste_weight: Fraction = 0.65
    """Fraction of the rest from real images; what remains comes from the synthetic street."""
    images: Text = "camvid/train"
    sprites: Annotated[tuple[Text, ...], Field(min_length=1)] = ("sprites",)
    """Folders of cut-outs ..."""
    sprite_licenses: tuple[Text, ...] = ()
    """... of which only those with one of these licences are used, and those without an own one:
    `license` in their index. Empty = all."""
    max_sprites: Annotated[int, Field(ge=0, le=10_000)] = 4
    """Maximum number of objects pasted into one image ..."""
    crowd: bool = False
    """... in a crowd: recoloured, close together, half of them cut out of the images."""
    causal: bool = False
    """Of these two sources, and of what is pasted: the key frame is the later one of a pair, as for
    a running camera."""
    synthetic_seeds: Annotated[int, Field(ge=1, le=EVALUATION_SEEDS)] = 200
    """Streets 0 .. this - 1 are for training; evaluation uses seeds from 1,000,000 on."""
    street_cache: Text = ""
    """Folder of drawn streets, for several runs; by default in that of the run."""

    def __post_init__(self) -> None:
        weights = [clip.sampling_weight for clip in self.clips]
        expect(self.rest >= 0, "clips", "sampling weights of at most 1 in sum", weights)

    @property
    def rest(self) -> float:
        """Fraction of all pairs that no clips give."""
        rest = 1 - sum(clip.sampling_weight for clip in self.clips)
        return 0.0 if abs(rest) < 1e-9 else rest


@settings_class
class ValidationConfig:
    """What is measured on the way: STQ, in task semantic mIoU, in task instance AP. The model that
    is best at it is kept as best.safetensors."""

    every: _Count = 0
    """Steps between two validations, 0 = none."""
    dataset: Text = "synthetic"
    """The synthetic street, on seeds that neither training nor `eval` uses, or a data set, or
    "held_out": what `hold_out` of `data.clips` keeps from training."""
    path: Text = ""
    """Folder of the data set, relative to the data root ..."""
    split: Text = "val"
    exclude: tuple[Text, ...] = ()
    """Frames to leave out, as VIDEO/FRAME."""
    pseudo_video: bool = False
    """Its frames are single images: each is a clip of its own."""
    clips: _Positive = 4
    """... and how many of its videos, or how many streets."""
    frames: _Positive = 30
    """At most this many of each."""


@settings_class
class LossWeights:
    """Weights of the authors; `stage_rank` is the image K-Net's (their video configs have 0)."""

    mask: _Weight = 1.0
    dice: _Weight = 4.0
    classification: _Weight = 2.0
    rank: _Weight = 0.1
    stage_rank: _Weight = 0.1
    semantic: _Weight = 1.0
    """Of the head; in task semantic of every stage too ..."""
    auxiliary: _Weight = 0.4
    """... and of the auxiliary head that some necks have there."""
    balance: Fraction = 0.0
    """How far small segments count more in rank and semantic losses: 0 not at all, 1 fully."""
    center: _Weight = 2.0
    """Not in the paper: see `KernelConfig.centers` ..."""
    heat: _Weight = 1.0
    """... and `KernelConfig.seeds`."""
    track: _Weight = 0.25
    track_aux: _Weight = 1.0


@settings_class
class TrainConfig:
    """One training run. Sizes are pixels, learning rates are AdamW's."""

    model: Text
    """Model config, relative to this file."""
    steps: _Positive = 5000
    batch: _Positive = 4
    """Pairs (twice as many images) or clips that a process takes at once ..."""
    accumulate: _Positive = 1
    """... and how often before the optimiser steps; its gradients are their mean."""
    video: bool = True
    """Off: single images in place of pairs, without temporal context. That is an image K-Net, to
    start from for all tasks at half the cost; temporal modules keep their first values."""
    frames: Annotated[int, Field(ge=2, le=64)] = 2
    """Frames of a training clip. With more than a pair, kernels are carried from frame to frame as
    on a camera, and gradients flow back through the whole clip."""
    train: Literal["all", "decoder", "temporal", "memory"] = "all"
    """Of "decoder" all but the backbone learns. Of "temporal" the last stage with all that sees
    time and the association embedding learn, of "memory" only fusion, linking, sticky slots and
    that embedding, so that a first frame is segmented as before. The rest keeps its weights, and
    with these two what comes before the last stage has no losses."""
    cached_clips: _Count = 0
    """Unless train is "all", this many clips are drawn and encoded once, and every step takes some
    of them: a step then costs a quarter. 0: new clips in each step."""
    memory_drop: Fraction = 0.0
    """Probability that a frame has no temporal context though there is a frame before it."""
    spoilt: Fraction = 0.0
    """Probability that a frame, except the one without temporal context, is spoilt or has an object
    covered (`spoilt_pair`). Its labels stay: what it does not show must come from those before."""
    height: Side = 256
    width: Side = 352
    more_sizes: tuple[tuple[Side, Side], ...] = ()
    """Further (height, width): each batch has the next size in turn."""
    mask_stride: _Positive = 4
    """Resolution of the mask losses ..."""
    rank_stride: _Positive = 4
    """... and of matching, rank and semantic losses, which compare all kernels."""
    targets: Literal["coverage", "touch"] = "coverage"
    """Who owns a cell: the segment with the largest "coverage" of it, or, as the authors have it,
    the last that "touch"es it; then things without id are one instance, and no cell is ignored."""
    photometric: bool = True
    """Change colour, contrast, blur and noise at random; the authors do not."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    learning_rate: _Rate = 7e-4
    backbone_learning_rate: _Rate = 2e-4
    weight_decay: _Rate = 0.02
    decay_norms_and_biases: bool = False
    """Weight decay on norms and biases too, as the authors have it."""
    warmup_steps: _Count = 200
    schedule: Literal["cosine", "step"] = "cosine"
    """After the warm-up the rates fall along half a "cosine", or to a tenth at each "step" ..."""
    milestones: tuple[Fraction, ...] = (0.75, 0.9166)
    """... after these parts of the run."""
    clip_norm: Annotated[float, Field(ge=1e-9, le=1e9)] = 1.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the moving average of the weights (EMA), such as 0.998. Above 0 the
    average is what is validated and kept as the model."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """"bfloat16" (mixed), "float32", or "auto": bfloat16 on a GPU."""
    frozen_groups: Annotated[int, Field(ge=0, le=7)] = 2
    """The stem and this many block groups of the backbone keep the weights that they start with."""
    workers: _Count = 1
    checkpoint_every: _Positive = 250
    threads: _Positive = 2
    init: Text | None = None
    """Checkpoint to start from, relative to this file; otherwise ImageNet weights. One of ours, or
    a `.pth` of the authors' Video K-Net or K-Net or of torchvision's ResNet."""
    init_part: Literal["all", "backbone"] = "all"
    """What is taken of `init`: with "backbone" that may be a network of another kind."""
    losses: LossWeights = field(default_factory=LossWeights)
    data: DataConfig = field(default_factory=DataConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    @property
    def sides(self) -> int:
        """Frames of a sample."""
        return self.frames if self.video else 1

    def __post_init__(self) -> None:
        temporal = {"cached_clips", "train"} if self.train != "decoder" else set()
        for name in ("frames", "memory_drop", "spoilt", *sorted(temporal)):
            value, default = getattr(self, name), getattr(TrainConfig, name)
            expect(self.video or value == default, name, f"{default!r} without video", value)
        has_init = self.init is not None or self.init_part == "all"
        expect(has_init, "init", f"a checkpoint for init_part {self.init_part!r}", self.init)
        cacheable = self.train != "all" and not self.more_sizes
        expected = "0 with train 'all', and where there are more_sizes"
        expect(cacheable or not self.cached_clips, "cached_clips", expected, self.cached_clips)
        sides = {"height": (self.height,), "width": (self.width,)}
        for name, values in (sides | {"more_sizes": sum(self.more_sizes, ())}).items():
            for value in values:
                whole = not (value % 32 or value % self.mask_stride or value % self.rank_stride)
                expect(whole, name, "a multiple of 32, mask_stride and rank_stride", value)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of the batches, in turn."""
        return ((self.height, self.width), *self.more_sizes)

    def load_model_config(self, config_path: Path) -> NetworkConfig:
        """Read the model configuration this run names."""
        from ..model.checkpoint import load_network_config  # settings are read without torch too

        return load_network_config(config_path.parent / expanded(self.model))
