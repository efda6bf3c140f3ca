"""Bags of videos, read again by us and by rosbags."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
from bag_fixtures import TOPIC, bag_of, block, drive, read_all, storage_file
from replay_results import failure
from rosbags.highlevel import AnyReader

from video_knet_core.bags.bag import BagError, RecordedTopic
from video_knet_core.bags.definitions import Embedded, decode, read_cdr, ros2_types
from video_knet_core.bags.making import DELAY, FIRST_STAMP, BagFormat, make_bag, make_depth_bag
from video_knet_core.bags.opening import open_bag
from video_knet_core.cli import main
from video_knet_core.data.frame_source import Frame, FrameSource, Intrinsics, View
from video_knet_core.data.frames import open_frames
from video_knet_core.messages.image_messages import to_rgb
from video_knet_core.messages.result_messages import nanoseconds
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


# --- depth ---------------------------------------------------------------------------------------


class Drive(FrameSource):
    """Two images with depth, of a camera that moves 1 m along x in 0.1 s."""

    fps = 10.0
    intrinsics = Intrinsics(fx=50.0, fy=60.0, cx=34.5, cy=24.5)

    def __iter__(self) -> Iterator[Frame]:
        return iter(drive(2))

    def views(self, with_depth: Callable[[], bool] = lambda: True) -> Iterator[View]:
        for number, (image, stamp) in enumerate(self):
            pose = np.eye(4)
            pose[0, 3] = number
            depth = np.full(image.shape[:2], 3.0, np.float32)
            depth[0] = 0
            yield View(image, stamp, depth, pose)


@pytest.mark.parametrize("form", PLAIN[:2], ids=name_of)
def test_depth_camera_and_odometry_are_beside_the_images(form, tmp_path):
    assert make_depth_bag(Drive(), "/front/image_raw", tmp_path / "bag", form) == 2
    rows = read_all(tmp_path / "bag")
    names = ["/front/camera_info", "/odometry", "/front/depth/image_raw", "/front/image_raw"]
    assert sorted({row.topic.name for row in rows}) == sorted(names)
    assert [row.topic.name for row in rows][3::4] == ["/front/image_raw"] * 2
    messages = {row.topic.name: read_cdr(row.data, row.topic.type) for row in rows[4:]}
    info, odometry, depth, image = (messages[name] for name in names)
    assert {nanoseconds(m.header.stamp) for m in messages.values()} == {FIRST_STAMP + 10**8}
    assert {m.header.frame_id for m in (info, depth, image)} == {"front"}
    assert (odometry.header.frame_id, odometry.child_frame_id) == ("odom", "front")
    metres = depth.data.view("<f4").reshape(depth.height, depth.width)
    assert depth.encoding == "32FC1" and np.isnan(metres[0]).all() and (metres[1:] == 3).all()
    assert info.k.tolist() == [50, 0, 34.5, 0, 60, 24.5, 0, 0, 1]
    assert (info.height, info.width) == (depth.height, depth.width) == metres.shape
    assert odometry.pose.pose.position.x == 1 and odometry.twist.twist.linear.x == 10


def test_a_video_without_depth_is_named(tmp_path):
    with pytest.raises(BagError, match="expected depth and the intrinsics"):
        make_depth_bag(StillImages(), TOPIC, tmp_path / "bag")
    assert not (tmp_path / "bag").exists()


class StillImages(FrameSource):
    """Images alone."""

    def __iter__(self) -> Iterator[Frame]:
        return iter(drive(2))


def test_make_bag_with_depth(tmp_path, capsys):
    for name in ("rgb", "depth"):
        (tmp_path / "in" / name).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "in/rgb/1.png"), block(0))
    cv2.imwrite(str(tmp_path / "in/depth/1.png"), np.full((50, 70), 2000, np.uint16))
    (tmp_path / "in/camera_info.yaml").write_text(
        "{image_width: 70, image_height: 50, camera_matrix: {data: [9, 0, 35, 0, 9, 25, 0, 0, 1]}}"
    )
    command = ["make-bag", str(tmp_path / "in"), "--depth", "--out", str(tmp_path / "bag")]
    assert main(command) == 0
    assert "1 images on /camera/image_raw" in capsys.readouterr().out
    found = [row.topic.name for row in read_all(tmp_path / "bag")]
    assert found == ["/camera/camera_info", "/camera/depth/image_raw", "/camera/image_raw"]
    assert "mcap or sqlite3 with --depth" in failure([*command, "--format", "ros1"], capsys)


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
