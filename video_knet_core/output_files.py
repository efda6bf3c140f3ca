"""What programs write: whole files only, never over an input, never two programs in one folder."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .natural_order import is_hidden

_log = logging.getLogger(__name__)


class OutputError(OSError):
    """An output that would destroy a file of the user, or that another process is writing."""


def expanded(path: str | Path) -> Path:
    """The path with its `~` or `~user` replaced by the home folder, as a shell does it."""
    return Path(os.path.expanduser(path))


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Make a folder if there is none, and keep all other processes from writing a result into it.

    The lock is on the folder itself and ends with the process, however that ends: it leaves no
    file. Where the file system has no locks, a warning is logged and there is none. OutputError if
    another process writes into it, or `folder` is a file.
    """
    make_folder(folder)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """As `exclusive`, and OutputError if the folder has anything in it."""
    with exclusive(folder):
        if not is_new(folder):
            raise OutputError(f"{folder} holds other files: name a folder that is new or empty")
        yield


def is_new(folder: Path) -> bool:
    """Whether nothing of the user is there; hidden files, which systems add, do not count."""
    if folder.is_dir():
        return all(is_hidden(path.name) for path in folder.iterdir())
    return not os.path.lexists(folder)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; OutputError if there is something else of that name."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise OutputError(f"expected a folder for results, got the file {folder}") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden temporary file beside `path`, which takes its place when the block ends.

    If the block raises, the temporary file is removed and an older `path` stays as it was. A
    `path` that is a link is replaced itself; what it points to is not written to. OutputError if
    another process is writing the same file.
    """
    partial = path.with_name(f".{path.name}.partial")
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        _lock(descriptor, path)
        try:
            yield partial
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    finally:
        os.close(descriptor)


def inside(folder: Path, name: str | Path) -> Path:
    """FOLDER/NAME; OutputError if that is elsewhere, as a name from a file of others may be."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise OutputError(f"expected a name of a result below {folder}, got {str(name)!r}")
    return folder / name


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; OSError if it cannot be written."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def check_output_file(path: Path, inputs: Iterable[Path], suffix: str = "") -> None:
    """Make the folder of a result that is written later, after a long work.

    OutputError if `path` does not end in `suffix`, is a folder or one of the inputs, or cannot be
    written.
    """
    if not path.name.lower().endswith(suffix):
        raise OutputError(f"expected a name that ends in {suffix} for the result, got {path}")
    if path.is_dir():
        raise OutputError(f"expected a file for the result, got the folder {path}")
    refuse_inputs([path], inputs)
    make_folder(path.parent)
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"cannot write {path}: no permission in {path.parent}")


def refuse_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """OutputError if an output is one of the inputs, also by a link or another spelling.

    Either may be a folder or not exist. An input inside of an output folder is not looked for.
    """
    known = {identity: path for path in inputs if (identity := _identity(path)) is not None}
    for output in outputs:
        identity = _identity(output)
        if identity is not None and identity in known:
            raise OutputError(f"{output} is the input {known[identity]}: name another output")


def _identity(path: Path) -> tuple[int, int] | None:
    """What two names of one file have in common; None if there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(f"another process is writing {path}: name another output") from None
    except OSError as error:  # some network file systems
        _log.warning("%s cannot be locked against other processes: %s", path, error.strerror)
