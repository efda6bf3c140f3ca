"""What replays leave, and how they end."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from bag_fixtures import read_all

from video_knet_core.bags.definitions import (
    read_cdr,
    ros2_types,
)
from video_knet_core.cli import main
from video_knet_core.replay.bag_replay import replay
from video_knet_core.replay.replay_settings import ReplaySettings

ALL = ReplaySettings(
    outputs=("instances", "panoptic", "semantic", "overlay"),
    include_input_topics=True,
    overlay=True,
    labels=True,
    tracks=True,
    split_frames=7,
)


TABLES = "video_knet_ros/msg/TrackedInstanceArray"


@dataclass
class Result:
    """What is in the bag of a replay."""

    times: dict[str, list[int]] = field(default_factory=dict)
    """Topic -> receive times."""
    tables: dict[str, list] = field(default_factory=dict)
    """Topic -> tables."""


def result_of(out: Path) -> Result:
    result = Result()
    for message in read_all(out / "bag"):
        result.times.setdefault(message.topic.name, []).append(message.time)
        if message.topic.type == TABLES:
            table = read_cdr(message.data, TABLES)
            result.tables.setdefault(message.topic.name, []).append(table)
    return result


def digests(folder: Path) -> dict[str, str]:
    """File -> hash of its content; that of the report and `rerun/` depends on the time."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "report.html")
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def wait_for_frames(out: Path, process: subprocess.Popen, frames: int) -> None:
    """Until so many label images are there, or the replay has ended."""
    end = time.monotonic() + 120
    while process.poll() is None:
        assert time.monotonic() < end, "the replay does not get on"
        if len(list(out.glob("unfinished/labels/*/*.png"))) >= frames:
            return
        time.sleep(0.001)


def failure(command: list[str], capsys) -> str:
    """The one line of a command that cannot be done."""
    assert main(command) == 2
    return capsys.readouterr().err.splitlines()[-1]


def interrupted(path, runtime, out, settings):
    """Replay until Ctrl-C at the fourth frame."""
    steps = itertools.count()

    class Interrupted:
        name, info = runtime.name, runtime.info

        def step(self, image, state):
            if next(steps) == 3:
                raise KeyboardInterrupt
            return runtime.step(image, state)

    with pytest.raises(KeyboardInterrupt):
        replay(path, Interrupted(), out, settings)


def string(text: str):
    return ros2_types().types["std_msgs/msg/String"](data=text)
