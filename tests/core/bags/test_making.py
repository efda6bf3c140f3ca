"""Bags of videos, read again by us and by rosbags."""

from __future__ import annotations

import numpy as np
import pytest
from bag_fixtures import TOPIC, bag_of, block, drive, read_all, storage_file
from replay_results import failure
from rosbags.highlevel import AnyReader

from video_knet_core.bags.bag import BagError, RecordedTopic
from video_knet_core.bags.definitions import Embedded, decode, ros2_types
from video_knet_core.bags.making import DELAY, FIRST_STAMP, BagFormat, make_bag
from video_knet_core.bags.opening import open_bag
from video_knet_core.cli import main
from video_knet_core.data.frames import open_frames
from video_knet_core.messages.image_messages import to_rgb
from video_knet_core.overlay_video import OverlayVideo

FORMS = [
    BagFormat(form, compression)
    for form, compressions in {
        "mcap": ("none", "chunk", "message", "file"),
        "sqlite3": ("none", "message", "file"),
        "ros1": ("none", "chunk"),
    }.items()
    for compression in compressions
]


PLAIN = [BagFormat(form) for form in ("mcap", "sqlite3", "ros1")]


def name_of(form: BagFormat) -> str:
    return f"{form.format}-{form.compression}"


@pytest.mark.parametrize("form", FORMS, ids=name_of)
def test_every_message_comes_as_rosbags_reads_it(form, tmp_path):
    path = bag_of(tmp_path, 30, form, ("/a/image_raw", "/b/image_raw"))
    found = [(m.topic.name, m.topic.type, m.time, bytes(m.data)) for m in read_all(path)]
    with AnyReader([path]) as reader:
        expected = [(c.topic, c.msgtype, t, bytes(data)) for c, t, data in reader.messages()]
    assert len(found) == 60 and sorted(found) == sorted(expected)
    contents = open_bag(path).contents()
    assert contents.counts == {"/a/image_raw": 30, "/b/image_raw": 30} and not contents.damage
    assert (contents.start, contents.end) == (expected[0][2], expected[-1][2])
    assert all(topic.definition for topic in contents.topics)


@pytest.mark.parametrize("form", FORMS, ids=name_of)
def test_a_made_bag_holds_the_images_and_their_stamps(form, tmp_path):
    for number, message in enumerate(read_all(bag_of(tmp_path, 5, form))):
        decoded = decode(message)
        assert np.array_equal(to_rgb(decoded), block(number))
        assert message.time == FIRST_STAMP + number * 100_000_000 + DELAY
        assert decoded.header.frame_id == "camera_image_raw"


@pytest.mark.parametrize("form", ["mcap", "sqlite3", "ros1"])
def test_a_made_bag_of_jpeg_has_compressed_images(form, tmp_path):
    (message,) = read_all(bag_of(tmp_path, 1, BagFormat(form, jpeg=95)))
    assert message.topic.name == f"{TOPIC}/compressed"
    assert message.topic.type == "sensor_msgs/msg/CompressedImage"
    assert np.abs(to_rgb(decode(message)).astype(int) - block(0)).mean() < 3


def test_making_a_bag_twice_gives_the_same_bytes(tmp_path):
    for form in PLAIN:
        files = []
        for name in ("first", "second"):
            folder = tmp_path / form.format / name
            files.append(storage_file(bag_of(folder, 5, form)).read_bytes())
        assert files[0] == files[1]


def test_a_bag_is_never_overwritten(tmp_path):
    for form in PLAIN:
        bag_of(tmp_path / form.format, 1, form)
        with pytest.raises(BagError, match="exists already"):
            bag_of(tmp_path / form.format, 1, form)


def test_a_compression_that_the_format_lacks_is_rejected():
    with pytest.raises(BagError, match="sqlite3 can be compressed by none, message, file"):
        BagFormat("sqlite3", "chunk")


def test_make_bag_of_the_synthetic_street(tmp_path, capsys):
    command = ["make-bag", "synthetic:3", "--out", str(tmp_path / "bag"), "--max-frames", "2"]
    assert main(command) == 0
    assert "2 images on /camera/image_raw" in capsys.readouterr().out
    expected = [image for image, _ in zip(open_frames("synthetic:3"), range(2), strict=False)]
    for message, (image, _) in zip(read_all(tmp_path / "bag"), expected, strict=True):
        assert np.array_equal(decode(message).data.reshape(image.shape), image)


def test_make_bag_keeps_the_times_of_a_video(tmp_path):
    stamps = [0, 33_000_000, 967_000_000, 3_033_000_000]
    with OverlayVideo(tmp_path / "a.mp4", 30) as video:
        for stamp in stamps:
            video.write(np.zeros((48, 64, 3), np.uint8), stamp)
    assert main(["make-bag", str(tmp_path / "a.mp4"), "--out", str(tmp_path / "bag")]) == 0
    times = [message.time for message in read_all(tmp_path / "bag")]
    np.testing.assert_allclose(np.array(times) - times[0], stamps, atol=17_000)


def test_make_bag_that_cannot_end_or_has_another_name_is_rejected(tmp_path, capsys):
    command = ["make-bag", "synthetic", "--out", str(tmp_path / "bag")]
    assert "never ends: give --max-frames" in failure(command, capsys)
    command += ["--max-frames", "1", "--format", "ros1"]
    assert "expected NAME.bag for ros1, got bag" in failure(command, capsys)


def test_ros_1_messages_become_those_of_ros_2(tmp_path):
    make_bag({TOPIC: drive(1)}, tmp_path / "in.bag", BagFormat("ros1"))
    make_bag({TOPIC: drive(1)}, tmp_path / "in", BagFormat())
    (old,), (new,) = read_all(tmp_path / "in.bag"), read_all(tmp_path / "in")
    embedded = Embedded(old.topic)
    assert bytes(embedded.to_cdr(old.data)) == bytes(new.data)
    assert embedded.hash == ros2_types().hash_rihs01("sensor_msgs/msg/Image")


def test_a_type_without_any_definition_is_named():
    with pytest.raises(BagError, match="/gains: .*other/msg/Gains"):
        Embedded(RecordedTopic("/gains", "other/msg/Gains"))
