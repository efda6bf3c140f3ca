"""What a replay is asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from ..bags.bag import BagError


class ReplayError(BagError):
    """A replay that cannot be done; the message says what is there and what is wanted."""


class EmptyReplayError(ReplayError):
    """There is no image in the chosen time."""


@dataclass(frozen=True)
class ReplaySettings:
    """All that the results depend on, but for the bag and the model."""

    topics: tuple[str, ...] = ()
    """Image topics; none = the only one of the bag."""
    start: float = 0.0
    """Seconds from the first message of the bag on that are left out."""
    duration: float | None = None
    """Seconds that are read; None = to the end."""
    every: int = 1
    """Every n-th image of a topic is processed."""
    outputs: tuple[str, ...] = ()
    """For the bag, of those that the model's task has; none = the usual ones. See `OUTPUTS`."""
    rle: bool = False
    """Masks in the table, as the node's parameter."""
    include_input_topics: bool = False
    """Copy what was read into the new bag."""
    overlay: bool = False
    """Also make videos."""
    labels: bool = False
    """Also make label images in the form of STEP."""
    tracks: bool = False
    """Also write the tables as JSON lines."""
    report: bool = True
    """Also make a page to look at."""
    rerun: bool = False
    """Also make a recording for the Rerun viewer."""
    storage: str = "mcap"
    """Of the new bag: mcap, or sqlite3."""
    split_frames: int = 1000
    """Frames in a file of the new bag; an interrupted replay goes on from the last of them."""
