"""The order in which images are taken, and the epochs of the tracker."""

from __future__ import annotations

from pathlib import Path

import pytest
from bag_fixtures import PERIOD, TOPIC, changed_bag, image_row, read_all, write_mcap
from replay_results import result_of

from video_knet_core.bags.definitions import decode
from video_knet_core.messages.result_messages import nanoseconds
from video_knet_core.replay.bag_replay import replay
from video_knet_core.replay.replay_settings import ReplaySettings
from video_knet_core.tracking import tracker_settings


def stamped(tmp_path, stamps: list[float]) -> Path:
    """A bag of images with these stamps in seconds, received one after the other."""
    rows = [image_row(n, (n + 1) * PERIOD, stamp=round(s * 1e9)) for n, s in enumerate(stamps)]
    return write_mcap(tmp_path / "a.mcap", rows)


def seen(tmp_path, stamps: list[float], runtime) -> tuple[list[float], list[int]]:
    """Stamps of the tables of a bag with these stamps, and epochs after the first one."""
    replay(stamped(tmp_path, stamps), runtime, tmp_path / "out")
    tables = result_of(tmp_path / "out").tables["/video_knet/instances"]
    epochs = [t.tracker_epoch - tables[0].tracker_epoch for t in tables]
    return [nanoseconds(t.header.stamp) / 1e9 for t in tables], epochs


def test_images_that_overtook_each_other_are_put_in_the_order_of_their_stamps(runtime, tmp_path):
    stamps, epochs = seen(tmp_path, [1, 1.1, 1.3, 1.4, 1.2, 1.5, 1.7, 1.6], runtime)
    assert stamps == [1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7] and set(epochs) == {0}


def test_stamps_that_go_back_far_reset_the_tracker_as_in_the_live_node(runtime, tmp_path):
    stamps, epochs = seen(tmp_path, [5, 5.1, 5.2, 1, 1.1, 5, 5.1], runtime)
    assert stamps == [5, 5.1, 5.2, 1, 1.1, 5, 5.1]
    assert epochs == [0, 0, 0, 1, 1, 1, 1]  # a gap of less than 5 s forward is none


def test_an_image_that_is_too_late_to_be_put_in_order_is_left_out(runtime, tmp_path):
    stamps = [1 + 0.05 * n for n in range(12)]
    late = [*stamps[:7], 1.02, *stamps[7:]]
    summary = replay(stamped(tmp_path, late), runtime, tmp_path / "out")
    tables = result_of(tmp_path / "out").tables["/video_knet/instances"]
    assert [nanoseconds(t.header.stamp) / 1e9 for t in tables] == pytest.approx(stamps)
    assert summary.late == sum(t.skipped for t in tables) == 1 and "1 images were" in str(summary)
    assert len({t.tracker_epoch for t in tables}) == 1


def test_one_wrong_stamp_costs_no_ids(runtime, tmp_path):
    _, epochs = seen(tmp_path, [5, 5.1, 5.2, 95.3, 5.4, 5.5, 5.6], runtime)
    assert epochs == [0, 0, 0, 1, 0, 0, 0]
    tables = result_of(tmp_path / "out").tables["/video_knet/instances"]
    assert [len(t.born) for t in tables] == [1, 0, 0, 1, 0, 0, 0]


def first_epoch(out, runtime, path, tracking=None, **settings):
    replay(path, runtime, out, ReplaySettings(**settings), tracking)
    epoch = result_of(out).tables["/video_knet/instances"][0].tracker_epoch
    assert 0 < epoch < 2**48
    return epoch


def test_the_epoch_is_the_same_for_the_same_results_and_no_other(runtime, tmp_path):
    """Of a whole bag, with other products, of another start, of other images, of other settings."""
    path = stamped(tmp_path, [1, 1.1, 1.2, 1.3])
    (tmp_path / "other").mkdir()
    other = stamped(tmp_path / "other", [1, 1.1, 1.2, 1.4][::-1])
    whole = first_epoch(tmp_path / "a", runtime, path)
    assert first_epoch(tmp_path / "b", runtime, path, report=False, tracks=True) == whole
    assert first_epoch(tmp_path / "c", runtime, path, duration=0.2) == whole
    different = {
        first_epoch(tmp_path / "d", runtime, path, start=0.1),
        first_epoch(tmp_path / "e", runtime, path, every=2),
        first_epoch(tmp_path / "f", runtime, other),
        first_epoch(tmp_path / "g", runtime, path, tracker_settings(max_coast_s=1.0)),
    }
    assert len(different) == 4 and whole not in different


def test_recordings_with_equal_beginnings_have_different_epochs(runtime, tmp_path):
    """As two runs of a simulation: the first image, all times, names and sizes are the same."""

    def turned(rows):
        return [
            (*row[:3], row[3] if number < 3 else row[3][:-9] + bytes(9))
            for number, row in enumerate(rows)
        ]

    epochs = []
    for name, change in (("a", list), ("b", turned), ("c", list)):
        (tmp_path / name).mkdir()
        path = changed_bag(tmp_path / name, 4, change)
        epochs.append(first_epoch(tmp_path / name / "out", runtime, path))
    assert epochs[0] == epochs[2] != epochs[1]


def test_equal_stamps_stay_in_the_order_of_their_arrival(runtime, tmp_path):
    path = stamped(tmp_path, [1, 1, 1, 1.1])
    replay(path, runtime, tmp_path / "out", ReplaySettings(include_input_topics=True))
    copies = [m for m in read_all(tmp_path / "out/bag") if m.topic.name == TOPIC]
    assert [int(decode(m).data[1]) for m in copies] == [0, 1, 2, 3]
    assert len(result_of(tmp_path / "out").tables["/video_knet/instances"]) == 4


def test_an_image_without_a_stamp_counts_from_when_it_was_received(runtime, tmp_path):
    stamps, epochs = seen(tmp_path, [0, 0, 0], runtime)
    assert stamps == [0, 0, 0] and epochs == [0, 0, 0]
    tables = result_of(tmp_path / "out").tables["/video_knet/instances"]
    assert tables[2].instances[1].velocity_x == pytest.approx(10, rel=0.1)  # a pixel in 0.1 s
