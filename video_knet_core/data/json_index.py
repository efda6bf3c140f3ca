"""Index files in JSON: read once, kept small, and what is missing in them is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .video import DatasetError

MOST_PIXELS = 1 << 30
"""OpenCV reads no larger image."""


def load_json(path: Path, keep: Callable[[dict], Any] | None = None) -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        keep: replaces each object as soon as it is read, innermost first, so that what is not
            needed is gone before the rest of a large file is read.

    Raises:
        DatasetError: the file is missing, cannot be read or is not JSON.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return json.load(file, object_hook=keep)
    except FileNotFoundError:
        raise DatasetError(f"there is no index {path}") from None
    except OSError as error:  # a folder, or one that may not be read
        raise DatasetError(f"the index {path} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise DatasetError(f"{path} is nested too deeply for an index") from None
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON: {error}") from None


def load_index(path: Path, keep: Callable[[dict], Any] | None = None) -> dict[str, Any]:
    """As `load_json`; DatasetError also if the content is no object."""
    content = load_json(path, keep)
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def read_categories(content: Any, where: str) -> dict[int, dict]:
    """The entries of `categories` by ascending id.

    Raises:
        DatasetError: there are none, one has no name, or two have one id.
    """
    found: dict[int, dict] = {}
    for number, entry in enumerate(need(content, "categories", list, where)):
        here = f"{where}: category {number}"
        need(entry, "name", str, here)
        category = need(entry, "id", int, here)
        if category in found:
            raise DatasetError(f"{here}: ids must differ, got {category} twice")
        found[category] = entry
    return dict(sorted(found.items()))


def need(entry: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """`entry[key]`; `where` tells which entry of which file.

    Raises:
        DatasetError: `entry` is no object, has no such key, or the value is not of `kind`.
    """
    if not isinstance(entry, dict):
        raise DatasetError(f"{where}: wanted an object with the key {key!r}, found {entry!r:.80}")
    if key not in entry:
        raise DatasetError(f"{where}: needs the key {key!r}, found {sorted(entry)}")
    value = entry[key]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(k.__name__ for k in kinds)
        raise DatasetError(f"{where}: {key!r} must be {wanted}, found {value!r:.80}")
    return value


def need_id(entry: Any, where: str) -> int:
    """`id` of an entry; DatasetError if it is none, or larger than arrays of ids hold."""
    found: int = need(entry, "id", int, where)
    if not -(1 << 63) <= found < 1 << 63:
        raise DatasetError(f"{where}: expected an id of 64 bits, got {found!r:.80}")
    return found


def need_size(entry: Any, where: str) -> tuple[int, int]:
    """`height` and `width` of an entry; DatasetError if no image can have them."""
    height, width = (need(entry, key, int, where) for key in ("height", "width"))
    if height < 1 or width < 1 or height * width > MOST_PIXELS:
        raise DatasetError(
            f"{where}: expected a height and width of 1 to {MOST_PIXELS} pixels together, "
            f"got {height} x {width}"
        )
    return height, width
