"""Exit codes, and errors that end a command with one line."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

from ..bags.bag import BagError
from ..config_io import ConfigError
from ..engine.base import BackendError, ModelError
from ..image_files import FrameError

EXIT_FAULTS = 1
EXIT_BAD_INPUT = 2
EXIT_SIGNAL = 128
"""Plus the number of the signal: 130 after Ctrl-C, 143 after SIGTERM."""
EXIT_PIPE = 141
"""The reader of stdout has gone, as after SIGPIPE."""
LONGEST_MESSAGE = 2000
"""Characters. Weights of another network miss every key there is, too many to read."""


class UsageError(Exception):
    """What the user asked for cannot be done; the message says why."""


class NothingError(Exception):
    """The command did what it was asked for, and found nothing to do it with."""


BAD_INPUT = (
    *(UsageError, ModelError, BackendError, ConfigError, FrameError, BagError),
    *(OSError, FloatingPointError, MemoryError),
)


@contextmanager
def needs_torch(extra: str) -> Iterator[None]:
    """Turn a missing package and an unusable checkpoint into a UsageError."""
    try:
        from ..model.checkpoint import CheckpointError
    except ModuleNotFoundError as error:
        raise _lacks(error, extra) from None
    try:
        yield
    except ModuleNotFoundError as error:
        raise _lacks(error, extra) from None
    except CheckpointError as error:
        message = textwrap.shorten(str(error), LONGEST_MESSAGE, placeholder=" ...")
        raise UsageError(message) from None


def _lacks(error: ModuleNotFoundError, extra: str) -> UsageError:
    return UsageError(f"needs {error.name}: pip install 'video_knet_ros[{extra}]'")
