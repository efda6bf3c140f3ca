"""Weights of others: the authors' Video K-Net and K-Net, plain ResNets.

Every name of theirs has one place here. Nothing is guessed: a tensor without a place, or of another
shape than the configuration needs, is an error that names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import ModelConfig
from ..types import ClassTable, first_difference
from .checkpoint import CheckpointError
from .video_knet import VideoKNet

_State = dict[str, Tensor]

_UPDATE = {
    "dynamic_layer": "group_layer",
    "input_layer": "kernel_layer",
    "input_gate": "kernel_gate",
    "update_gate": "group_gate",
    "input_norm_in": "kernel_gate_norm",
    "norm_in": "group_gate_norm",
    "input_norm_out": "kernel_norm",
    "norm_out": "group_norm",
    "fc_layer": "out",
    "fc_norm": "out_norm",
}
"""KernelUpdator -> `_KernelUpdate`; their gate norms have crossed names."""

_INTERACTIONS = {
    "interaction": ("attention", "ffn", ""),
    "linking.interaction": ("attention_previous", "link_ffn", "(?:_track)?"),
    "fusion.interaction": ("attention_previous", "link_ffn", "_link"),
}
"""`_KernelInteraction` at our place <- attention and feed-forward at theirs, and what ends both."""

_UPDATES = {
    "update": "kernel_update_conv",
    "linking.update": "attention_previous_update_track",
    "fusion.update": "attention_previous_update_link",
}


def _stage_places() -> Iterator[tuple[str, str]]:
    """Pattern and replacement of every part of one update stage."""
    for ours, theirs in _UPDATES.items():
        for their_layer, our_layer in _UPDATE.items():
            yield rf"{theirs}\.{their_layer}", f"{ours}.{our_layer}"
    for ours, (attention, feedforward, end) in _INTERACTIONS.items():
        yield rf"{attention}{end}\.attn\.in_proj", f"{ours}.attention.in_proj"
        yield rf"{attention}{end}\.attn\.out_proj", f"{ours}.attention.out"
        yield f"{attention}_norm{end}", f"{ours}.attention_norm"
        yield rf"{feedforward}{end}\.layers\.0\.0", f"{ours}.feedforward.0"
        yield rf"{feedforward}{end}\.layers\.1", f"{ours}.feedforward.2"
        yield f"{feedforward}_norm{end}", f"{ours}.feedforward_norm"
    yield r"feat_transform\.conv", "feature_transform"
    for head, short in (("class_head", "cls"), ("mask_head", "mask")):
        yield rf"{short}_fcs\.0", f"{head}.0"
        yield rf"{short}_fcs\.1", f"{head}.1"
        yield f"fc_{short}", f"{head}.3"


def _places() -> Iterator[tuple[str, str]]:
    """Pattern and replacement of every module of the authors' detector."""
    yield r"backbone\.(.+)", r"backbone.\1"
    yield r"neck\.lateral_convs\.(\d)\.conv", r"neck.pyramid.laterals.\1"
    yield r"neck\.fpn_convs\.(\d)\.conv", r"neck.pyramid.outputs.\1"
    fpn = r"rpn_head\.localization_fpn"
    for kind, index in (("conv", 0), ("gn", 1)):
        yield rf"{fpn}\.convs_all_levels\.(\d)\.conv(\d)\.{kind}", rf"neck.towers.\1.\2.{index}"
        yield rf"{fpn}\.conv_pred\.{kind}", f"head.localization.0.{index}"
        yield rf"{fpn}\.aux_convs\.0\.{kind}", f"head.semantic.0.{index}"
        yield rf"rpn_head\.loc_convs\.0\.{kind}", f"head.localization.1.{index}"
        yield rf"rpn_head\.seg_convs\.0\.{kind}", f"head.semantic.1.{index}"
    yield r"rpn_head\.conv_seg", "head.classifier"
    for theirs, ours in _stage_places():
        yield rf"roi_head\.mask_head\.(\d)\.{theirs}", rf"stages.\1.{ours}"
    for theirs, layer in (
        (r"embed_fcs\.([01])", r"\1"),
        ("fc_embed", "3"),
        (r"track_head\.fcs\.0", "4"),
        (r"track_head\.fcs\.1", "6"),
        (r"track_head\.fc_embed", "8"),
    ):
        yield theirs, f"embedding.layers.{layer}"


_PLACES = [(re.compile(pattern), replacement) for pattern, replacement in _places()]
_NEVER_USED = re.compile(r"roi_head\.mask_head\.[01]\.(attention_previous|link_ffn)")
"""Every stage of theirs owns link modules; only those of the last are ever called."""
_RESNET = re.compile(r"(conv1|bn1|stem|layer[1-4])\.")


