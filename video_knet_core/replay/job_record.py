"""OUT/replay.json: what was replayed and how it ended. It is there only when all results are.

A replay writes into OUT/unfinished. When all is written, its record is, too; then every file moves
to its place in OUT, the record last. So a replay may be killed at any time: without a record in
OUT/unfinished nothing there counts, and a resumed replay does all of it again; with one, only the
moves are left to be done.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..output_files import is_new, write_text
from .replay_settings import ReplayError

FORMAT = 2
NAME = "replay.json"
UNFINISHED = "unfinished"


@dataclass(frozen=True)
class JobRecord:
    """The content of OUT/replay.json."""

    task: dict[str, Any]
    """What was replayed, and how."""
    frames: int
    failed: int
    """Images that could not be used."""
    damage: str
    """Where and why some of the bag could not be read; empty if all of it could."""
    format: int = FORMAT


class FinishedError(ReplayError):
    """The results of the requested replay are complete already; `record` describes them."""

    def __init__(self, message: str, record: JobRecord) -> None:
        super().__init__(message)
        self.record = record


def begin(out: Path, task: dict[str, Any], resume: bool) -> Path:
    """The empty folder OUT/unfinished for the results.

    Raises:
        FinishedError: `out` holds the results of this task.
        ReplayError: it holds other files, the results of another task, or, unless with `resume`,
            an interrupted replay.
    """
    work = out / UNFINISHED
    if not (out / NAME).exists() and work.exists():
        if not resume:
            raise ReplayError(
                f"{out} holds an interrupted replay: --resume does it again, or name another folder"
            )
        if (work / NAME).exists():
            _move_results(out)
    elif not (out / NAME).exists() and not is_new(out):
        raise ReplayError(f"{out} holds other files; name a folder that is new or empty")
    if (out / NAME).exists():
        _raise_finished(out, json.loads(json.dumps(task)))  # tuples are lists in the file
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    return work


def finish(out: Path, record: JobRecord) -> None:
    """Move the complete results from OUT/unfinished to their places in `out`."""
    write_text(out / UNFINISHED / NAME, json.dumps(asdict(record), indent=1) + "\n")
    _move_results(out)


def _move_results(out: Path) -> None:
    work = out / UNFINISHED
    files = [path for path in work.rglob("*") if path.is_file() and path != work / NAME]
    for path in [*files, work / NAME]:
        target = out / path.relative_to(work)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    shutil.rmtree(work)


def _raise_finished(out: Path, task: dict[str, Any]) -> None:
    record = _read(out / NAME)
    message = f"{out} holds a finished replay of {record.frames} frames"
    if differences := "; ".join(_differences(record.task, task)):
        raise ReplayError(f"{message}, but {differences}; name another folder")
    raise FinishedError(f"{message}; name another folder", record)


def _read(path: Path) -> JobRecord:
    try:
        record = JobRecord(**json.loads(path.read_text()))
        if not isinstance(record.task, dict):
            raise TypeError(f"expected task as dict, got {record.task!r}")
    except (ValueError, TypeError, RecursionError) as error:
        raise ReplayError(f"{path} is damaged: {error}; name another folder") from None
    if record.format != FORMAT:
        raise ReplayError(f"{path}: expected format {FORMAT}, got {record.format}")
    return record


def _differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """In what a task is not that of a record; each setting is compared by itself."""
    for key, value in now.items():
        old = before.get(key)
        if key == "settings" and isinstance(old, dict):
            yield from _differences(old, value)
        elif old != value:
            yield f"{key} was {old!r} and is {value!r}"
