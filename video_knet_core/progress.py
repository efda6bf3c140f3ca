"""Progress bars on a terminal, unless a program turns them off."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

_quiet = False


def progress_bar(
    items: Iterable[Any] | None = None,
    description: str | None = None,
    disable: bool | None = None,
    **options: Any,
) -> tqdm:
    """A bar of tqdm on stderr over `items`, or without them one to `update`.

    `disable` None: without a terminal.
    """
    return tqdm(items, description, disable=_quiet or disable, **options)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Disable all bars that are made inside the block."""
    global _quiet
    before, _quiet = _quiet, True
    try:
        yield
    finally:
        _quiet = before
