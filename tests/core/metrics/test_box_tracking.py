"""Tracking of boxes: equal to TrackEval on golden sequences, and as defined.

The golden file was written with TrackEval 1.3.0 (MIT), which brings another OpenCV, so in an
environment of its own: `pip install trackeval==1.3.0 && PYTHONPATH=. python
tests/core/metrics/test_box_tracking.py`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from video_knet_core.geometry import box_overlap
from video_knet_core.metrics.box_tracking import BoxTracking, TrackedBoxes, best_pairs

GOLDEN = Path(__file__).parents[2] / "fixtures" / "metrics" / "box_tracking.npz"
SCORES = ("mota", "idf1", "hota", "deta", "assa", "found", "missed", "false", "switches")
CASES = {
    # jitter of boxes, and fractions that are missed, false, of another class and of another id
    "good": (1, 0.02, 0.05, 0.0, 0.0),
    "loose": (4, 0.1, 0.2, 0.05, 0.1),
    "poor": (9, 0.4, 0.6, 0.2, 0.3),
    "grid": (0, 0.2, 0.3, 0.1, 0.3),
}


def table(rows: list[tuple[int, ...]]) -> np.ndarray:
    return np.array(rows, np.int64).reshape(-1, 8)


def invented(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows sequence, frame, id, class, x, y, width, height of true boxes and of tracks."""
    jitter, missed, false, other_class, switched = CASES[name]
    rng, true, found = np.random.default_rng(list(CASES).index(name)), [], []
    for sequence in range(3):
        starts, speeds = rng.integers(0, 200, (8, 2)), rng.integers(-6, 7, (8, 2))
        sizes, ids = rng.integers(20, 60, (8, 2)), list(range(101, 109))
        for frame in range(20):
            for k in range(8 if sequence < 2 else 3):
                if not k <= frame < 20 - k:
                    continue
                box = np.concatenate([starts[k] + frame * speeds[k], sizes[k]])
                true.append((sequence, frame, k + 1, k % 2, *box))
                ids[k] = ids[k] + 100 if rng.random() < switched else ids[k]
                if rng.random() >= missed:
                    moved = box + np.round(rng.normal(0, jitter, 4)).astype(int)
                    class_id = 1 - k % 2 if rng.random() < other_class else k % 2
                    found.append((sequence, frame, ids[k], class_id, *moved))
            for n in range(int(rng.poisson(false))):
                box = (*rng.integers(0, 200, 2), *rng.integers(20, 60, 2))
                found.append((sequence, frame, 9000 + n, int(rng.integers(2)), *box))
    empty = (
        3,
        0,
        1,
        0,
        5,
        5,
        20,
        20,
    )  # a sequence that has true boxes only, and one with tracks only
    return table([*true, empty]), table([*found, (4, 0, 7, 0, 5, 5, 20, 20)])


def boxes(rows: np.ndarray, sequence: int, frame: int) -> TrackedBoxes:
    own = rows[(rows[:, 0] == sequence) & (rows[:, 1] == frame)]
    return TrackedBoxes(own[:, 2], own[:, 3], own[:, 4:])


def record() -> None:
    """Write the golden file with TrackEval's own metrics."""
    from trackeval.metrics import CLEAR, HOTA, Identity

    columns: dict[str, np.ndarray] = {}
    for name in CASES:
        true, found = invented(name)
        parts: dict[str, dict[int, dict]] = {"CLEAR": {}, "HOTA": {}, "Identity": {}}
        for sequence in range(5):
            data: dict = {"num_timesteps": 20, "similarity_scores": []}
            sides = {"gt": true, "tracker": found}
            keys = {s: rows[:, 2] * 10 + rows[:, 3] for s, rows in sides.items()}
            for side, rows in sides.items():
                mine = rows[:, 0] == sequence
                names, numbers = np.unique(keys[side][mine], return_inverse=True)
                frames = rows[mine, 1]
                data[f"num_{side}_ids"], data[f"num_{side}_dets"] = len(names), int(mine.sum())
                data[f"{side}_ids"] = [numbers[frames == frame] for frame in range(20)]
            for frame in range(20):
                a, b = (boxes(rows, sequence, frame) for rows in (true, found))
                same = a.class_ids[:, None] == b.class_ids
                data["similarity_scores"].append(box_overlap(a.boxes, b.boxes) * same)
            for metric in (
                CLEAR({"PRINT_CONFIG": False}),
                HOTA(),
                Identity({"PRINT_CONFIG": False}),
            ):
                parts[type(metric).__name__][sequence] = metric.eval_sequence(data)
        clear = CLEAR({"PRINT_CONFIG": False}).combine_sequences(parts["CLEAR"])
        hota = HOTA().combine_sequences(parts["HOTA"])
        identity = Identity({"PRINT_CONFIG": False}).combine_sequences(parts["Identity"])
        means = (np.mean(hota[key]) for key in ("HOTA", "DetA", "AssA"))
        counts = (clear[key] for key in ("CLR_Re", "CLR_FN", "CLR_FP", "IDSW"))
        columns[f"{name}__true"], columns[f"{name}__found"] = true, found
        columns[name] = np.array([clear["MOTA"], identity["IDF1"], *means, *counts], np.float64)
    np.savez_compressed(GOLDEN, **columns)


