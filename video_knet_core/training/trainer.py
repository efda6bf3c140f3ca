"""The training loop: pairs in, a checkpoint out; killed and resumed, it gives the same weights."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..config import SEMANTIC_NECKS, ModelConfig, NetworkConfig
from ..config_io import ConfigError, load_yaml
from ..model.checkpoint import AnyNetwork
from ..model.network import ExternalNetwork
from ..output_files import exclusive
from . import processes
from .batches import PairDataset, batches
from .cached_clips import CachedClips
from .checkpoints import Progress, RunFiles, identity
from .clip_validation import Validation
from .initial_weights import build_model
from .monitor import Monitor
from .optimization import build_optimizer, freeze, set_rate
from .pair_step import ExternalLosses, PairLosses, mapped
from .sources import open_sources
from .train_config import TEMPORAL, TrainConfig
from .training_tasks import TRAINING_TASKS


class Trainer:
    """One run of `config`, with its files in `out`; in many processes, each has one."""

    def __init__(
        self, config_path: Path, out: Path, data_root: Path | None = None, device: str = "auto"
    ) -> None:
        self.config = config = load_yaml(TrainConfig, config_path)
        self.device = find_device(device)
        self.out, self.files, self.progress = out, RunFiles(out), Progress()
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads)
        if self.device.type == "cpu":
            _keep_freed_memory()
        self.model = build_model(config, config_path).to(self.device)
        model = self.model.config
        _check_model(config, model)
        sources = open_sources(config.data, model, data_root, out, config.sides)
        self.dataset = PairDataset(sources, model, config)
        self.cached: CachedClips | None = None
        self.validation = Validation(config.validation, model, data_root, config.data)
        self.average = _average(self.model, config.ema_decay) if config.ema_decay else None
        self.optimizer = build_optimizer(self.model, config)
        self.losses = _distributed(self._build_losses())

    def _build_losses(self) -> PairLosses | ExternalLosses:
        config, model = self.config, self.model
        bfloat16 = config.precision == "bfloat16"
        bfloat16 |= config.precision == "auto" and self.device.type == "cuda"
        if isinstance(model, ExternalNetwork):
            return ExternalLosses(model, bfloat16, config.losses.balance)
        first = model.config.kernels.stages if config.train in TEMPORAL else 0
        task = TRAINING_TASKS[model.config.task]
        criterion = task.criterion(config.losses, model.config.classes, processes.total, first)
        return PairLosses(model, criterion, bfloat16, config.memory_drop)

    @property
    def result(self) -> AnyNetwork:
        """The model to use: the average of the weights if there is one."""
        return self.average.module if self.average else self.model

    def run(self) -> None:
        """Train from where the run is to the end.

        Ctrl-C and SIGTERM end it between two steps, with a checkpoint of the last one; of several
        processes, which wait for each other, they end it at once.
        """
        first, main = self.progress.step, processes.number() == 0
        clips = self._clips(first)
        monitor = Monitor(self.out, self.config.steps, first, silent=not main)
        with closing(monitor), _signals_held_back() as received:
            for step_batches in clips:
                losses = self.train_step(step_batches)
                self.progress.step += 1
                rate = max(group["lr"] for group in self.optimizer.param_groups)
                monitor.step(self.progress.step, losses, rate)
                if self._due(self.config.validation.every):
                    self.validate(monitor)
                if self._due(self.config.checkpoint_every) or received:
                    self.save()
                if received:
                    break

    def _clips(self, first_step: int) -> Iterator[list[Any]]:
        """Batches of images, or of what was encoded before."""
        if not self.config.cached_clips:
            return batches(self.dataset, first_step)
        if self.cached is None:
            freeze(self.model, self.config)
            self.cached = CachedClips(self.dataset, self.model, self.device)
        return self.cached.batches(self.config, first_step)

    def train_step(self, step_batches: Sequence[Any]) -> dict[str, Tensor]:
        """One optimiser step; returns the mean losses of this process."""
        step = self.progress.step
        draw = step * processes.count() + processes.number()  # each process draws its own
        torch.manual_seed((self.config.seed << 32) + draw)  # dropout, dropped memory
        freeze(self.model, self.config)
        set_rate(self.optimizer, self.config, step)
        self.optimizer.zero_grad()
        found = []
        for number, batch in enumerate(step_batches, start=1):
            with self._gradients_stay_here(number < len(step_batches)):
                found.append(self._backward(batch, len(step_batches)))
        limit = self.config.clip_norm
        nn.utils.clip_grad_norm_(self.model.parameters(), limit, error_if_nonfinite=True)
        self.optimizer.step()
        if self.average:
            self.average.update_parameters(self.model)
        means = torch.stack([values for _, values in found]).sum(0)
        return {"total": means.sum(), **dict(zip(found[0][0], means.unbind(), strict=True))}

    def validate(self, monitor: Monitor) -> None:
        """Measure the model, and keep it if it is the best so far; see `Progress.update_best`."""
        quality, progress = self.validation(self.result), self.progress
        progress.metrics = {"step": progress.step, **quality.measured}
        monitor.validated(progress.step, quality)
        if progress.update_best(*quality.decisive) and processes.number() == 0:
            self.files.save_model(self.files.best, self.result, progress, self.config.seed)

    def save(self) -> None:
        """Write the model, then the state of the run; the first process does."""
        if processes.number() == 0:
            run = identity(self.config, self.model)
            # the state last: a run that has it is done up to there
            self.files.save_model(self.files.last, self.result, self.progress, self.config.seed)
            self.files.save_state(self._modules(), self.optimizer, self.progress, run)
        processes.wait()

    def resume(self) -> None:
        """Continue from the state in `out`.

        Raises:
            CheckpointError: there is none, or it is of another run.
        """
        run = identity(self.config, self.model)
        self.progress = self.files.load_state(self._modules(), self.optimizer, run)

    def _backward(self, batch: Any, parts: int) -> tuple[list[str], Tensor]:
        """Add the gradients of one of `parts` batches; returns the names and values of its losses,
        divided by `parts`."""
        images, targets = batch
        on_device = mapped((images, targets), lambda tensor: tensor.to(self.device))
        losses = self.losses(*on_device, self.config.sides)
        values = torch.stack(list(losses.values())) / parts
        total = values.sum()
        if not total.isfinite():
            raise FloatingPointError(
                f"loss is {total.item()} at step {self.progress.step}: {losses}"
            )
        total.backward()
        return list(losses), values.detach()

    def _gradients_stay_here(self, more_to_come: bool) -> AbstractContextManager:
        """Processes exchange gradients once per step, with the last batch."""
        if more_to_come and isinstance(self.losses, DistributedDataParallel):
            return self.losses.no_sync()
        return nullcontext()

    def _due(self, every: int) -> bool:
        step = self.progress.step
        return every > 0 and (step % every == 0 or step == self.config.steps)

    def _modules(self) -> dict[str, nn.Module]:
        modules: dict[str, nn.Module] = {"model": self.model}
        return modules | ({"average": self.average} if self.average else {})


@contextmanager
def _signals_held_back() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are listed, and do what they would have done when the block ends; a second
    one does it at once. Not in several processes, nor outside of the main thread."""
    received: list[int] = []
    handlers: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def hold_back(number: int, _: FrameType | None) -> None:
        if received:
            restore()
            signal.raise_signal(number)
        received.append(number)
        os.write(2, b"\nwaiting for the end of the step, to save it; again: stop at once\n")

    if processes.count() == 1 and threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(handler := signal.getsignal(number)):
                handlers[number] = handler
                signal.signal(number, hold_back)
    try:
        yield received
    finally:
        restore()
    if received:
        signal.raise_signal(received[0])


