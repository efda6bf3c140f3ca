"""The files of a run: all that a resumed run needs, and the models to use."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config_io import ConfigError, from_dict, to_dict
from ..model.checkpoint import (
    AnyNetwork,
    CheckpointError,
    load_tensors,
    network_config,
    save_model,
    save_tensors,
)
from . import processes
from .optimization import trained
from .train_config import TrainConfig

_MAY_CHANGE = ("init", "batch", "workers", "threads", "checkpoint_every", "validation")
"""Settings of a run that do not change its weights, or are stored otherwise."""
_OPTIMIZER_STATE = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0
    best: float | None = None
    """Score of the best model; None before a validation, and where no score can be measured."""
    best_by: str | None = None
    """Name of that score."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """The last validation, with its step; None for a score that cannot be measured."""

    def update_best(self, name: str | None, score: float | None) -> bool:
        """Whether a model with this score is the best so far: of equal ones the newest is, and so
        is the newest as long as no score can be measured, or if the names of the scores differ."""
        if self.best is not None and (
            score is None or (name == self.best_by and score < self.best)
        ):
            return False
        self.best, self.best_by = score, name
        return True


class RunFiles:
    """The files of one run in `folder`. Each is replaced at once, or left as it was."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "last.state.safetensors"
        """All that a resumed run needs, in one file, so that it is never half of two steps."""
        self.last = folder / "last.safetensors"
        """The model as of the last save."""
        self.best = folder / "best.safetensors"
        """The model with the best validation."""

    def present(self) -> str:
        """Names of the files that a new run would replace; empty if there are none."""
        files = (self.state, self.last, self.best)
        return ", ".join(path.name for path in files if path.exists())

    def save_model(self, path: Path, model: AnyNetwork, progress: Progress, seed: int) -> None:
        """Write a model to use, with its step and its last validation inside."""
        save_model(model, path, step=progress.step, seed=seed, metrics=progress.metrics)

    def save_state(
        self,
        modules: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        run: str,
    ) -> None:
        """Write what `load_state` reads; `run` is the `identity` of the run."""
        tensors = {
            f"{name}/{key}": value
            for name, module in modules.items()
            for key, value in module.state_dict().items()
        }
        for name, parameter in trained(modules["model"]):
            for key in _OPTIMIZER_STATE:
                tensors[f"optimizer/{name}/{key}"] = optimizer.state[parameter][key]
        save_tensors(tensors, self.state, {"run": run, "progress": json.dumps(to_dict(progress))})

    def load_state(
        self, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, run: str
    ) -> Progress:
        """Read the state of a run into its modules and optimiser.

        A run with more `steps` than the saved one continues it, with the rates of its own schedule.

        Raises:
            CheckpointError: there is none, or it is of another run.
        """
        tensors, metadata = load_tensors(self.state)
        saved, configured = _settings(metadata.get("run")), json.loads(run)
        if isinstance(saved, dict) and isinstance(steps := saved.get("steps"), int):
            saved = saved | {"steps": max(steps, configured["steps"])}
        if saved != configured:
            reason = _first_difference(saved, configured)
            raise CheckpointError(f"{self.state} is of another run: {reason}")
        try:
            for name, module in modules.items():
                module.load_state_dict({k: tensors[f"{name}/{k}"] for k in module.state_dict()})
            for name, parameter in trained(modules["model"]):
                values = {k: tensors[f"optimizer/{name}/{k}"] for k in _OPTIMIZER_STATE}
                optimizer.state[parameter] = _in_layout_of(parameter, values)
            return Progress(**json.loads(metadata["progress"]))
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{self.state} is not the state of this run: {error}") from None


def identity(config: TrainConfig, model: AnyNetwork) -> str:
    """What must not change between the parts of one run; the number of processes may, and more
    steps may follow."""
    pairs = config.batch * processes.count()
    return json.dumps({**_fixed(config), "pairs": pairs, "model": to_dict(model.config)})


def _fixed(config: TrainConfig) -> dict[str, Any]:
    facts = {key: value for key, value in to_dict(config).items() if key not in _MAY_CHANGE}
    facts["data"] = {k: v for k, v in facts["data"].items() if k != "street_cache"}
    return facts


def _settings(run: str | None) -> Any:
    """What `identity` wrote; an empty mapping if it was another program. Settings that there were
    not when it was written have their defaults, as they had no effect."""
    try:
        saved = json.loads(run or "{}")
        if isinstance(saved["data"]["sprites"], str):  # there was one folder
            saved["data"]["sprites"] = [saved["data"]["sprites"]]
        known = {k: v for k, v in saved.items() if k not in ("pairs", "model")}
        model = to_dict(network_config(saved["model"]))
        return saved | _fixed(from_dict(TrainConfig, known | {"model": ""})) | {"model": model}
    except json.JSONDecodeError:
        return {}
    except (AttributeError, KeyError, TypeError, ConfigError):  # of another program or version
        return saved


def _first_difference(saved: Any, configured: Any, key: str = "") -> str:
    """The first setting that differs, by its path in the configuration, with both values."""
    if isinstance(saved, dict) and isinstance(configured, dict):
        for name in {**configured, **saved}:
            if saved.get(name) != configured.get(name):
                path = f"{key}.{name}" if key else name
                return _first_difference(saved.get(name), configured.get(name), path)
    if isinstance(saved, list) and isinstance(configured, list) and len(saved) == len(configured):
        number = next(i for i, value in enumerate(saved) if value != configured[i])
        return _first_difference(saved[number], configured[number], f"{key}[{number}]")
    found, expected = (textwrap.shorten(json.dumps(v), 100) for v in (saved, configured))
    return f'expected "{key}": {expected} as configured, got {found}'


def _in_layout_of(parameter: nn.Parameter, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values in the parameter's own memory layout, which a fused optimiser relies on."""
    return {
        key: torch.empty_like(parameter if value.dim() else value, device=parameter.device).copy_(
            value
        )
        for key, value in values.items()
    }
