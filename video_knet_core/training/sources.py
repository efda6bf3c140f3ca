"""Where a training run takes its pairs from, as `DataConfig` names them."""

from __future__ import annotations

from pathlib import Path

from synthetic_street.pairs import StreetPairs

from ..config import ModelConfig
from ..config_io import ConfigError
from ..data.camvid import CamVid
from ..data.clip_pairs import ClipPairs, StillPairs
from ..data.copy_paste import CopyPaste
from ..data.datasets import open_dataset
from ..data.pairs import CropRange, KeyFrames, PairSource
from ..data.sprites import load_sprites
from ..data.street_frame import street_ids
from ..data.video import VideoDataset
from ..output_files import expanded
from ..tasks import TASKS
from ..types import first_difference
from .train_config import ClipConfig, DataConfig


def open_sources(
    config: DataConfig,
    model: ModelConfig,
    data_root: Path | None,
    out: Path,
    video: bool = True,
) -> list[tuple[float, PairSource]]:
    """The pair sources with their shares; drawn streets are kept in `street_cache`, or in `out`.

    Args:
        video: as that of `TrainConfig`; without, pairs have their key frame only.

    Raises:
        ConfigError: real data is asked for and no data root is given, or a data set has other
            classes than the model.
        DatasetError: a data set is missing or faulty.
    """
    sources: list[tuple[float, PairSource]] = []
    for clip in config.clips:
        root = data_path(data_root, f"data.clips: {clip.dataset}")
        sources.append((clip.share, _clip_pairs(clip, model, root, video)))
    share = config.rest * config.copy_paste_share
    if share > 0:
        root = data_path(data_root, f"data.copy_paste_share {config.copy_paste_share}")
        pasted = _copy_paste(config, model, root)
        sources.append((share, pasted if video else KeyFrames(pasted)))
    if config.rest > share:
        cache = expanded(config.street_cache) if config.street_cache else out / "streets"
        ids = street_ids(model.classes, "the synthetic street")
        streets = StreetPairs(config.synthetic_seeds, cache, causal=config.causal, ids=ids)
        sources.append((config.rest - share, streets if video else KeyFrames(streets)))
    return sources


def _copy_paste(config: DataConfig, model: ModelConfig, root: Path) -> PairSource:
    ids = street_ids(model.classes, f"data.copy_paste_share {config.copy_paste_share}")
    sprites = load_sprites(root / expanded(config.sprites), model.classes)
    stills = CamVid(root / expanded(config.stills), ids)
    return CopyPaste(
        *(stills, sprites, model.classes.things, config.max_sprites),
        causal=config.causal,
        crowd=config.crowd,
    )


def _clip_pairs(config: ClipConfig, model: ModelConfig, root: Path, video: bool) -> PairSource:
    dataset = open_labelled(
        config.dataset, root / expanded(config.path), config.split, model, "data.clips"
    )
    crop = CropRange((config.scale[0], config.scale[1]), (config.aspect[0], config.aspect[1]))
    if config.stills or not video:
        return StillPairs(dataset, crop, alone=not video)
    return ClipPairs(dataset, config.offsets, crop, config.tracked)


def open_labelled(
    name: str, path: Path, split: str, model: ModelConfig, asked_by: str
) -> VideoDataset:
    """A data set with the classes of the model; ConfigError says who asked if they differ."""
    dataset = open_dataset(name, path, split)
    suited = _suited(dataset)
    if model.task not in suited:
        raise ConfigError(
            f"{asked_by}: {name} has {_kinds(dataset)}, which is for the task "
            f"{' or '.join(suited)}, the model has the task {model.task}"
        )
    if difference := first_difference(model.classes.kinds, dataset.kinds):
        raise ConfigError(
            f"{asked_by}: the classes of {name} are not those of the model: {difference}"
        )
    return dataset


def _suited(dataset: VideoDataset) -> tuple[str, ...]:
    """The tasks that can be learned from it."""
    things = bool(dataset.things)
    stuff = len(dataset.things) < dataset.class_count
    return tuple(
        task.name
        for task in sorted(TASKS.values(), key=lambda task: task.name)
        if task.has_things == things and (task.has_stuff or not stuff)
    )


def _kinds(dataset: VideoDataset) -> str:
    if not dataset.things:
        return "no things"
    return "no stuff" if len(dataset.things) == dataset.class_count else "things and stuff"


def data_path(data_root: Path | None, asked_by: str) -> Path:
    """The data root; ConfigError says who asked for one if there is none."""
    if data_root is None:
        raise ConfigError(f"{asked_by}: a data root is needed (--data)")
    return data_root
