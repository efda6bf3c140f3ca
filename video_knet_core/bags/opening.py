"""`open_bag` finds out what a path is."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import yaml

from .bag import Bag, BagDamage, BagError, Contents, Message, joined
from .mcap import McapFile
from .rosbag1 import Rosbag1File
from .sqlite import SqliteFile
from .zstd import open_zstd, zstd_decompress

FORMATS: dict[str, Callable[[Path], Bag]] = {
    ".bag": Rosbag1File,
    ".active": Rosbag1File,
    ".mcap": McapFile,
    ".db3": SqliteFile,
}
"""By suffix; `.bag.active` is what ROS 1 calls a recording under way."""
COMPRESSED = (".zstd", ".zst")


def open_bag(path: str | Path) -> Bag:
    """Open a .bag, .mcap or .db3 file, or the folder of a ROS 2 recording.

    Raises:
        BagError: it is none of these.
    """
    path = Path(path)
    if path.is_dir():
        return FolderBag(path)
    if not path.is_file():
        raise BagError(f"no bag {path}")
    if path.suffix not in FORMATS:
        raise BagError(
            f"{path} is no bag: wanted {', '.join(FORMATS)} or the folder of a ROS 2 recording"
        )
    return FORMATS[path.suffix](path)


class FolderBag:
    """A folder of files that were recorded one after the other; `metadata.yaml` may be missing."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        metadata = _metadata(folder)
        self._by_message = str(metadata.get("compression_mode", "")).lower() == "message"
        self._paths = _files(folder, metadata)

    def contents(self) -> Contents:
        """Of all files up to the first that is damaged."""
        found = []
        for bag in self._bags():
            found.append(bag.contents())
            if found[-1].damage:
                break
        return joined(found)

    def messages(self, names: Collection[str], since: int = 0) -> Iterator[Message]:
        """See `Bag.messages`."""
        for bag in self._bags():
            messages = bag.messages(names, since)
            yield from map(self._decompressed, messages) if self._by_message else messages

    def _bags(self) -> Iterator[Bag]:
        for path in self._paths:
            with _decompressed_file(path) as file:
                try:
                    bag = FORMATS[file.suffix](file)
                except BagError as error:
                    if path == self._paths[0]:
                        raise
                    raise BagDamage(str(error)) from None
                yield bag

    def _decompressed(self, message: Message) -> Message:
        try:
            return message._replace(data=zstd_decompress(message.data))
        except Exception as error:  # its own class, which two packages define
            raise BagDamage(
                f"{self.path}: the message of {message.topic.name} at {message.time} ns "
                f"is damaged: {error}"
            ) from None


class _decompressed_file:
    """The file as it is, or a decompressed copy for as long as it is used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder: tempfile.TemporaryDirectory | None = None

    def __enter__(self) -> Path:
        if self._path.suffix not in COMPRESSED:
            return self._path
        self._folder = tempfile.TemporaryDirectory()
        copy = Path(self._folder.name) / self._path.stem
        with (
            open_zstd(self._path, "rb") as source,
            copy.open("wb") as target,
            suppress(Exception),  # damaged: what came before is read, and its end missed
        ):
            shutil.copyfileobj(source, target)
        return copy

    def __exit__(self, *exception: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()


def _metadata(folder: Path) -> dict:
    try:
        text = (folder / "metadata.yaml").read_text()
        found = yaml.safe_load(text)["rosbag2_bagfile_information"]
        return found if isinstance(found, dict) else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return {}  # a recording that was cut off has none


def _files(folder: Path, metadata: dict) -> list[Path]:
    """The recorded files in order: those of the metadata, else all by number."""
    listed = metadata.get("relative_file_paths") or []
    paths = [folder / PurePosixPath(name).name for name in listed]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise BagError(f"{folder}: {', '.join(missing)} of its metadata.yaml are missing")
    if not paths:
        paths = [p for p in folder.iterdir() if _suffix(p) in (".mcap", ".db3")]
        paths.sort(key=lambda p: [int(n) for n in re.findall(r"\d+", p.name)])
    if not paths:
        raise BagError(f"{folder} holds no .mcap and no .db3 file")
    return paths


def _suffix(path: Path) -> str:
    """Without that of a compression."""
    return Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix
