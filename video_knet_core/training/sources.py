"""Where a training run takes its pairs from, as `DataConfig` names them."""

from __future__ import annotations

from pathlib import Path

from synthetic_street.street_pairs import StreetPairs

from ..config import NetworkConfig
from ..config_io import ConfigError
from ..data.camvid import camvid_clip, street_ids
from ..data.clip_pairs import ClipPairs, ImagePairs
from ..data.copy_paste import CopyPaste
from ..data.datasets import open_dataset
from ..data.pairs import CropRange, KeyFrames, PairSource
from ..data.pasting import Paster
from ..data.sprites import Sprite, load_sprites
from ..data.video import VideoDataset
from ..output_files import expanded
from ..tasks import TASKS
from ..types import SOME_STUFF, first_difference
from .train_config import ClipConfig, DataConfig


def open_sources(
    config: DataConfig,
    model: NetworkConfig,
    data_root: Path | None,
    out: Path,
    sides: int = 2,
) -> list[tuple[float, PairSource]]:
    """The pair sources with their sampling weights.

    Rendered streets are cached in `street_cache`, or in `out`.

    Args:
        sides: frames of a pair, or of a longer clip; 1: pairs have their key frame only.

    Raises:
        ConfigError: real data is configured and no data root is given, or a data set has other
            classes than the model.
        DatasetError: a data set is missing or faulty.
    """
    sources: list[tuple[float, PairSource]] = []
    paster = None
    for clip in config.clips:
        root = data_path(data_root, f"data.clips: {clip.dataset}")
        if clip.paste and paster is None:
            paster = _paster(config, model, root)
        pasted_by = paster if clip.paste else None
        sources.append((clip.sampling_weight, _clip_pairs(clip, model, root, sides, pasted_by)))
    pasted = config.rest * config.copy_paste_weight
    if pasted > 0:
        root = data_path(data_root, f"data.copy_paste_weight {config.copy_paste_weight}")
        sources.append((pasted, _copy_paste(config, model, root, sides)))
    if config.rest > pasted:
        cache = expanded(config.street_cache) if config.street_cache else out / "streets"
        ids = street_ids(model.classes, "the synthetic street")
        streets = StreetPairs(
            *(config.synthetic_seeds, cache),
            causal=config.causal,
            ids=ids,
            frames=max(sides, 2),
            depth=model.learns_depth,
        )
        sources.append((config.rest - pasted, streets))
    return sources if sides > 1 else [(weight, KeyFrames(source)) for weight, source in sources]


def _copy_paste(config: DataConfig, model: NetworkConfig, root: Path, sides: int) -> PairSource:
    ids = street_ids(model.classes, f"data.copy_paste_weight {config.copy_paste_weight}")
    images = camvid_clip(root / expanded(config.images), ids)
    return CopyPaste(
        *(images, _sprites(config, model, root), model.classes.things, config.max_sprites),
        causal=config.causal,
        crowd=config.crowd,
        frames=sides,
    )


def _paster(config: DataConfig, model: NetworkConfig, root: Path) -> Paster:
    if not (sprites := _sprites(config, model, root)):
        got = f"{config.sprites} with the licences {config.sprite_licenses or 'all'}"
        raise ConfigError(f"data.sprites: expected cut-outs of things of the model, got {got}")
    return Paster(sprites, config.max_sprites, config.causal, config.crowd)


def _sprites(config: DataConfig, model: NetworkConfig, root: Path) -> list[Sprite]:
    return [
        sprite
        for folder in config.sprites
        for sprite in load_sprites(
            root / expanded(folder), model.classes, licenses=config.sprite_licenses
        )
    ]


def open_clips(
    config: ClipConfig, model: NetworkConfig, root: Path
) -> tuple[VideoDataset, VideoDataset | None]:
    """What is trained on, and what is held out if anything is.

    Raises:
        ConfigError: the data set has other classes than the model.
        DatasetError: it is missing or faulty, or too small for `hold_out`.
    """
    path = root / expanded(config.path)
    dataset = open_labelled(config.dataset, path, config.split, model, "data.clips")
    if config.exclude:
        dataset = dataset.without(config.exclude)
    held_out = None
    if config.hold_out:
        images = dataset.single_images() if config.pseudo_video else dataset
        dataset, held_out = images.hold_out(config.hold_out)
    if config.things_only:
        dataset = dataset.without_stuff(SOME_STUFF)
        held_out = held_out and held_out.without_stuff()
    return dataset, held_out


def _clip_pairs(
    config: ClipConfig, model: NetworkConfig, root: Path, sides: int, paster: Paster | None
) -> PairSource:
    dataset, _ = open_clips(config, model, root)
    crop = CropRange(config.scale, config.aspect)
    if config.pseudo_video or sides == 1:
        return ImagePairs(dataset, crop, sides, paster)
    return ClipPairs(dataset, config.offsets, crop, config.tracked, sides, paster)


def open_labelled(
    name: str, path: Path, split: str, model: NetworkConfig, asked_by: str
) -> VideoDataset:
    """A data set with the classes of the model; ConfigError names `asked_by` if they differ."""
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
    """The data root; ConfigError names `asked_by` if there is none."""
    if data_root is None:
        raise ConfigError(f"{asked_by}: a data root is needed (--data)")
    return data_root
