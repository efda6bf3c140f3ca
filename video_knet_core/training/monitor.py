"""Progress bar and TensorBoard of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from ..progress import progress_bar
from .clip_validation import Quality

_REPORT_EVERY = 10
"""Steps."""


class Monitor:
    """Shows one run, until it is closed; a silent one is for processes beside the first."""

    def __init__(self, out: Path, steps: int, first: int, silent: bool) -> None:
        self._steps, self._warned = steps, False
        folder = str(out / "tensorboard")
        self._writer = None if silent else SummaryWriter(folder, purge_step=first)
        self._bar = progress_bar(
            total=steps, initial=first, unit="step", dynamic_ncols=True, disable=silent
        )

    def close(self) -> None:
        """Write what is left."""
        self._bar.close()
        if self._writer:
            self._writer.close()

    def step(self, step: int, losses: Mapping[str, Tensor], rate: float) -> None:
        """After step number `step` (from 1)."""
        self._bar.update()
        if self._writer is None or (step % _REPORT_EVERY and step != self._steps):
            return
        for name, loss in losses.items():
            self._writer.add_scalar(f"loss/{name}", loss.item(), step)
        self._writer.add_scalar("learning_rate", rate, step)
        shown = {"loss": f"{losses['total'].item():.2f}"}
        if "track" in losses:
            shown["track"] = f"{losses['track'].item():.3f}"
        self._bar.set_postfix(shown)

    def validated(self, step: int, quality: Quality) -> None:
        """After a validation: its scores, and pictures of what the model predicts. A warning, once,
        if some cannot be measured on these clips, with the rule by which the best model is kept."""
        if self._writer is None:
            return
        measured = quality.measured
        for name, score in measured.items():
            if score is not None:
                self._writer.add_scalar(f"validation/{name}", score, step)
        for number, picture in enumerate(quality.pictures):
            self._writer.add_image(f"clip {number}", picture, step, dataformats="HWC")
        scores = (f"{k} {'n/a' if v is None else f'{v:.3f}'}" for k, v in measured.items())
        self._bar.write(f"step {step}: " + "  ".join(scores))
        unmeasured = [name for name, score in measured.items() if score is None]
        if unmeasured and not self._warned:
            self._warned = True
            best, _ = quality.decisive
            rule = f"{best} decides which model is the" if best else "the newest model is the"
            self._bar.write(
                f"warning: {', '.join(unmeasured)} cannot be measured on the validation clips "
                f"(they have no such labels): {rule} best"
            )
