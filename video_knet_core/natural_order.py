"""The order of numbered files: 1, 2, 10, and not 1, 10, 2."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

Name = TypeVar("Name", str, Path)
FOREIGN = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "Thumbs.db", "desktop.ini")
"""Files and folders that systems add to those of the user."""
_TO_ZERO = str.maketrans("123456789", "000000000")


@lru_cache(maxsize=1)
def _natsort_key() -> Callable[[str], Any]:
    from natsort import natsort_keygen, ns  # a robot with a camera does without

    return natsort_keygen(alg=ns.PATH | ns.IGNORECASE)


def natural_key(name: str | Path) -> tuple[Any, str]:
    """Key for sorting names or paths: numbers in them by value, whatever their padding or case.

    Names that differ only in these (`1.png` and `01.png`) are in the order of their text, so that
    the order never depends on the file system.
    """
    text = os.fspath(name)
    return _natsort_key()(text), text


def natural_order(names: Iterable[Name]) -> list[Name]:
    """The names or paths sorted by `natural_key`."""
    names = list(names)
    shapes = {os.fspath(name).translate(_TO_ZERO) for name in names}
    if len(shapes) <= 1:  # numbers of equal width, as data sets have: the same order, but faster
        return sorted(names, key=os.fspath)
    return sorted(names, key=natural_key)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is none of the user's: `.x`, `._x`, `Thumbs.db`."""
    return name.startswith(".") or name in FOREIGN
