"""What a data set is: its splits, its reader, the form of its predictions and how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..natural_order import natural_order
from .predictions import PredictionFormat
from .video import DatasetError, VideoDataset


@dataclass(frozen=True)
class PanopticRules:
    """What STQ and VPQ leave open: as the benchmark scores it, and the authors of Video K-Net."""

    windows: tuple[int, ...] = (1, 2, 3, 4)
    """Lengths in frames whose VPQ is averaged."""
    crowd: Literal["ignore", "segment"] = "ignore"
    """Whether a crowd is ignored in VPQ or is a segment."""
    authors_windows: tuple[int, ...] = (1, 2, 3, 4)
    authors_things: tuple[int, ...] | None = None
    """Classes whose tracks count in STQ; None = the things of the data set."""


@dataclass(frozen=True)
class DatasetFormat:
    """A kind of data set."""

    name: str
    task: str
    """Kind of its labels: "panoptic", "semantic" or "instance"."""
    open_split: Callable[[Path, str], VideoDataset]
    """Opens a split of a root; DatasetError if it is missing or faulty."""
    markers: tuple[str, ...]
    """Paths below the root, of which a split has one; {} stands for its name."""
    splits: tuple[str, ...] = ("train", "val", "test")
    """The second is the one that models are compared on."""
    predictions: PredictionFormat[Any] | None = None
    """None where the data set is for training and its validation only."""
    rules: PanopticRules = PanopticRules()
    find_splits: Callable[[Path], Iterable[str]] | None = None
    """The splits of a root, where their names are not those of `splits`."""

    @property
    def validation(self) -> str:
        """The split that models are compared on."""
        return self.splits[1]

    def available_splits(self, root: Path) -> tuple[str, ...]:
        """The splits that `root` has, of those known."""
        if self.find_splits is not None:
            return tuple(self.find_splits(root))
        return tuple(
            split
            for split in self.splits
            if any((root / marker.format(split)).exists() for marker in self.markers)
        )

    def open(self, root: Path, split: str) -> VideoDataset:
        """Open one split; DatasetError if it is missing, or an index is faulty."""
        if split not in self.available_splits(root):
            markers = " or ".join(marker.format(split) for marker in self.markers)
            raise DatasetError(
                f"{self.name}: expected the split {split!r} ({markers}) in {root}, "
                f"got {_content(root)}"
            )
        return self.open_split(root, split)


def _content(root: Path) -> str:
    if not root.is_dir():
        return "no such folder"
    names = natural_order(path.name for path in root.iterdir())
    return ", ".join(names[:10]) or "an empty folder"
