"""Label videos for the tests of the tube metrics: golden cases, drawn ones, tiny ones by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from video_knet_core.metrics.overlaps import OverlapMetric

GOLDEN = Path(__file__).parents[1] / "fixtures" / "metrics"
KITTI = sorted(GOLDEN.glob("kitti_*.npz"))
CITYSCAPES = sorted(GOLDEN.glob("cityvps_*.npz"))
MAPS = ("gt_sem", "gt_ins", "pred_sem", "pred_ins")
CLASSES, THINGS, VOID = 4, (2, 3), 255
"""Of the drawn videos."""

Video = tuple[np.ndarray, ...]
"""Ground truth classes and ids, predicted classes and ids; each [T, H, W]."""


def golden(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a golden case."""
    with np.load(path, allow_pickle=False) as case:
        return dict(case)


def golden_videos(case: dict[str, np.ndarray]) -> list[Video]:
    """The videos of a golden case."""
    return [tuple(case[f"{name}_{i}"] for name in MAPS) for i in range(int(case["num_seqs"]))]


def measured(metric: OverlapMetric, videos: list[Video], by_frame: bool = False) -> Any:
    """Scores of the videos, given whole or frame after frame."""
    for i, video in enumerate(videos):
        for maps in zip(*video, strict=True) if by_frame else [video]:
            metric.update(*maps, sequence=i)
    return metric.compute()


def one_thing(ids: list[int], thing: int = 1) -> Video:
    """Classes and ids [T, 4, 4]: the left half is a thing with these ids, the rest stuff 0."""
    semantic = np.zeros((len(ids), 4, 4), np.uint8)
    semantic[:, :, :2] = thing
    instance = np.where(semantic == thing, np.array(ids)[:, None, None], 0)
    return semantic, instance


@st.composite
def videos(draw: st.DrawFn) -> Video:
    """Small noisy videos; ids 0..3 and any class everywhere, void included."""
    shape = tuple(draw(st.integers(1, limit)) for limit in (5, 4, 5))
    semantic = arrays(np.uint8, shape, elements=st.sampled_from([*range(CLASSES), VOID]))
    instance = arrays(np.uint16, shape, elements=st.integers(0, 3))
    return tuple(draw(part) for part in (semantic, instance, semantic, instance))


def perfect(video: Video) -> Video:
    """The video with its ground truth as prediction."""
    return video[0], video[1], video[0], video[1]


def renamed(video: Video, names: list[int]) -> Video:
    """Other ids for 1, 2, ... in prediction and (backwards) ground truth; 0 is crowd and stays."""
    truth, predicted = np.array([0, *names[::-1]]), np.array([0, *names])
    return video[0], truth[video[1]], video[2], predicted[video[3]]


NAMES = st.lists(st.integers(1, 1 << 40), min_size=3, max_size=3, unique=True)
"""Other names for the three things of a drawn video."""