def measured(true: np.ndarray, found: np.ndarray) -> dict[str, float]:
    metric = BoxTracking()
    for sequence, frame in np.unique(np.concatenate([true, found])[:, :2], axis=0).tolist():
        metric.update(*(boxes(rows, sequence, frame) for rows in (true, found)), sequence=sequence)
    return asdict(metric.compute())


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_those_of_trackeval(name: str) -> None:
    with np.load(GOLDEN, allow_pickle=False) as golden:
        scores = measured(golden[f"{name}__true"], golden[f"{name}__found"])
        expected = dict(zip(SCORES, golden[name].tolist(), strict=True))
    assert {key: scores[key] for key in SCORES} == pytest.approx(expected, abs=1e-9)


# --- the definition ------------------------------------------------------------------------------


def of(*rows: tuple[int, ...], class_id: int = 0) -> TrackedBoxes:
    """Boxes 10 x 10, each as id, x."""
    ids, x = np.array(rows, np.int64).reshape(-1, 2).T
    columns = x, np.zeros_like(x), np.full_like(x, 10), np.full_like(x, 10)
    return TrackedBoxes(ids, np.full_like(ids, class_id), np.stack(columns, axis=1))


def scores_of(*frames: tuple[TrackedBoxes, TrackedBoxes]) -> dict[str, float]:
    metric = BoxTracking()
    for true, found in frames:
        metric.update(true, found)
    return asdict(metric.compute())


def test_a_perfect_tracker_scores_1() -> None:
    frame = of((1, 0), (2, 50))
    scores = scores_of(*3 * [(frame, frame)])
    perfect = ("found", "mota", "idf1", "hota", "deta", "assa", "ids")
    assert [scores[name] for name in perfect] == pytest.approx([1] * 7)
    assert scores["missed"] == scores["false"] == scores["switches"] == 0 and scores["boxes"] == 6


def test_a_box_of_another_class_is_missed_and_false() -> None:
    scores = scores_of((of((1, 0)), of((1, 0), class_id=1)))
    assert (scores["found"], scores["missed"], scores["false"], scores["mota"]) == (0, 1, 1, -1)


def test_an_object_with_another_id_is_a_switch_also_after_a_gap() -> None:
    true, none = of((1, 0)), of()
    scores = scores_of((true, of((7, 0))), (true, none), (true, of((8, 0))), (true, of((8, 0))))
    assert scores["switches"] == 1 and scores["ids"] == 2 and scores["missed"] == 1
    assert scores["mota"] == pytest.approx(1 - 2 / 4)


def test_a_pair_is_kept_while_it_overlaps_though_another_box_is_nearer() -> None:
    before = of((1, 0)), of((7, 0))
    scores = scores_of(before, (of((1, 0)), of((7, 3), (8, 0))))
    assert scores["switches"] == 0 and scores["false"] == 1


def test_a_box_on_unlabelled_ground_counts_only_if_it_is_an_objects() -> None:
    metric, true, found = BoxTracking(), of((1, 0)), of((7, 0), (8, 50), (9, 80))
    metric.update(true, found, np.array([True, True, False]))
    scores = metric.compute()
    assert (scores.found, scores.false) == (1, 1)


def test_sequences_are_kept_separate_and_merged() -> None:
    whole, first, second = BoxTracking(), BoxTracking(), BoxTracking()
    for number, part in enumerate((first, second)):
        for metric in (whole, part):
            metric.update(of((1, 0)), of((7 + number, 0)), sequence=number)
    first.merge(second)
    assert first.compute() == whole.compute()
    assert whole.compute().switches == 0 and whole.compute().idf1 == 1


def test_without_true_boxes_nothing_can_be_measured() -> None:
    for scores in (scores_of(), scores_of((of(), of((1, 0))))):
        fractions = ("found", "mota", "idf1", "hota", "deta", "assa", "ids")
        assert all(np.isnan(scores[name]) for name in fractions)
    assert scores["false"] == 1


def test_boxes_of_maps_enclose_the_pixels_of_each_thing_with_an_id() -> None:
    semantic, instance = np.zeros((6, 8), np.uint8), np.zeros((6, 8), np.uint16)
    semantic[1:4, 2:5], instance[1:4, 2:5] = 1, 3
    semantic[5, 0], instance[5, 0] = 1, 3  # a part elsewhere
    semantic[2, 2] = 2  # another class, so another object
    semantic[0, 7] = 1  # no id
    instance[5, 7] = 9  # stuff
    found = TrackedBoxes.of_maps(semantic, instance, (1, 2))
    assert found.ids.tolist() == [3, 3] and found.class_ids.tolist() == [1, 2]
    assert found.boxes.tolist() == [[0, 1, 5, 5], [2, 2, 1, 1]]
    assert TrackedBoxes.of_maps(semantic, instance, ()).boxes.shape == (0, 4)


def test_the_best_pairs_are_those_of_all_permutations() -> None:
    from itertools import permutations

    rng = np.random.default_rng(0)
    for _ in range(60):
        rows, columns = (int(n) for n in rng.integers(0, 6, 2))
        scores = np.round(rng.random((rows, columns)) * (rng.random((rows, columns)) < 0.7), 1)
        small = scores if rows <= columns else scores.T
        best = max(
            sum(small[n, m] for n, m in enumerate(order))
            for order in permutations(range(max(rows, columns)), min(rows, columns))
        )
        first, second = best_pairs(scores)
        assert len(set(first)) == len(first) and len(set(second)) == len(second)
        assert scores[first, second].sum() == pytest.approx(best)
        assert (scores[first, second] > 0).all()


if __name__ == "__main__":
    record()
