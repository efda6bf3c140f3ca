"""STQ and VPQ against the way the reference scripts compute them: CPU time and peak memory.

    python benchmarks/metrics.py --frames 300

One synthetic street video of 375 x 1242 pixels, STQ and VPQ over windows of 1 to 4 frames. "plain"
is how the scripts of deeplab2 and of Video K-Net's authors do it, in few words: `np.unique` over
whole maps (for VPQ over the stacked maps of each window) and a Python loop over its segments. Both
get the same frames in turn; making them is not measured. Time is that of the processor (both run
on one), so a busy machine matters less. The results must be equal.

Peak memory is that of the evaluation of the first frames, without the maps it is given.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections import Counter, deque
from collections.abc import Callable, Iterator

import numpy as np

from video_knet_core.metrics.stq import SegmentationTrackingQuality
from video_knet_core.metrics.vpq import MeanVideoPanopticQuality

SIZE = (375, 1242)
CLASSES, THINGS, VOID = 19, (11, 13), 255
WINDOWS = (1, 2, 3, 4)
MEMORY_FRAMES = 8
SHIFT = 1 << 32
"""Factor that makes one number of a pair of segment numbers."""

Frame = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def street(frames: int, objects: int, noise: float) -> Iterator[Frame]:
    """Bands of stuff with moving things; the prediction is shifted, ragged and has other ids.

    `noise` is the share of predicted pixels with an arbitrary class.
    """
    rng = np.random.default_rng(0)
    height, width = SIZE
    rows, columns = np.mgrid[:height, :width]
    edges = np.array([60, 130, 180, 230])[:, None] + 8 * np.sin(np.arange(width) / 40)
    stuff = np.array([10, 2, 8, 1, 0], np.uint8)[(rows > edges[:, None]).sum(0)]
    stuff[:, :6] = VOID
    x, y = rng.uniform(0, width, objects), rng.uniform(150, 300, objects)
    speed, radius = rng.uniform(-6, 6, objects), rng.uniform(6, 50, objects)
    for t in range(frames):
        semantic, ids = stuff.copy(), np.zeros(SIZE, np.int32)
        for i in range(objects):
            center = (x[i] + speed[i] * t) % width
            inside = (columns - center) ** 2 + 2 * (rows - y[i]) ** 2 < radius[i] ** 2
            semantic[inside], ids[inside] = THINGS[i % 2], i + 1
        ragged = (columns + rng.integers(-3, 4, (height, 1))).clip(0, width - 1)
        predicted, tracks = semantic[rows, ragged], ids[rows, ragged]
        tracks = np.where(tracks > 0, 1000 + (tracks + t // 50) % objects, 0)
        wrong = rng.random(SIZE) < noise
        predicted[wrong] = rng.integers(0, CLASSES, wrong.sum())
        yield semantic, ids, np.where(predicted == VOID, 0, predicted), tracks


def counted(numbers: np.ndarray) -> dict[int, int]:
    """Pixels of each number."""
    values, sizes = np.unique(numbers, return_counts=True)
    return dict(zip(values.tolist(), sizes.tolist(), strict=True))


def numbered(semantic: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """One number per (class, id); stuff has no id."""
    ids = np.where(np.isin(semantic, THINGS), ids, 0)
    return semantic.astype(np.int64) * (1 << 20) + ids


class PlainSTQ:
    """STQ, frame by frame over whole maps."""

    def __init__(self) -> None:
        self.confusion: Counter[int] = Counter()
        self.truth: Counter[int] = Counter()
        self.predicted: Counter[int] = Counter()
        self.overlap: Counter[int] = Counter()

    def update(self, semantic, ids, pred_semantic, pred_ids) -> None:
        valid = semantic != VOID
        self.confusion.update(counted(semantic[valid] * np.int64(256) + pred_semantic[valid]))
        things = np.isin(semantic, THINGS) & (ids > 0)
        crowd = np.isin(semantic, THINGS) & (ids == 0)
        pred_things = np.isin(pred_semantic, THINGS) & ~crowd
        truth, predicted = numbered(semantic, ids), numbered(pred_semantic, pred_ids)
        both = things & pred_things
        self.truth.update(counted(truth[things]))
        self.predicted.update(counted(predicted[pred_things]))
        self.overlap.update(counted(truth[both] * SHIFT + predicted[both]))

    def compute(self) -> float:
        association = 0.0
        for truth, size in self.truth.items():
            for predicted, other in self.predicted.items():
                shared = self.overlap.get(truth * SHIFT + predicted, 0)
                association += shared * shared / (size + other - shared) / size
        table = np.zeros((256, 256))
        for pair, size in self.confusion.items():
            table[divmod(pair, 256)] = size
        union = table.sum(0) + table.sum(1) - table.diagonal()
        iou = table.diagonal()[union > 0] / union[union > 0]
        return float(np.sqrt(association / len(self.truth) * iou.mean()))


class PlainVPQ:
    """VPQ of one window length, over the stacked maps of each window."""

    def __init__(self, window: int) -> None:
        self.frames: deque[Frame] = deque(maxlen=window)
        self.iou, self.matched, self.missed, self.wrong = np.zeros((4, 256))

    def update(self, *frame: np.ndarray) -> None:
        self.frames.append(frame)
        if len(self.frames) == self.frames.maxlen:
            self._evaluate(*(np.stack(maps) for maps in zip(*self.frames, strict=True)))

    def _evaluate(self, semantic, ids, pred_semantic, pred_ids) -> None:
        truth, predicted = numbered(semantic, ids), numbered(pred_semantic, pred_ids)
        true_sizes, sizes = counted(truth), counted(predicted)
        pairs = counted(truth * SHIFT + predicted)
        void = VOID << 20
        true_found, found = set(), set()
        for pair, shared in pairs.items():
            a, b = divmod(pair, SHIFT)
            on_void = pairs.get(void * SHIFT + b, 0)
            iou = shared / (true_sizes[a] + sizes[b] - shared - on_void) if a != void else 0
            if a >> 20 == b >> 20 and iou > 0.5:
                self.iou[a >> 20] += iou
                self.matched[a >> 20] += 1
                true_found.add(a)
                found.add(b)
        for a in true_sizes.keys() - true_found - {void}:
            self.missed[a >> 20] += 1
        for b in sizes.keys() - found - {void}:
            if pairs.get(void * SHIFT + b, 0) / sizes[b] <= 0.5:
                self.wrong[b >> 20] += 1

    def compute(self) -> float:
        tubes = self.matched + self.missed / 2 + self.wrong / 2
        return float((self.iou[tubes > 0] / tubes[tubes > 0]).mean())


class Plain:
    """STQ and all windows of VPQ, the plain way."""

    def __init__(self) -> None:
        self.stq, self.vpq = PlainSTQ(), [PlainVPQ(window) for window in WINDOWS]

    def update(self, *frame: np.ndarray) -> None:
        for metric in (self.stq, *self.vpq):
            metric.update(*frame)

    def compute(self) -> list[float]:
        return [self.stq.compute(), *(metric.compute() for metric in self.vpq)]


class Ours:
    """STQ and all windows of VPQ as the package does it."""

    def __init__(self) -> None:
        self.stq = SegmentationTrackingQuality(CLASSES, THINGS)
        self.vpq = MeanVideoPanopticQuality(CLASSES, THINGS, WINDOWS, crowd="segment")

    def update(self, *frame: np.ndarray) -> None:
        self.stq.update(*frame)
        self.vpq.update(*frame)

    def compute(self) -> list[float]:
        windows = self.vpq.compute().per_window.values()
        return [self.stq.compute().stq, *(quality.vpq for quality in windows)]


def seconds(call: Callable, *arguments: np.ndarray) -> float:
    """Processor time of the call."""
    start = time.process_time()
    call(*arguments)
    return time.process_time() - start


def peak_memory(metric: Ours | Plain, frames: list[Frame]) -> float:
    """MB that the evaluation of the frames needs at most."""
    tracemalloc.start()
    for frame in frames:
        metric.update(*frame)
    metric.compute()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--objects", type=int, default=40)
    parser.add_argument("--noise", type=float, default=0.0, help="share of arbitrary pixels")
    arguments = parser.parse_args()
    video = (arguments.objects, arguments.noise)
    ours, plain = Ours(), Plain()
    times = np.zeros(2)
    for frame in street(arguments.frames, *video):
        times += seconds(ours.update, *frame), seconds(plain.update, *frame)
    times += seconds(ours.compute), seconds(plain.compute)
    np.testing.assert_allclose(ours.compute(), plain.compute(), rtol=0, atol=1e-9)
    few = list(street(MEMORY_FRAMES, *video))
    memory = [peak_memory(metric, few) for metric in (Ours(), Plain())]
    print(f"{arguments.frames} frames of {SIZE[0]} x {SIZE[1]}, STQ and VPQ{list(WINDOWS)}:")
    print("scores " + " ".join(f"{score:.4f}" for score in ours.compute()))
    for name, spent, peak in zip(("ours", "plain"), times, memory, strict=True):
        each = spent / arguments.frames * 1e3
        print(f"{name:<6} {spent:7.2f} s ({each:6.1f} ms a frame), peak {peak:6.1f} MB")
    print(f"ratio {times[1] / times[0]:.1f} in time, {memory[1] / memory[0]:.1f} in memory")


if __name__ == "__main__":
    main()
