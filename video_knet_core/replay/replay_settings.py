"""Settings of a replay."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..bags.bag import BagError
from ..config_io import settings_class
from ..spatial.settings import SpatialSettings

Seconds = Annotated[float, Field(ge=0, le=1e9)]
"""Stamps are nanoseconds in 64 bits."""
Count = Annotated[int, Field(ge=1, lt=2**31)]


class ReplayError(BagError):
    """A replay that cannot be done; the message has what was expected and what is there."""


class EmptyReplayError(ReplayError):
    """There is no image in the chosen time."""


@settings_class(described=True)
class ReplaySettings(SpatialSettings):
    """All that the results depend on, but for the bag and the model."""

    topics: tuple[str, ...] = ()
    """Image topics; default: the only one of the bag."""
    depth: str = ""
    """Topic of depth images, in which CAMERA is a camera; default: CAMERA/depth/image_raw."""
    cloud: str = ""
    """Topic of point clouds, in the same way; default: none."""
    camera_info: str = ""
    """Topic of the cameras' CameraInfo, in the same way; default: CAMERA/camera_info."""
    odometry: str = ""
    """Topic of odometry, in the same way; default: none, /tf is read in any case."""
    start: Seconds = 0.0
    """Seconds after the first message of the bag at which to begin."""
    duration: Seconds | None = None
    """Seconds to read; default: to the end."""
    every: Count = 1
    """Process every n-th image of a topic."""
    outputs: tuple[str, ...] = ()
    """Topics of the new bag; default: instances,panoptic, of a semantic model semantic."""
    rle: bool = False
    """Write masks into the table, as run lengths."""
    include_input_topics: bool = False
    """Copy what was read into the new bag."""
    overlay: bool = False
    """Write videos: DIR/overlay/CAMERA."""
    labels: bool = False
    """Write label images in the form of STEP: DIR/labels/CAMERA."""
    tracks: bool = False
    """Write the tables as JSON lines: DIR/tracks/CAMERA.jsonl."""
    report: bool = True
    """Write DIR/report.html."""
    rerun: bool = False
    """Write a recording for the Rerun viewer: DIR/rerun."""
    storage: Literal["mcap", "sqlite3"] = "mcap"
    """Of the new bag: mcap or sqlite3."""
    split_frames: Count = 1000
    """Frames in a file of the new bag."""