def import_official(state: Mapping[str, Tensor], config: ModelConfig) -> VideoKNet:
    """The authors' network, in eval mode.

    Args:
        state: tensors by the authors' names.
        config: what the weights are of, for example `config/models/kitti_step_r50.yaml`.

    Raises:
        CheckpointError: a weight is missing, has no place or another shape; all such are named.
    """
    model = VideoKNet(config)
    ours, _ = translate(state)
    own = model.state_dict()
    problems = [f"missing {key}" for key in own if key not in ours]
    problems += [f"unexpected {key}" for key in ours if key not in own]
    problems += [
        f"{key}: expected {tuple(own[key].shape)}, got {tuple(value.shape)}"
        for key, value in ours.items()
        if key in own and own[key].shape != value.shape
    ]
    if problems:
        raise CheckpointError(f"the weights do not fit the configuration: {'; '.join(problems)}")
    model.load_state_dict(ours)
    return model.eval()


def translate(state: Mapping[str, Tensor]) -> tuple[_State, list[str]]:
    """Tensors under our names, and the keys that the authors' own forward never uses.

    Also takes a plain ResNet, of torchvision or of MMSegmentation (`ResNetV1c`, with a deep stem),
    whose classifier is left out.

    Raises:
        CheckpointError: a key that none of these networks has.
    """
    if "conv1.weight" in state or "stem.0.weight" in state:
        kept = {f"backbone.{k}": v for k, v in state.items() if _RESNET.match(k)}
        return kept, [k for k in state if not _RESNET.match(k)]
    ours: _State = {}
    unused, unknown = [], []
    for key, value in state.items():
        if _NEVER_USED.match(key):
            unused.append(key)
        elif name := _our_name(key):
            fitted = _fitted(key, name, value)
            if twice := fitted.keys() & ours.keys():
                raise CheckpointError(f"{key} is one of two weights for {', '.join(sorted(twice))}")
            ours |= fitted
        else:
            unknown.append(key)
    if unknown:
        raise CheckpointError(f"no place for {len(unknown)} keys: {', '.join(unknown)}")
    return ours, unused


def read_official(path: str | Path) -> _State:
    """Tensors of a `.pth` file, without running anything that is in it.

    Raises:
        CheckpointError: no such file, not one of torch, or one that holds more than plain tensors.
    """
    content = _load(path)
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        raise CheckpointError(f"{path}: expected tensors by name, got {type(state).__name__}")
    return {key.removeprefix("module."): value for key, value in state.items()}


def official_difference(path: str | Path, classes: ClassTable) -> str:
    """The first class name in a `.pth` file of MMDetection that differs from `classes`, or "".

    Its names (`meta.CLASSES`) may be in the order of class ids or of logits. A list of another
    length is of something else, such as the things alone: then there is nothing to compare.

    Raises:
        CheckpointError: as `read_official`.
    """
    content = _load(path)
    meta = content.get("meta") if isinstance(content, dict) else None
    names = meta.get("CLASSES") if isinstance(meta, dict) else None
    if not isinstance(names, list | tuple) or len(names) != len(classes):
        return ""
    orders = range(len(classes)), classes.logit_class_ids
    found = [
        first_difference(
            ((classes[i].name, classes[i].is_thing) for i in order),
            ((str(n), classes[i].is_thing) for n, i in zip(names, order, strict=True)),
        )
        for order in orders
    ]
    return found[0] if all(found) else ""


def _load(path: str | Path) -> Any:
    """The content of a file of torch; CheckpointError if it is none, or is more than plain data."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint {path}") from None
    except OSError:
        raise
    except Exception as error:  # on a file of another kind torch's reader fails in any way
        reason = _reject_reason(error)
        raise CheckpointError(f"{path} cannot be read as plain weights: {reason}") from None


def _reject_reason(error: Exception) -> str:
    """Why torch did not read a file; its own message advises to let the file run code."""
    if match := re.search(r"GLOBAL (\S+)", str(error)):
        return f"it would run {match[1]}"
    return f"it is not a file of torch, or damaged ({type(error).__name__})"


def _our_name(key: str) -> str | None:
    if key.startswith("backbone."):
        return key
    if key == "rpn_head.init_kernels.weight":
        return "head.thing_kernels"
    module, _, kind = key.rpartition(".")
    if kind.startswith("in_proj_"):  # the fused projection of torch's attention
        module, kind = f"{module}.in_proj", kind.removeprefix("in_proj_")
    for pattern, replacement in _PLACES:
        if match := pattern.fullmatch(module):
            return f"{match.expand(replacement)}.{kind}"
    return None


def _fitted(key: str, name: str, value: Tensor) -> _State:
    """One tensor of theirs as ours: a fused projection becomes three, a 1x1 map a matrix."""
    if ".in_proj." in name:
        if not value.dim() or len(value) % 3:
            raise CheckpointError(f"{key}: expected three equal parts, got {tuple(value.shape)}")
        parts = zip(("query", "key", "value"), value.chunk(3), strict=True)
        return {name.replace("in_proj", part): chunk for part, chunk in parts}
    if name == "head.thing_kernels" or name.endswith("feature_transform.weight"):
        if value.dim() != 4 or value.shape[2:] != (1, 1):
            raise CheckpointError(f"{key}: expected (N, C, 1, 1), got {tuple(value.shape)}")
        value = value.flatten(1)
    return {name: value}
