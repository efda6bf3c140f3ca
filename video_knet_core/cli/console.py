"""How a command ends: the log on stderr, errors as one line, Ctrl-C, SIGTERM, closed pipes."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType

from ..engine.selector import REASONS_LOG
from ..installation import pip_install
from ..progress import no_progress_bars

PACKAGE = __package__.partition(".")[0]
EXIT_FAULTS = 1
EXIT_BAD_INPUT = 2
EXIT_SIGNAL = 128
"""Plus the number of the signal: 130 after Ctrl-C, 143 after SIGTERM."""
EXIT_PIPE = 141
"""The reader of stdout has gone, as after SIGPIPE."""
MAX_MESSAGE = 2000
"""Characters. Weights of another network miss every key there is, too many to read."""
EXTRAS = {
    **dict.fromkeys(("torch", "safetensors", "scipy", "tensorboard"), "train"),
    **dict.fromkeys(("onnx", "onnxscript"), "export"),
    **dict.fromkeys(("rosbags", "mcap", "lz4", "backports", "jinja2", "matplotlib"), "replay"),
    **{"ray": "fleet", "rerun": "rerun", "transformers": "swin", "openvino": "openvino"},
}
"""The extra of video_knet_ros that installs a module; other modules are packages of their own."""


class UsageError(Exception):
    """The command cannot be executed as given; the message gives the reason."""


class NothingError(Exception):
    """The command was executed, and there was nothing to process."""


def exit_code_of(run: Callable[[], int | None], command: str, kept: Callable[[], str]) -> int:
    """Run a command; an error that the user can correct becomes one line on stderr.

    Errors call it `command`. `kept` returns what an interruption leaves, empty if nothing is to be
    reported.
    """
    with _interrupts() as received:
        try:
            code = run() or 0
        except BrokenPipeError:  # as of `video-knet info | head -1`
            raise
        except KeyboardInterrupt:
            received.append(signal.SIGINT)
        except Exception as error:
            # after an interruption others follow from it, as of Ray, whose workers ended
            message = _message_of(error)
            if message is not None:
                print_error(command, message)
            elif not received:
                raise
            code = EXIT_FAULTS if isinstance(error, NothingError) else EXIT_BAD_INPUT
        if received:
            left = kept()
            print_error(command, f"interrupted{left and f': {left}'}")
            return EXIT_SIGNAL + received[0]
        return code


def _message_of(error: Exception) -> str | None:
    """What to print of an error that the user can correct; None for a fault of the program."""
    module = error.name or "" if isinstance(error, ModuleNotFoundError) else ""
    package = module.partition(".")[0]
    if package and not package.startswith("video_knet"):
        if module != package and importlib.util.find_spec(package) is not None:
            return f"the installed {package} has no module {module}"
        requirement = f"'video_knet_ros[{EXTRAS[package]}]'" if package in EXTRAS else package
        return f"needs {package}: {pip_install(requirement)}"
    is_ours = type(error).__module__.partition(".")[0] == PACKAGE  # all of these are about input
    if is_ours or isinstance(error, (OSError, FloatingPointError, MemoryError)):
        return str(error) or type(error).__name__
    return None


def print_error(command: str, message: str) -> None:
    """One line on stderr, cut to a length that can be read."""
    line = printable(" ".join(message.split()))
    line = line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]} ..."
    text = f"{command}: {line}".encode(errors="backslashreplace").decode()
    print(text, file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """A text without control sequences of the terminal, as names from a file may have."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


class _PrintableFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def drop_stdout() -> None:
    """Point stdout to nowhere, or the interpreter would fail again when it flushes at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


@contextmanager
def notes(quiet: bool, verbose: bool, reasons: bool) -> Iterator[None]:
    """Show the log of this package on stderr, with `reasons` also why an engine was not taken."""
    logger, handler = logging.getLogger(PACKAGE), logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter())
    if not verbose and (quiet or not reasons):
        handler.addFilter(lambda note: note.name != REASONS_LOG or note.levelno >= logging.WARNING)
    before = logger.level
    logger.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    logger.addHandler(handler)
    try:
        with no_progress_bars() if quiet else nullcontext():
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """SIGINT and SIGTERM raise KeyboardInterrupt and are listed, since a command may catch that.

    In a forked worker they do what they do by default. A signal that is ignored, as of nohup, stays
    so, and threads other than the main one get none.
    """
    received: list[int] = []
    process = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        received.append(number)
        raise KeyboardInterrupt

    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    is_main = threading.current_thread() is threading.main_thread()
    taken = {n: h for n, h in handlers.items() if is_main and signal.getsignal(n) is h}
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield received
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)
