"""From custom data to a model for the node: the configurations of a training, and its export."""

from __future__ import annotations

import logging
import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml

from ..config import STRIDE, KernelConfig, ModelConfig
from ..config_io import ConfigError, expect, from_dict, load_yaml, to_dict
from ..data.census import Census, CustomData
from ..engine.export import export_checkpoint
from ..engine.model_index import CHECKPOINT, find_model
from ..engine.selector import default_model_path
from ..model.checkpoint import load_model, read_metadata, save_model
from ..model.video_knet import VideoKNet
from ..output_files import OutputError, exclusive, is_new, write_text
from ..tasks import TASKS
from ..types import ClassTable, plain_name
from .checkpoints import RunFiles
from .initial_weights import start_from, with_classes_of
from .train_config import HELD_OUT, TrainConfig
from .trainer import find_device, train_from_config

_log = logging.getLogger(__name__)

MODEL, RUN, START, EXPORTED = "model.yaml", "train.yaml", "start.safetensors", "model.onnx"
"""Files of the run folder, beside those of `RunFiles`."""
_PASSES = 20
"""How often each image is seen ..."""
_STEPS = 300, 3000
"""... but at least and at most this many steps."""
_CPU_BATCH, _GPU_BATCH = 4, 8
_CPU_CROP, _GPU_CROP = 0.8, 1.0
"""Side of a training crop, as a part of the model's input."""
_CHECKPOINT_EVERY = 25
"""Steps."""
_HOLD_OUT, _MINIMUM_TO_HOLD_OUT = 10, 5
"""Without a split "val" every 10th image or video is held out, of few every 5th; of fewer than 5
images none."""
_VALIDATED_IMAGES, _VALIDATED_VIDEOS, _VALIDATED_FRAMES = 40, 4, 30
_MINIMUM_SIDE = 96
"""Pixels of the model's input; the cells of a smaller one are too few for its seeds."""
_LOSSES = {
    "semantic": {"semantic": 1.0, "balance": 0.3},
    "panoptic": {
        **{"rank": 0.3, "stage_rank": 0.5, "balance": 0.5},
        **{"center": 2.0, "heat": 1.0, "track": 0.5, "track_aux": 2.0},
    },
}
"""Of the shipped trainings; those of task instance are those of panoptic."""


@dataclass(frozen=True)
class FinetuneOptions:
    """What the user decides; None = as the data has it."""

    steps: int | None = None
    size: tuple[int, int] | None = None
    """Height and width of the model's input in pixels."""
    init: Path | None = None
    """Checkpoint of ours to start from; None = the shipped model."""
    like: Mapping[str, str] = field(default_factory=dict)
    """Class of the data -> class of that checkpoint that it begins as, where names differ."""
    threads: int | None = None
    skip_empty: bool = False
    """Leave out images without an object, of data that has objects alone."""


# --- the run -------------------------------------------------------------------------------------


def prepare(data: Path, out: Path, options: FinetuneOptions, device: str = "auto") -> list[str]:
    """Read the data, and write all files of a run of its own into `out`, a new or empty folder.

    Returns:
        Lines that describe the data and the run.

    Raises:
        DatasetError: the data is missing, or nothing of it can be learned from.
        ConfigError, CheckpointError: a model cannot have these classes or this size, or the
            checkpoint to start from cannot be used.
        OutputError: `out` has other files, or another process writes into it.
    """
    import_module("onnxscript")  # the export at the end needs it
    kind = find_device(device).type
    if not is_new(out):
        hint = " or continue its run with --resume" if (out / RUN).is_file() else ""
        raise OutputError(f"{out} holds other files: name a folder that is new or empty{hint}")
    custom = CustomData.find(data)
    start = load_model(options.init or shipped_checkpoint())
    dataset = custom.open("train")
    classes = custom.classes(dataset, start.config.classes)
    origins = _origins(classes, start.config.classes, options.like)
    validation = custom.census(custom.open("val"), "val") if custom.has("val") else None
    census = custom.census(dataset, "train")
    config = model_for(start.config, classes, census.size, options.size)
    model = started(config, start, options.like)
    run = run_for(custom, config, census, validation, options, kind)
    from_dict(TrainConfig, run)
    with exclusive(out):
        save_model(model, out / START)
        _write_yaml(out / MODEL, to_dict(config), f"Model for {data}, by video-knet finetune.")
        _write_yaml(
            out / RUN, run, f"video-knet train {out / RUN} --data {custom.root} --out {out}"
        )
    lines = _description(custom, census, validation, config, run, origins)
    if fresh := [name for name, known in origins.items() if not known]:
        known = ", ".join(row.name for row in start.config.classes)
        lines.append(
            f"new classes  {', '.join(fresh)}; one that is like another: --like {fresh[0]}=NAME, "
            f"of {known}"
        )
    return lines


