"""The files that are kept for the next time: whole, and of engines for this user alone."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO


class UntrustedError(OSError):
    """A file that another user could have written."""


def cache_folder() -> Path:
    """$VIDEO_KNET_CACHE, else video_knet in $XDG_CACHE_HOME, else in ~/.cache.

    The home folder of a user without one is `/`, as in containers, where nothing can be written.
    """
    if folder := os.environ.get("VIDEO_KNET_CACHE"):
        return Path(os.path.expanduser(folder))
    home = os.path.expanduser("~")
    caches = os.environ.get("XDG_CACHE_HOME") or Path("/" if home == "~" else home) / ".cache"
    return Path(caches) / "video_knet"


def make_cache_folder(folder: Path) -> None:
    """Make it and those above it, for this user alone to write in; OSError if that fails."""
    if not folder.parent.exists():
        make_cache_folder(folder.parent)
    folder.mkdir(mode=0o755, exist_ok=True)


@contextlib.contextmanager
def open_trusted(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that only this user or root can have written; UntrustedError if others could."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid not in (os.geteuid(), 0) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UntrustedError(
                "is not trusted: expected your file or root's without write permission for others, "
                f"got owner {status.st_uid} and mode {stat.S_IMODE(status.st_mode):o}"
            )
        yield file


@contextlib.contextmanager
def replacing_whole(path: Path, mode: int = 0o600) -> Iterator[IO[bytes]]:
    """Write a file atomically, by default for this user alone; OSError if it cannot be."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
