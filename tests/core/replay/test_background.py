"""Reading ahead in a thread."""

from __future__ import annotations

import threading

import pytest
from bag_fixtures import changed_bag
from replay_results import result_of, string

from video_knet_core.bags.definitions import (
    ros2_types,
)
from video_knet_core.replay import bag_replay
from video_knet_core.replay.background import AHEAD, read_ahead
from video_knet_core.replay.bag_replay import replay
from video_knet_core.replay.replay_settings import ReplaySettings


def test_reading_is_a_little_ahead_and_an_error_comes_in_its_turn():
    made = []

    def items():
        for number in range(6):
            made.append(number)
            yield number
        raise OSError("the disk is gone")

    taken = []
    with pytest.raises(OSError, match="the disk is gone"):
        for item in read_ahead(items()):
            taken.append(item)
            assert len(made) <= item + 1 + AHEAD
    assert taken == made == [0, 1, 2, 3, 4, 5]


def test_what_is_read_ahead_is_closed_in_the_thread_that_reads():
    threads = []

    def items():
        try:
            while True:
                threads.append(threading.current_thread())
                yield len(threads)
        finally:
            threads.append(threading.current_thread())

    reading = read_ahead(items())
    assert next(reading) == 1
    reading.close()
    assert len(set(threads)) == 1 and threads[0] is not threading.current_thread()
    assert not threads[0].is_alive()


def test_other_messages_between_the_images_do_not_pile_up(runtime, tmp_path, monkeypatch):
    sizes = []

    def watched(batches):
        for batch in read_ahead(batches):
            sizes.append(sum(len(message.data) for message, _ in batch))
            yield batch

    def add_scans(rows):
        yield from rows
        yield from (("/scan", "std_msgs/msg/String", rows[-1][2] + n, text) for n in range(50))

    monkeypatch.setattr(bag_replay, "read_ahead", watched)
    text = bytes(ros2_types().serialize_cdr(string("x" * 100_000), "std_msgs/msg/String"))
    path = changed_bag(tmp_path, 10, add_scans)
    assert (
        replay(path, runtime, tmp_path / "out", ReplaySettings(include_input_topics=True)).frames
        == 10
    )
    assert sum(sizes) > 5_000_000 and max(sizes) < bag_replay.BATCH + 2 * len(text)
    assert len(result_of(tmp_path / "out").times["/scan"]) == 50
