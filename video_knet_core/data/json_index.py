"""Index files in JSON: read once, kept small, and what is missing in them is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .video import DatasetError


def load_json(path: Path, keep: Callable[[dict], Any] | None = None) -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        keep: replaces each object as soon as it is read, innermost first, so that what is not
            needed is gone before the rest of a large file is read.

    Raises:
        DatasetError: the file is missing or is not JSON.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return json.load(file, object_hook=keep)
    except FileNotFoundError:
        raise DatasetError(f"there is no index {path}") from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not JSON: {error}") from None


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
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join(k.__name__ for k in kinds)
        raise DatasetError(f"{where}: {key!r} must be {wanted}, found {value!r:.80}")
    return value