def resume(data: Path, out: Path, options: FinetuneOptions) -> None:
    """Check that `out` holds a run to continue, and give it the steps of `options`.

    Raises:
        ConfigError: there is no run, or it cannot change like that.
    """
    custom, path = CustomData.find(data), out / RUN
    if not path.is_file():
        raise ConfigError(f"--resume: expected the run of an earlier call in {out}, got no {RUN}")
    fixed: dict[str, object] = {"--size": options.size, "--init": options.init}
    fixed |= {"--like": options.like, "--skip-empty": options.skip_empty}
    for name, value in fixed.items():
        expect(not value, name, f"none with --resume, the run has its own in {path}", value)
    config = load_yaml(TrainConfig, path)
    for clip in config.data.clips:
        given, own = (custom.form.name, custom.path), (clip.dataset, clip.path)
        expect(given == own, "DATA", f"{' '.join(own)} as in {path}", " ".join(given))
    text = path.read_text(encoding="utf-8")
    if options.steps is not None:
        expect(options.steps >= config.steps, "--steps", f"{config.steps} or more", options.steps)
    for key, number in (("steps", options.steps), ("threads", options.threads)):
        if number is not None:
            text, found = re.subn(rf"(?m)^{key}:.*$", f"{key}: {number}", text)
            expect(found == 1, str(path), f"a line {key}: {getattr(config, key)}", f"{found} lines")
    from_dict(TrainConfig, yaml.safe_load(text))
    write_text(path, text)


def train(data: Path, out: Path, device: str = "auto") -> Path:
    """Train the run in `out` to its end, from its last checkpoint if it has one, and export it.

    Returns:
        The exported model: of the best checkpoint, without a validation of the last one.

    Raises:
        As `train_from_config`.
    """
    files = RunFiles(out)
    root = CustomData.find(data).root
    train_from_config(out / RUN, out, root, resume=files.state.is_file(), device=device)
    _log.info("exporting %s", out / EXPORTED)
    export_checkpoint(result_of(out), out / EXPORTED)
    return out / EXPORTED


def result_of(out: Path) -> Path:
    """The checkpoint of a run to use."""
    files = RunFiles(out)
    return files.best if files.best.is_file() else files.last


def summary(out: Path, data: Path) -> list[str]:
    """Lines on the result of a finished run: its scores, and how to use it."""
    result, model = result_of(out), (out / EXPORTED).resolve()
    facts = read_metadata(result)
    scores = [f"{k} {v:.3f}" for k, v in facts["metrics"].items() if isinstance(v, float)]
    step = f"{result.name} of step {facts['step']}"
    again = shlex.join(["video-knet", "finetune", str(data), "--out", str(out), "--resume"])
    quoted = shlex.quote(str(model))
    return [
        f"{out / EXPORTED} is {step}" + (f": {', '.join(scores)}" if scores else ""),
        "",
        "run it:      ros2 launch video_knet_ros camera.launch.py "
        f"model:={quoted} image:=/camera/image_raw",
        f"try it:      video-knet track VIDEO --model {quoted} --out result",
        f"train more:  {again} --steps {2 * load_yaml(TrainConfig, out / RUN).steps}",
    ]


def shipped_checkpoint() -> Path:
    """The weights of the shipped model, beside the exported one or found by its name."""
    beside = default_model_path().with_suffix(".safetensors")
    return beside if beside.is_file() else find_model(beside.stem, CHECKPOINT)


# --- the model -----------------------------------------------------------------------------------