def _keep_freed_memory() -> None:
    """Let glibc reuse the memory of large tensors, instead of new pages for each of them.

    A step on a CPU takes a third less time by it, for 8 % more memory. Other C libraries have no
    such switch.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        trim_threshold, mmap_max = -1, -4  # malloc.h
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, -1)


def _check_model(config: TrainConfig, model: NetworkConfig) -> None:
    """ConfigError if a batch has one value for a batch norm, which then has no variance, or if
    nothing of the model sees time where that alone is trained."""
    temporal = config.train in TEMPORAL
    if temporal and not (isinstance(model, ModelConfig) and model.kernels.stages):
        raise ConfigError(
            "train: expected 'all' or 'decoder' for a model without update stages, got "
            f"{config.train!r}"
        )
    if not isinstance(model, ModelConfig):
        return
    if config.cached_clips and temporal and model.kernels.stages < 2:
        raise ConfigError(
            f"cached_clips: expected 0 for a model of one stage, got {config.cached_clips}"
        )
    images, stride = config.batch * config.sides, model.backbone.output_stride
    height, width = min(config.sizes, key=math.prod)
    cells = 1 if model.neck.name in SEMANTIC_NECKS else height * width // stride**2
    if images * cells < 2:
        raise ConfigError(
            f"batch: expected at least 2 images in a batch for neck.name {model.neck.name!r} at "
            f"{height} x {width}, got batch {config.batch} with video {config.video}"
        )


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
        OutputError: another process trains in `out`.
    """
    with processes.joined(find_device(device)) as own_device, ExitStack() as held:
        if not resume and (present := RunFiles(out).present()):
            raise ConfigError(f"{out} holds a run already ({present}): resume it, or name another")
        trainer = Trainer(config_path, out, data_root, str(own_device))
        if processes.number() == 0:
            held.enter_context(exclusive(out))
        if resume:
            trainer.resume()
        processes.wait()
        trainer.run()


def find_device(name: str) -> torch.device:
    """The device called `name`, or with "auto" a GPU if there is one.

    Raises:
        ConfigError: this machine, or this build of torch, has no such device.
    """
    gpus = torch.cuda.device_count()
    if name == "auto":
        name = "cuda" if gpus else "cpu"
    available = {"cpu": 1, "cuda": gpus, "mps": int(torch.backends.mps.is_available())}
    try:
        device = torch.device(name)
    except RuntimeError:  # torch does not know the name
        device = None
    if device is None or (device.index or 0) >= available.get(device.type, 0):
        known = ["auto", *(kind for kind, number in available.items() if number)]
        raise ConfigError(
            f"device: expected one of {known}, got {name!r} (torch {torch.__version__} has {gpus} "
            "CUDA devices here)"
        )
    return device


def _average(model: AnyNetwork, decay: float) -> AveragedModel:
    """The moving average of the weights, batch norm statistics included."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def _distributed(losses: PairLosses | ExternalLosses) -> nn.Module:
    """With several processes, the module that averages their gradients.

    On GPUs batch norms see the images of all processes; for CPUs torch has no such layer.
    """
    if processes.count() == 1:
        return losses
    if next(losses.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(losses)
    return DistributedDataParallel(losses)
