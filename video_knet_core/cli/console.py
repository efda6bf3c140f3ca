"""What a command writes to the terminal, and how Ctrl-C and SIGTERM end it.

Results go to stdout; notes, warnings, progress bars and errors go to stderr.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from ..engine.selector import REASONS_LOG
from ..progress import no_progress_bars

PACKAGE = __package__.partition(".")[0]


def add_verbosity(command: argparse.ArgumentParser) -> None:
    """--quiet and --verbose."""
    volume = command.add_mutually_exclusive_group()
    volume.add_argument(
        "-q", "--quiet", action="store_true", help="no notes and progress bars on stderr"
    )
    volume.add_argument(
        "-v", "--verbose", action="store_true", help="more notes, as why an engine was not taken"
    )


@contextmanager
def notes(arguments: argparse.Namespace) -> Iterator[None]:
    """Show the log of this package on stderr, as much of it as the arguments ask for."""
    quiet, verbose = arguments.quiet, arguments.verbose
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    reasons = verbose or (arguments.command == "bench" and not quiet)
    handler = logging.StreamHandler(sys.stderr)
    with ExitStack() as stack:
        stack.enter_context(_level(PACKAGE, level))
        stack.enter_context(_level(REASONS_LOG, logging.INFO if reasons else logging.WARNING))
        if quiet:
            stack.enter_context(no_progress_bars())
        logging.getLogger(PACKAGE).addHandler(handler)
        stack.callback(logging.getLogger(PACKAGE).removeHandler, handler)
        yield


@contextmanager
def _level(name: str, level: int) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


def print_error(command: str, error: object) -> None:
    """One line on stderr: the message of an error, or its name if it has none."""
    words = str(error) or type(error).__name__
    text = " ".join(words.split()).encode(errors="backslashreplace").decode()
    print(f"video-knet {command}: {text}", file=sys.stderr, flush=True)


# --- signals -------------------------------------------------------------------------------------


class Signals:
    """The signal that ended a command, also if the command itself caught the KeyboardInterrupt."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt; in a forked worker do what the signal does by default."""
        if os.getpid() != self._process:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.received = signal.Signals(number)
        raise KeyboardInterrupt


@contextmanager
def interrupts() -> Iterator[Signals]:
    """SIGINT and SIGTERM raise KeyboardInterrupt; a signal that is ignored, as of nohup, stays so.

    In another thread than the main one, which gets no signals, nothing changes.
    """
    signals = Signals()
    before = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
    }
    try:
        taken = {n: h for n, h in before.items() if signal.getsignal(n) is h}
        for number in taken:
            signal.signal(number, signals)
    except ValueError:  # not the main thread
        taken = {}
    try:
        yield signals
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


# --- stdout --------------------------------------------------------------------------------------


def flush_stdout() -> None:
    """Write what is buffered, while an error can still be handled."""
    if sys.stdout is not None:
        sys.stdout.flush()


def escape_unprintable() -> None:
    """Write names that are no text, which file systems allow, with escapes."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def drop_stdout() -> None:
    """Point stdout to nowhere, or the interpreter would fail again when it flushes at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
