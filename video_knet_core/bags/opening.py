"""`open_bag` opens any recording: one file or a folder of several, compressed or not."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

import yaml

from ..natural_order import is_hidden, natural_key
from . import mcap, rosbag1, sqlite
from .bag import ROS1, BagDamage, BagError, Contents, Message, joined, load_plain
from .compression import LARGEST_MESSAGE, ZSTD_MAGIC, ZstdError, decompress, open_zstd

StorageFile = mcap.McapFile | sqlite.SqliteFile | rosbag1.Rosbag1File
"""One file of a bag. It has the methods of `Bag`; messages of its errors begin with its name."""
FORMATS: dict[bytes, Callable[[Path, str], StorageFile]] = {
    mcap.MAGIC: mcap.McapFile,
    sqlite.MAGIC: sqlite.SqliteFile,
    rosbag1.MAGIC: rosbag1.Rosbag1File,
}
"""By the first bytes of a file; names of files mislead."""
SUFFIXES = (".mcap", ".db3")
"""Of the files in the folder of a recording."""
COMPRESSED = (".zstd", ".zst")
NOT_METADATA = (yaml.YAMLError, ValueError, AttributeError, RecursionError, KeyError, TypeError)
"""What PyYAML raises of any text (as of a month 13, or of 1000 brackets), and a missing key."""

_log = logging.getLogger(__name__)


def open_bag(path: str | Path) -> Bag:
    """Open a .bag, .mcap or .db3 file, also a compressed one, or the folder of a recording.

    BagError if it is none of these, OSError if it cannot be read.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return Bag(*_files(path))
    if not path.is_file():
        raise BagError(f"no bag {path}")
    return Bag([path])


class Bag:
    """A bag on disk: files that were recorded one after the other.

    A file that cannot be read, or is damaged, costs what is in it; the others are read. BagError if
    none of the `files` is a bag. `missing` are messages about files that should be there.
    """

    def __init__(self, files: Sequence[Path], missing: Sequence[str] = ()) -> None:
        self.files = tuple(files)
        self._missing = missing
        faults = [fault for path in files if (fault := _why_no_bag(path))]
        if len(faults) == len(files):
            raise BagError("; ".join(faults))

    def contents(self) -> Contents:
        """What is in it; BagError if nothing of it can be read."""
        parts: list[Contents] = []
        damages = list(self._missing)
        for path in self.files:
            try:
                with _readable(path) as (file, _, fault):
                    part = file.contents()
                    parts.append(replace(part, damage=part.damage or fault))
            except BagError as error:
                damages.append(str(error))
        if not parts:
            raise BagError("; ".join(damages))
        return joined(parts, damages)

    def messages(
        self, names: Collection[str], since: int | None = None, until: int | None = None
    ) -> Iterator[Message]:
        """Messages of the topics `names`, received in since <= time < until [ns], as recorded.

        BagDamage after the last message if some of the bag cannot be read.
        """
        damages = list(self._missing)
        for path in self.files:
            try:
                with _readable(path) as (file, name, fault):
                    for message in file.messages(names, since, until):
                        yield _decompressed(message, name)
                    if fault:
                        damages.append(fault)
            except BagError as error:
                damages.append(str(error))
        if damages:
            raise BagDamage("; ".join(damages))


def _open(path: Path, name: str) -> StorageFile:
    """A file by its first bytes; errors call it `name`."""
    head = _head(path)
    for magic, form in FORMATS.items():
        if head.startswith(magic):
            return form(path, name)
    got = f"a file that begins with {head!r}" if head else "an empty file"
    raise BagError(f"{name} is no bag: expected MCAP, SQLite or ROS 1 (format 2.0), got {got}")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(max(map(len, FORMATS)))


def _why_no_bag(path: Path) -> str:
    """Empty if a file is a bag, or may be one when it is decompressed."""
    try:
        if not _head(path).startswith(ZSTD_MAGIC):
            _open(path, str(path))
    except BagError as error:
        return str(error)
    return ""


