"""How far a replay has come, on disk: what an interrupted one goes on from.

A part is finished in this order: its files take their places, the state is written, and `save`
replaces the journal in one step. Before that step the files of the part count as nothing and are
made again; after it they are kept. So a replay may be killed at any time.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .settings import ReplayError

FORMAT = 1
NAME = "replay.json"
UNFINISHED = "unfinished"


@dataclass
class Journal:
    """The content of OUT/replay.json."""

    task: dict[str, Any]
    """What is replayed, and how: only the same can be gone on with."""
    format: int = FORMAT
    messages: int = 0
    """Taken from the bag so far, in the order of the replay."""
    frames: int = 0
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """File of the new bag -> its metadata."""
    tracks_sizes: dict[str, int] = field(default_factory=dict)
    """Camera -> bytes of its JSON lines."""
    state: str = ""
    """File of the state after these parts; empty = none could be stored, or none is needed."""
    failed: int = 0
    damage: str = ""
    complete: bool = False

    def save(self, out: Path) -> None:
        """Replace the file in `out` in one step."""
        temporary = out / f"{NAME}.tmp"
        temporary.write_text(json.dumps(asdict(self), indent=1) + "\n")
        temporary.replace(out / NAME)


def open_journal(out: Path, task: dict[str, Any], resume: bool) -> Journal:
    """The journal of a new replay, or with `resume` that of an interrupted one, in a clean folder.

    Raises:
        ReplayError: the folder holds something that must not be touched.
    """
    task = _as_in_file(task)
    out.mkdir(parents=True, exist_ok=True)
    if not (out / NAME).exists():
        if any(out.iterdir()):
            raise ReplayError(f"{out} holds other files; name a folder that is new or empty")
        journal = Journal(task)
    else:
        journal = _read(out / NAME)
        _check(journal, out, task, resume)
        if not journal.state:  # the tracks are forgotten, so all is done again
            journal = Journal(task)
    shutil.rmtree(out / UNFINISHED, ignore_errors=True)
    for state in out.glob("state_*.zip"):
        if state.name != journal.state:  # killed before it was removed
            state.unlink()
    journal.save(out)
    return journal


def finished_journal(out: Path, task: dict[str, Any]) -> Journal | None:
    """The journal of a finished replay, or None if there is none in the folder.

    Raises:
        ReplayError: it is that of another task, or damaged.
    """
    if not (out / NAME).is_file():
        return None
    journal = _read(out / NAME)
    if not journal.complete:
        return None
    if differences := _differences(journal, _as_in_file(task)):
        raise ReplayError(f"{out} holds the replay of another task: {differences}")
    return journal


def frames_kept(out: Path) -> int:
    """Frames in the results that are there, or 0 if no journal tells of any."""
    try:
        return _read(out / NAME).frames
    except (OSError, ReplayError):
        return 0


def _as_in_file(task: dict[str, Any]) -> dict[str, Any]:
    """Tuples are lists in the file."""
    as_in_file: dict[str, Any] = json.loads(json.dumps(task))
    return as_in_file


def _read(path: Path) -> Journal:
    try:
        journal = Journal(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ReplayError(f"{path} is damaged: {error}; name another folder") from None
    if journal.format != FORMAT:
        raise ReplayError(f"{path} has format {journal.format}, this version has {FORMAT}")
    return journal


def _check(journal: Journal, out: Path, task: dict[str, Any], resume: bool) -> None:
    """ReplayError unless the replay in `out` is to be gone on with, and can be."""
    done = f"{journal.frames} frames"
    if journal.complete:
        raise ReplayError(f"{out} holds a finished replay of {done}; name another folder")
    if not resume:
        raise ReplayError(
            f"{out} holds an interrupted replay of {done}: --resume goes on with it, "
            "or name another folder"
        )
    if differences := _differences(journal, task):
        raise ReplayError(f"{out} cannot be resumed: {differences}")


def _differences(journal: Journal, task: dict[str, Any]) -> str:
    """In what a task differs from that of a journal; empty if in nothing."""
    return "; ".join(
        f"{key} was {journal.task.get(key)!r} and is {task.get(key)!r}"
        for key in task
        if journal.task.get(key) != task[key]
    )
