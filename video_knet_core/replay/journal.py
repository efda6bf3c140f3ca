"""How far a replay has come, on disk: what an interrupted one goes on from.

A part is finished in this order: its files take their places, the state is written, and `save`
replaces the journal in one step. Before that step the files of the part count as nothing and are
made again; after it they are kept. So a replay may be killed at any time.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..output_files import is_new, write_text
from .replay_settings import ReplayError

FORMAT = 1
NAME = "replay.json"
UNFINISHED = "unfinished"
KINDS = {"task": dict, "messages": int, "frames": int, "parts": dict, "tracks_sizes": dict}
KINDS |= {"state": str, "failed": int, "damage": str, "complete": bool}
"""Of the fields of a journal."""
STATE_NAME = re.compile(r"state_\d{4,}\.zip")


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
        write_text(out / NAME, json.dumps(asdict(self), indent=1) + "\n")


class FinishedError(ReplayError):
    """A replay that is asked for, and whose results are all there; `journal` tells of them."""

    def __init__(self, message: str, journal: Journal) -> None:
        super().__init__(message)
        self.journal = journal


def frames_kept(out: Path) -> int:
    """Frames in the results that are there, or 0 if no journal tells of any."""
    try:
        return _read(out / NAME).frames
    except (OSError, ReplayError):
        return 0


def open_journal(out: Path, task: dict[str, Any], resume: bool) -> Journal:
    """The journal of a new replay, or with `resume` that of an interrupted one, in a clean folder.

    Raises:
        FinishedError: the folder holds the results of this task.
        ReplayError: it holds something else that must not be touched.
    """
    task = json.loads(json.dumps(task))  # tuples are lists in the file
    out.mkdir(parents=True, exist_ok=True)
    if not (out / NAME).exists():
        if not is_new(out):
            raise ReplayError(f"{out} holds other files; name a folder that is new or empty")
        journal = Journal(task)
    else:
        journal = _read(out / NAME)
        _check(journal, out, task, resume)
        _check_files(journal, out)
        if not journal.state:  # the tracks are forgotten, so all is done again
            journal = Journal(task)
    shutil.rmtree(out / UNFINISHED, ignore_errors=True)
    for state in out.glob("state_*.zip"):
        if state.name != journal.state and STATE_NAME.fullmatch(state.name):
            state.unlink()  # killed before it was removed
    journal.save(out)
    return journal


def _read(path: Path) -> Journal:
    try:
        journal = Journal(**json.loads(path.read_text()))
    except (ValueError, TypeError, RecursionError) as error:
        raise ReplayError(f"{path} is damaged: {error}; name another folder") from None
    if journal.format != FORMAT:
        raise ReplayError(f"{path} has format {journal.format}, this version has {FORMAT}")
    for field_name, kind in KINDS.items():
        if not isinstance(value := getattr(journal, field_name), kind):
            raise ReplayError(
                f"{path} is damaged: expected {field_name} as {kind.__name__}, got {value!r}; "
                "name another folder"
            )
    return journal


def _check(journal: Journal, out: Path, task: dict[str, Any], resume: bool) -> None:
    """ReplayError unless the replay in `out` is to be gone on with, and can be."""
    done, differences = f"{journal.frames} frames", _differences(journal, task)
    if journal.complete:
        message = f"{out} holds a finished replay of {done}"
        if differences:
            raise ReplayError(f"{message}, but {differences}; name another folder")
        raise FinishedError(f"{message}; name another folder", journal)
    if not resume:
        raise ReplayError(
            f"{out} holds an interrupted replay of {done}: --resume goes on with it, "
            "or name another folder"
        )
    if differences:
        raise ReplayError(f"{out} cannot be resumed: {differences}")


def _check_files(journal: Journal, out: Path) -> None:
    """ReplayError if some of the results so far are not there any more."""
    sizes = {f"tracks/{node.strip('/')}.jsonl": n for node, n in journal.tracks_sizes.items()}
    for name, size in (dict.fromkeys((f"bag/{part}" for part in journal.parts), 1) | sizes).items():
        path = out / name
        found = path.stat().st_size if path.is_file() else 0
        if found < size:
            raise ReplayError(
                f"{out} cannot be resumed: expected {size} bytes or more in {name}, got {found}"
            )


def _differences(journal: Journal, task: dict[str, Any]) -> str:
    """In what a task is not that of a journal; empty if it is the same."""
    before, now = _flat(journal.task), _flat(task)
    return "; ".join(
        f"{key} was {before.get(key)!r} and is {now[key]!r}"
        for key in now
        if before.get(key) != now[key]
    )


def _flat(task: dict[str, Any]) -> dict[str, Any]:
    """With each setting beside the other entries, to be compared by itself."""
    settings = task.get("settings")
    return {**task, **settings, "settings": None} if isinstance(settings, dict) else task
