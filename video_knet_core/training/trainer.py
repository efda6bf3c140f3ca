"""The training loop: pairs in, a checkpoint out; killed and resumed, it gives the same weights.

Sample n of a run depends on (seed, n) alone, so a resumed run sees what an unbroken one would have.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..config import ConfigError, load_yaml, to_dict
from ..data.pairs import PairSource, photometric
from ..model.checkpoint import (
    CheckpointError,
    load_model,
    load_tensors,
    save_model,
    save_tensors,
)
from ..model.official import read_official, translate
from ..model.video_knet import VideoKNet
from ..types import ClassTable
from .criterion import Criterion
from .pair_step import pair_losses
from .settings import TrainConfig, open_sources
from .targets import FrameTargets, frame_targets

CLASSIFIER = re.compile(r"\b(head\.classifier|class_head\.3)\.")
"""Parameters whose shape is the number of classes."""

Sample = tuple[Tensor, list[FrameTargets]]
"""Images u8 [2,3,H,W] (key, reference) and their targets."""


class PairDataset(Dataset):
    """Sample n of a run: which source, which clip, which crop all follow from (seed, n)."""

    def __init__(
        self,
        sources: Sequence[tuple[float, PairSource]],
        classes: ClassTable,
        config: TrainConfig,
    ) -> None:
        self.sources, self.classes, self.config = sources, classes, config

    def __len__(self) -> int:
        return self.config.steps * self.config.batch

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((self.config.seed, index))
        shares = [share for share, _ in self.sources]
        _, source = self.sources[int(rng.choice(len(shares), p=shares))]
        pair = source.sample(rng, self.config.height, self.config.width)
        images = torch.from_numpy(photometric(pair.images, rng)).permute(0, 3, 1, 2)
        targets = [
            frame_targets(
                semantic,
                instance,
                self.classes,
                self.config.mask_stride,
                self.config.targets,
                self.config.rank_stride,
            )
            for semantic, instance in zip(pair.semantic, pair.instance, strict=True)
        ]
        return images, targets


class Trainer:
    """One run of `config`, with its files in `out`."""

    def __init__(
        self, config_path: Path, out: Path, data_root: Path | None = None, device: str = "auto"
    ) -> None:
        self.config = config = load_yaml(TrainConfig, config_path)
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.device = torch.device(device)
        except RuntimeError as error:
            raise ConfigError(f"device must be auto, cpu or cuda, found {device!r}") from error
        self.out = out
        self.model = self._build_model(config_path).to(self.device)
        for parameter in self.model.parameters():
            if parameter.dim() == 4:  # faster convolutions, on CPUs too
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        model_config = self.model.config
        sources = open_sources(config.data, model_config, data_root, out / "streets")
        self.dataset = PairDataset(sources, model_config.classes, config)
        self.criterion = Criterion(config.losses, len(model_config.classes.things))
        self.optimizer = torch.optim.AdamW(self._parameter_groups(), fused=True)
        self.step = 0

    @property
    def checkpoint(self) -> Path:
        """The model as of the last save."""
        return self.out / "last.safetensors"

    @property
    def state(self) -> Path:
        """All that a resumed run needs, in one file, so that it is never half of two steps."""
        return self.out / "last.state.safetensors"

    def run(self) -> None:
        """Train from `self.step` to the end, with progress, TensorBoard and checkpoints."""
        config = self.config
        batches = self._batches()
        with (
            SummaryWriter(str(self.out / "tensorboard"), purge_step=self.step) as writer,
            tqdm(total=config.steps, initial=self.step, unit="step", dynamic_ncols=True) as bar,
        ):
            while self.step < config.steps:
                losses = self.train_step(*next(batches))
                self.step += 1
                bar.update()
                if self.step % 10 == 0 or self.step == config.steps:
                    self._report(losses, writer, bar)
                if self.step % config.checkpoint_every == 0 or self.step == config.steps:
                    self.save()

    def train_step(
        self, images: Tensor, targets: Sequence[Sequence[FrameTargets]]
    ) -> dict[str, Tensor]:
        """One optimiser step on images [B,2,3,H,W] and targets [key, reference], B frames each."""
        self.model.train()
        self.model.backbone.freeze(self.config.frozen_groups)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * self._schedule()
        on_device = [[t.to(self.device) for t in side] for side in targets]
        losses, _ = pair_losses(self.model, self.criterion, images.to(self.device), on_device)
        total = torch.stack(list(losses.values())).sum()
        if not total.isfinite():
            raise FloatingPointError(f"loss is {total.item()} at step {self.step}: {losses}")
        self.optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimizer.step()
        return {"total": total, **losses}

    def save(self) -> None:
        """Write the state of the run, then the model alone."""
        tensors = {f"model/{key}": value for key, value in self.model.state_dict().items()}
        for name, parameter in self._trained():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer/{name}/{key}"] = value
        save_tensors(tensors, self.state, {"step": str(self.step), "run": self._identity()})
        save_model(self.model, self.checkpoint, step=self.step, seed=self.config.seed)

    def resume(self) -> None:
        """Continue from the state in `out`.

        Raises:
            CheckpointError: there is none, or it is of another run.
        """
        tensors, metadata = load_tensors(self.state)
        if metadata.get("run") != self._identity():
            raise CheckpointError(
                f"{self.state} is of another run: found {metadata.get('run')}, "
                f"wanted {self._identity()}"
            )
        try:
            self.step = int(metadata["step"])
            self.model.load_state_dict({k: tensors[f"model/{k}"] for k in self.model.state_dict()})
            for name, parameter in self._trained():
                # copied into the parameter's own memory layout, which a fused optimiser relies on
                self.optimizer.state[parameter] = {
                    key: torch.empty_like(parameter if value.dim() else value).copy_(value)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    for value in (tensors[f"optimizer/{name}/{key}"],)
                }
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"{self.state} is not the state of this run: {error}") from None

    def _identity(self) -> str:
        """What must not change between the parts of one run."""
        config = self.config
        names = ("steps", "batch", "seed", "targets", "mask_stride", "rank_stride")
        facts = {name: getattr(config, name) for name in names}
        facts["losses"] = to_dict(config.losses)
        return json.dumps({**facts, "model": to_dict(self.model.config)})

    def _build_model(self, config_path: Path) -> VideoKNet:
        model_config = self.config.load_model_config(config_path)
        model = VideoKNet(model_config)
        if self.config.init is None:
            model.backbone.load_imagenet()
            return model
        init = config_path.parent / self.config.init
        if init.suffix == ".pth":
            state, _ = translate(read_official(init))
        else:
            start = load_model(init)
            if start.config.classes != model_config.classes:
                raise ConfigError(f"init {init} has other classes than {self.config.model}")
            state = start.state_dict()
        start_from(model, state)
        return model

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((n, p) for n, p in self.model.named_parameters() if p.requires_grad)

    def _parameter_groups(self) -> list[dict]:
        """Four groups: backbone or not, decayed (matrices) or not (norms and biases)."""
        self.model.backbone.freeze(self.config.frozen_groups)
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self._trained():
            groups.setdefault((name.startswith("backbone."), parameter.dim() > 1), []).append(
                parameter
            )
        rate = {True: self.config.backbone_learning_rate, False: self.config.learning_rate}
        decay = {True: self.config.weight_decay, False: 0.0}
        return [
            {"params": p, "base_lr": rate[backbone], "weight_decay": decay[matrix]}
            for (backbone, matrix), p in groups.items()
        ]

    def _schedule(self) -> float:
        """Linear warm-up, then half a cosine down to 1 % of the base rate."""
        config = self.config
        warm = min(1.0, (self.step + 1) / max(config.warmup_steps, 1))
        return warm * (0.505 + 0.495 * math.cos(math.pi * self.step / config.steps))

    def _batches(self) -> Iterator[tuple[Tensor, list[list[FrameTargets]]]]:
        first = self.step * self.config.batch
        return iter(
            DataLoader(
                self.dataset,
                batch_size=self.config.batch,
                sampler=range(first, len(self.dataset)),
                num_workers=self.config.workers,
                collate_fn=collate,
                prefetch_factor=4 if self.config.workers else None,
            )
        )

    def _report(self, losses: dict[str, Tensor], writer: SummaryWriter, bar: tqdm) -> None:
        for name, loss in losses.items():
            writer.add_scalar(f"loss/{name}", loss.item(), self.step)
        writer.add_scalar("learning_rate", self.optimizer.param_groups[0]["lr"], self.step)
        bar.set_postfix(loss=f"{losses['total'].item():.2f}", track=f"{losses['track'].item():.3f}")


def start_from(model: VideoKNet, state: dict[str, Tensor]) -> None:
    """Load the weights of an earlier model; what that one did not have keeps its first values.

    So do the classifiers if their classes are others in number (pre-training on other data).

    Raises:
        ConfigError: a weight has no place in `model`, or another shape.
    """
    own = model.state_dict()
    strange = [k for k, v in state.items() if k not in own or own[k].shape != v.shape]
    fatal = [k for k in strange if k not in own or not CLASSIFIER.search(k)]
    if fatal:
        raise ConfigError(f"init: the model has no place for {', '.join(fatal)}")
    model.load_state_dict(own | {k: v for k, v in state.items() if k not in strange})


def collate(samples: Sequence[Sample]) -> tuple[Tensor, list[list[FrameTargets]]]:
    """Images [B,2,3,H,W]; targets as [key of each sample, reference of each sample]."""
    images = torch.stack([images for images, _ in samples])
    return images, [[targets[side] for _, targets in samples] for side in (0, 1)]


def train_from_config(
    config_path: Path,
    out: Path,
    data_root: Path | None = None,
    resume: bool = False,
    device: str = "auto",
) -> None:
    """Run, or with `resume` continue, the training described by a YAML file.

    Raises:
        ConfigError: the configuration cannot be used, or `out` holds a run and `resume` is off.
        CheckpointError: there is nothing to resume, or it is of another run.
    """
    trainer = Trainer(config_path, out, data_root, device)
    if resume:
        trainer.resume()
    elif trainer.state.exists():
        raise ConfigError(f"{out} holds a run already: resume it, or choose another folder")
    trainer.run()