@contextmanager
def _readable(path: Path) -> Iterator[tuple[StorageFile, str, str]]:
    """The file or a decompressed copy, its name for errors, and why the copy is not whole."""
    if not _head(path).startswith(ZSTD_MAGIC):
        yield _open(path, str(path)), str(path), ""
        return
    with tempfile.TemporaryDirectory() as folder:
        copy, name = Path(folder) / "bag", f"{path} (decompressed)"
        fault = _decompress_file(path, copy)
        if fault and not copy.stat().st_size:
            raise BagError(fault)
        yield _open(copy, name), name, fault


def _decompress_file(path: Path, copy: Path) -> str:
    """Copy as much as can be decompressed; why that is not all, or nothing.

    A full disk is an OSError like any other.
    """
    with open_zstd(path, "rb") as source, copy.open("wb") as target:
        while True:
            try:
                block = source.read1(1 << 20)
            except (ZstdError, EOFError) as error:
                return f"{path}: damaged after {target.tell()} decompressed bytes: {error}"
            if not block:
                return ""
            target.write(block)


def _decompressed(message: Message, name: str) -> Message:
    """A message that may be compressed by itself; metadata.yaml has that, but may be missing."""
    if message.topic.encoding == ROS1 or message.data[: len(ZSTD_MAGIC)] != ZSTD_MAGIC:
        return message
    try:
        data = decompress("zstd", message.data, largest=LARGEST_MESSAGE)
        return message._replace(data=data)
    except ValueError as error:
        raise BagDamage(
            f"{name}: the message of {message.topic.name} at {message.time} ns is damaged: {error}"
        ) from None


# --- the files of a folder -----------------------------------------------------------------------


def _files(folder: Path) -> tuple[list[Path], list[str]]:
    """The recorded files in order, and messages about those that are missing.

    Those of metadata.yaml, and what was recorded after it was written; all that are there if it is
    missing or names none of them.
    """
    present, listed = _present(folder), _listed(folder)
    found = [present[_plain(name)] for name in listed if _plain(name) in present]
    missing = [
        f"{folder}: {name} of its metadata.yaml is missing"
        for name in listed
        if _plain(name) not in present
    ]
    if not present:
        raise BagError("; ".join(missing) or f"{folder} has no .mcap and no .db3 file")
    if not found:
        return [*present.values()], []
    later = [path for path in present.values() if _follows(path, found[-1])]
    for path in later:
        _log.warning("%s is not in metadata.yaml; it is read after the others", path)
    return [*found, *later], missing


def _present(folder: Path) -> dict[str, Path]:
    """Plain name -> file of messages, by number; the decompressed one if one is there twice."""
    paths = [
        path
        for path in folder.iterdir()
        if not is_hidden(path.name)
        and Path(_plain(path.name)).suffix in SUFFIXES
        and path.is_file()
    ]
    paths.sort(key=lambda path: (natural_key(_plain(path.name)), path.suffix in COMPRESSED))
    found: dict[str, Path] = {}
    for path in paths:
        known = found.setdefault(_plain(path.name), path)
        if not known.stat().st_size:
            found[_plain(path.name)] = path
    return found


def _listed(folder: Path) -> list[str]:
    """Names of files in metadata.yaml; none if it is missing, or not whole enough to name them."""
    path = folder / "metadata.yaml"
    try:
        information = load_plain(path.read_bytes())["rosbag2_bagfile_information"]
        names = [PurePosixPath(name).name for name in information["relative_file_paths"]]
    except FileNotFoundError:
        return []
    except NOT_METADATA as error:
        _log.warning("%s cannot be used, all files beside it are read: %r", path, error)
        return []
    return list(dict.fromkeys(names))


def _plain(name: str) -> str:
    """The name of a file without the suffix of a compression."""
    path = Path(name)
    return path.stem if path.suffix in COMPRESSED else name


def _follows(path: Path, last: Path) -> bool:
    """Whether a file is a later one of the same series, like drive_10.mcap after drive_9.mcap."""
    name, last_name = _plain(path.name), _plain(last.name)
    series, last_series = (re.sub(r"\d+(\.\w+)$", r"#\1", text) for text in (name, last_name))
    return series == last_series and natural_key(name) > natural_key(last_name)
