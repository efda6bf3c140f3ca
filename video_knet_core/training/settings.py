"""What a training run is made of, as read from `config/train/*.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..config import ConfigError, ModelConfig, load_yaml
from ..data.camvid import CamVid
from ..data.copy_paste import CopyPaste, load_sprites
from ..data.pairs import PairSource
from ..data.street_pairs import StreetPairs
from .criterion import LossWeights
from .targets import TARGET_RULES


@dataclass(frozen=True)
class DataConfig:
    """Sources of training pairs; paths are relative to the data root given on the command line."""

    copy_paste_share: float = 0.65
    """Share of pairs from real stills; the others come from the synthetic street."""
    stills: str = "camvid/train"
    sprites: str = "sprites"
    synthetic_seeds: int = 200
    """Streets 0 .. this - 1 are for training; evaluation uses seeds from 1,000,000 on."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Sizes are pixels, learning rates are AdamW's."""

    model: str
    """Model config, relative to this file."""
    steps: int = 5000
    batch: int = 4
    """Pairs per step (twice as many images)."""
    height: int = 256
    width: int = 352
    mask_stride: int = 4
    """Resolution of the mask losses."""
    targets: str = "share"
    """Who owns a cell: the segment with the largest "share", or, as the authors have it, the last
    that "touch"es it; then things without id are one instance, and no cell is ignored in masks."""
    seed: int = 0
    learning_rate: float = 7e-4
    backbone_learning_rate: float = 2e-4
    weight_decay: float = 0.02
    warmup_steps: int = 200
    clip_norm: float = 1.0
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

    def __post_init__(self) -> None:
        least = dict.fromkeys(("steps", "batch", "mask_stride", "checkpoint_every", "threads"), 1)
        for name, value in (least | {"workers": 0, "warmup_steps": 0, "seed": 0}).items():
            if getattr(self, name) < value:
                raise ConfigError(f"{name} must be at least {value}, found {getattr(self, name)}")
        for name in ("height", "width"):
            value = getattr(self, name)
            if value < 32 or value % 32 or value % self.mask_stride:
                raise ConfigError(
                    f"{name} must be a multiple of 32 and of mask_stride, found {value}"
                )
        if self.targets not in TARGET_RULES:
            raise ConfigError(f"targets must be one of {TARGET_RULES}, found {self.targets!r}")
        if not 0 <= self.frozen_groups <= 7:
            raise ConfigError(f"frozen_groups must be 0..7, found {self.frozen_groups}")

    def load_model_config(self, config_path: Path) -> ModelConfig:
        """Read the model configuration this run names."""
        return load_yaml(ModelConfig, config_path.parent / self.model)


def open_sources(
    config: DataConfig, model: ModelConfig, data_root: Path | None, cache: Path
) -> list[tuple[float, PairSource]]:
    """The pair sources with their shares; drawn streets are kept in the folder `cache`.

    Raises:
        ConfigError: real data is asked for and no data root is given, or the share is no share.
    """
    sources: list[tuple[float, PairSource]] = []
    share = config.copy_paste_share
    if not 0 <= share <= 1:
        raise ConfigError(f"data.copy_paste_share must lie in 0..1, found {share}")
    if share > 0:
        if data_root is None:
            raise ConfigError(f"data.copy_paste_share is {share}: a data root is needed (--data)")
        stills = CamVid(data_root / config.stills)
        sprites = load_sprites(data_root / config.sprites, model.classes)
        sources.append((share, CopyPaste(stills, sprites, model.classes.things)))
    if share < 1:
        sources.append((1 - share, StreetPairs(config.synthetic_seeds, cache)))
    return sources