def model_for(
    start: ModelConfig,
    classes: ClassTable,
    image_size: tuple[int, int],
    size: tuple[int, int] | None = None,
) -> ModelConfig:
    """A model like `start` for other classes: its task by their kinds, its input of the shape of
    the images (height, width), with as many pixels as that of `start` unless `size` is given.

    ConfigError if there can be none.
    """
    task = _task(classes)
    height, width = size or _input_size((start.height, start.width), image_size)
    kernels, panoptic = start.kernels, start.panoptic
    if task == "semantic":
        off: dict[str, Any] = dict.fromkeys(
            ("embedding", "position", "centers", "seeds", "sticky"), False
        )
        kernels = replace(kernels, things=0, **off)
    else:
        things = min(kernels.things or KernelConfig().things, 254 - len(classes.stuff))
        kernels = replace(kernels, things=max(things, 1))
    if task == "instance":  # as the shipped instance model; tracks begin at a higher score
        panoptic = replace(panoptic, score_threshold=min(panoptic.score_threshold, 0.1))
    changes: dict[str, Any] = {"classes": classes, "task": task, "height": height, "width": width}
    return replace(start, **changes, more_sizes=(), kernels=kernels, panoptic=panoptic)


def _task(classes: ClassTable) -> str:
    if not classes.things:
        return "semantic"
    return "panoptic" if classes.stuff else "instance"


def _input_size(native: tuple[int, int], image: tuple[int, int]) -> tuple[int, int]:
    """Multiples of `STRIDE` in the shape of the image, about as many pixels as `native`, and not
    more than the image has."""
    scale = min(1.0, math.sqrt(math.prod(native) / math.prod(image)))
    height, width = (max(_MINIMUM_SIDE, round(n * scale / STRIDE) * STRIDE) for n in image)
    return height, width


def started(config: ModelConfig, start: VideoKNet, like: Mapping[str, str]) -> VideoKNet:
    """A network of `config` with all weights of `start` that have a place in it; `like` as in
    `FinetuneOptions`."""
    torch.manual_seed(0)
    model = VideoKNet(config)
    state = with_classes_of(model, start, like)
    if not TASKS[config.task].has_things:  # its classifier is behind this branch alone
        state = {key.replace("head.semantic.", "head.branch."): v for key, v in state.items()}
    own = model.state_dict()
    start_from(model, {k: v for k, v in state.items() if k in own and own[k].shape == v.shape})
    return model


def _origins(
    classes: ClassTable, known: ClassTable, like: Mapping[str, str]
) -> dict[str, str | None]:
    """By class, the known one that it begins as; None of a new one. ConfigError for names in `like`
    that are no classes."""
    for names, table in ((like.keys(), classes), (like.values(), known)):
        there = {plain_name(row.name) for row in table}
        for name in names:
            expected = f"one of {', '.join(row.name for row in table)}"
            expect(plain_name(name) in there, "--like", expected, name)
    others = {plain_name(name): plain_name(other) for name, other in like.items()}
    names_of = {plain_name(row.name): row.name for row in known}
    plain = {row.name: plain_name(row.name) for row in classes}
    return {name: names_of.get(others.get(own, own)) for name, own in plain.items()}


# --- the training --------------------------------------------------------------------------------


