"""Message definitions that are embedded in bags."""

from __future__ import annotations

import numpy as np
import pytest
from bag_fixtures import TOPIC, drive, read_all
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from video_knet_core.bags.bag import BagError, RecordedTopic
from video_knet_core.bags.definitions import Embedded, ros2_types
from video_knet_core.bags.making import BagFormat, make_bag


def test_ros_1_messages_become_those_of_ros_2(tmp_path):
    make_bag({TOPIC: drive(1)}, tmp_path / "in.bag", BagFormat("ros1"))
    make_bag({TOPIC: drive(1)}, tmp_path / "in", BagFormat())
    (old,), (new,) = read_all(tmp_path / "in.bag"), read_all(tmp_path / "in")
    embedded = Embedded(old.topic)
    assert bytes(embedded.to_cdr(old.data)) == bytes(new.data)
    assert embedded.hash == ros2_types().hash_rihs01("sensor_msgs/msg/Image")


def test_a_type_of_somebody_else_is_copied_by_its_own_definition(tmp_path):
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg("float64[2] gains\nstring name", "other/msg/Gains"))
    with Writer(tmp_path / "in", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/gains", "other/msg/Gains", typestore=store)
        message = store.types["other/msg/Gains"](gains=np.array([1.0, 2.0]), name="x")
        writer.write(connection, 1, store.serialize_cdr(message, "other/msg/Gains"))
    (found,) = read_all(tmp_path / "in")
    assert "float64[2] gains" in Embedded(found.topic).definition


def test_a_type_without_any_definition_is_named():
    with pytest.raises(BagError, match="/gains: .*other/msg/Gains"):
        Embedded(RecordedTopic("/gains", "other/msg/Gains"))
