"""Id switches within visibility segments."""

from __future__ import annotations

import numpy as np

from video_knet_core.metrics.id_switches import IdSwitches


def ids(*values):
    """A row of four pixels for each id."""
    return np.repeat(np.array([values]), 4, axis=1)


def segments_of(*clips):
    """Segments, those with one id, and switches, of clips of frames of true and predicted ids."""
    counter = IdSwitches(2, [1])
    for number, frames in enumerate(clips):
        for truth, predicted in frames:
            counter.update((truth > 0) * 1, truth, (predicted > 0) * 1, predicted, number)
    return counter.compute()


def test_an_id_that_stays_is_no_switch():
    assert segments_of([(ids(0, 1, 2), ids(0, 7, 8)), (ids(1, 0, 2), ids(7, 0, 8))]) == (2, 2, 0)


def test_swapped_ids_are_two_switches():
    assert segments_of([(ids(1, 2), ids(7, 8)), (ids(1, 2), ids(8, 7))]) == (2, 0, 2)


def test_a_missed_frame_is_no_switch_but_the_id_after_it_counts():
    found, missed = (ids(1), ids(7)), (ids(1), ids(0))
    assert segments_of([found, missed, found]) == (1, 1, 0)
    assert segments_of([found, missed, (ids(1), ids(9))]) == (1, 0, 1)


def test_an_object_that_left_and_returned_may_have_a_new_id():
    first, away, back = (ids(1), ids(7)), (ids(0), ids(0)), (ids(1), ids(9))
    assert segments_of([first, first, away, back, back]) == (2, 2, 0)


def test_a_track_that_covers_less_than_half_is_not_the_objects():
    truth = ids(1, 1, 1, 0)
    assert segments_of([(truth, ids(7, 0, 0, 0)), (truth, ids(8, 0, 0, 0))]) == (0, 0, 0)


def test_clips_are_kept_separate():
    clips = [2 * [(ids(1), ids(track_id))] for track_id in (7, 8)]
    assert segments_of(*clips) == (2, 2, 0)