def run_for(
    custom: CustomData,
    model: ModelConfig,
    census: Census,
    validation: Census | None,
    options: FinetuneOptions,
    device: str,
) -> dict[str, Any]:
    """The settings of a `TrainConfig` that are not its defaults, by the amount of data.

    Args:
        validation: of the split "val"; None = a part of "train" is held out.
        device: type of the device, as "cpu".
    """
    left_out = _left_out(census, options)
    frames = census.total - len(left_out)
    batch, part = (_CPU_BATCH, _CPU_CROP) if device == "cpu" else (_GPU_BATCH, _GPU_CROP)
    low, high = _STEPS
    steps = options.steps or 50 * round(min(max(_PASSES * frames / batch, low), high) / 50)
    sides = (model.height, model.width)
    height, width = (max(64, round(part * side / STRIDE) * STRIDE) for side in sides)
    is_video = census.is_followed
    clip: dict[str, Any] = {"dataset": custom.form.name, "path": custom.path}
    clip |= {"pseudo_video": not is_video} | ({"exclude": left_out} if left_out else {})
    validated: dict[str, Any] = {}
    if validation is not None:
        is_video = validation.is_followed
        unusable = _left_out(validation, options)
        validated = {"dataset": custom.form.name, "path": custom.path, "pseudo_video": not is_video}
        validated |= {"exclude": unusable} if unusable else {}
    elif every := _hold_out(census, left_out):
        clip["hold_out"] = every
        validated = {"dataset": HELD_OUT}
    if validated:
        validated |= {"every": max(50, round(steps / 500) * 50)}
        limits = (_VALIDATED_VIDEOS, _VALIDATED_FRAMES) if is_video else (_VALIDATED_IMAGES, 1)
        validated |= dict(zip(("clips", "frames"), limits, strict=True))
    fine = model.neck.map_stride == 4
    strides = {"mask_stride": 2 if fine else 4, "rank_stride": 4}
    if model.task == "semantic":
        strides = {"rank_stride": 2}
    return {
        **{"model": MODEL, "init": START, "steps": steps, "batch": batch},
        **{"height": height, "width": width, **strides},
        **{"learning_rate": 6e-4, "backbone_learning_rate": 1.5e-4, "clip_norm": 2.0},
        **{"warmup_steps": min(50, steps // 10), "ema_decay": _decay(steps)},
        **{"checkpoint_every": _CHECKPOINT_EVERY, "threads": options.threads or _cores()},
        "losses": _LOSSES.get(model.task, _LOSSES["panoptic"]),
        "data": {"clips": [clip]},
        "validation": validated,
    }


def _left_out(census: Census, options: FinetuneOptions) -> list[str]:
    return [*census.unusable, *(census.without_objects if options.skip_empty else ())]


def _hold_out(census: Census, left_out: Sequence[str]) -> int:
    """See `VideoDataset.hold_out`; 0 if there is too little data."""
    dataset, is_video = census.dataset, census.is_followed
    dataset = dataset.without(left_out) if left_out else dataset
    dataset = dataset if is_video else dataset.single_images()
    videos = len(dataset)
    if is_video and 1 < videos < _MINIMUM_TO_HOLD_OUT:
        return videos  # the last one
    units = videos if videos > 1 else len(dataset[0])
    if units < _MINIMUM_TO_HOLD_OUT:
        return 0
    return _HOLD_OUT if units >= 5 * _HOLD_OUT else _MINIMUM_TO_HOLD_OUT


def _decay(steps: int) -> float:
    """The moving average spans a fortieth of the run: its first checkpoints have learned."""
    return round(min(max(1 - 40 / steps, 0.0), 0.998), 4)


def _cores() -> int:
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)


# --- reports -------------------------------------------------------------------------------------


def _description(
    custom: CustomData,
    census: Census,
    validation: Census | None,
    config: ModelConfig,
    run: dict[str, Any],
    origins: Mapping[str, str | None],
) -> list[str]:
    """The data, its classes and the run."""
    height, width = census.size
    kind = "video, ids followed" if census.is_followed else "single images"
    lines = [
        f"data         {custom.place}: {custom.form.name}, {census.frames} frames of "
        f"{width} x {height} ({kind})",
    ]
    for row in config.classes:
        counts = f"in {census.frames_of[row.id]} frames"
        if row.is_thing:
            counts += f", {census.objects_of[row.id]} objects"
        if not census.frames_of[row.id]:
            counts = "not in the data: it is not learned"
        origin = origins[row.name]
        source = f"begins as {origin}" if origin else "new"
        lines.append(f"  {row.name:<22} {'thing' if row.is_thing else 'stuff'}  {source}, {counts}")
    held = run["data"]["clips"][0].get("hold_out")
    source = "none: there is too little data"
    if validation is not None:
        source = f"split val, {validation.frames} frames"
    elif held:
        several = "videos" if len(census.dataset) > 1 else "frames, the last ones,"
        source = f"one of {held} {several if census.is_followed else 'images'} is held out"
    lines += [
        f"model        task {config.task}, input {config.width} x {config.height}",
        f"validation   {source}",
        f"training     {run['steps']} steps of {run['batch']} pairs, crops of "
        f"{run['width']} x {run['height']}, checkpoint every {run['checkpoint_every']}",
    ]
    return lines


def _write_yaml(path: Path, content: dict[str, Any], comment: str) -> None:
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)
    write_text(path, f"# {comment}\n{text}")
