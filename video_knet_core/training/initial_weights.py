"""The network of a run with the weights that it starts from."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..config_io import ConfigError
from ..model.checkpoint import AnyNetwork, build_network, load_network
from ..model.official import official_difference, read_official, translate
from ..model.video_knet import VideoKNet
from ..output_files import expanded
from ..types import ClassTable, plain_name
from .optimization import freeze
from .train_config import TrainConfig

_log = logging.getLogger(__name__)
_CLASSIFIER = re.compile(r"\b(head\.classifier|auxiliary\.classifier|class_head\.3)\.")
"""Parameters whose shape is the number of classes."""
_BACKBONE = re.compile(r"backbone\.")
_TEMPORAL = re.compile(r"(stages\.\d+\.(?:fusion|linking|slots)|embedding)\.")
"""Parameters of what a model may have in another form, or not at all."""


def build_model(config: TrainConfig, config_path: Path) -> AnyNetwork:
    """The network with the weights that it starts from, frozen where the run keeps them."""
    model_config = config.load_model_config(config_path)
    model = build_network(model_config)
    if config.init is None:
        model.backbone.load_imagenet()
    else:
        init = config_path.parent / expanded(config.init)
        if init.suffix == ".pth":
            state = _official_weights(init, model_config.classes)
        else:
            start = load_network(init)
            state = start.state_dict()
            if isinstance(model, VideoKNet) and isinstance(start, VideoKNet):
                state = with_classes_of(model, start)
        if config.init_part == "backbone":
            state = model.state_dict() | {k: v for k, v in state.items() if _BACKBONE.match(k)}
        start_from(model, state)
    freeze(model, config)
    for parameter in model.parameters():
        if parameter.dim() == 4:  # convolutions are faster so, on CPUs too
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def _official_weights(path: Path, classes: ClassTable) -> dict[str, Tensor]:
    """The weights of a `.pth` file, without its classifiers if it names other classes."""
    state, _ = translate(read_official(path))
    if difference := official_difference(path, classes):
        _log.warning("init: the classifiers of %s are left out: %s", path, difference)
        state = {key: value for key, value in state.items() if not _CLASSIFIER.search(key)}
    return state


def with_classes_of(
    model: VideoKNet, start: VideoKNet, like: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """The weights of `start` with the class rows that `model` has: of classes of the same name.

    Classes that `start` does not have keep the first values of `model`. Names are compared as by
    `plain_name`: "tennis racket" is "tennis_racket". `like` has, by classes of `model`, classes of
    `start` of other names to begin as.
    """
    state, own = start.state_dict(), model.state_dict()
    if start.config.classes == model.config.classes:
        return state
    known, needed = _rows(start), _rows(model)
    others = {plain_name(name): plain_name(other) for name, other in (like or {}).items()}
    pairs = [
        (row, known[other])
        for name, row in needed.items()
        if (other := others.get(name, name)) in known
    ]
    for key in filter(_CLASSIFIER.search, list(state)):
        if key in own and own[key].shape[1:] == state[key].shape[1:]:
            rows = own[key].clone()
            for row, old in pairs:
                rows[row] = state[key][old]
            state[key] = rows
    return state


def _rows(model: VideoKNet) -> dict[str, int]:
    """Row of each class in the classifiers, by its name in plain form."""
    classes = model.config.classes
    return {plain_name(classes[i].name): row for row, i in enumerate(classes.logit_class_ids)}


def start_from(model: AnyNetwork, state: dict[str, Tensor]) -> None:
    """Load the weights of an earlier model; what that one did not have keeps its first values.

    So do the classifiers if their classes are others in number (pre-training on other data). Parts
    that see time are left out, with a warning, if `model` lacks them.

    Raises:
        ConfigError: a weight has no place in `model`, or another shape.
    """
    own = model.state_dict()
    strange = [k for k, v in state.items() if k not in own or own[k].shape != v.shape]
    fatal = [k for k in strange if not (_CLASSIFIER.search(k) if k in own else _TEMPORAL.match(k))]
    if fatal:
        raise ConfigError(f"init: the model has no place for {', '.join(fatal)}")
    if lacking := {found[1] for k in strange if (found := _TEMPORAL.match(k)) and k not in own}:
        parts = ", ".join(sorted(lacking))
        _log.warning("init: the model has no %s; their weights are left out", parts)
    model.load_state_dict(own | {k: v for k, v in state.items() if k not in strange})
