"""What a command writes to the terminal, how it ends, and how Ctrl-C and SIGTERM end it.

Results go to stdout; notes, warnings, progress bars and errors go to stderr.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from ..engine.selector import REASONS_LOG
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

    Args:
        run: the command; returns its exit code, None is 0.
        command: how errors name it.
        kept: returns what an interruption leaves, empty if nothing is to be reported.
    """
    with _interrupts() as signals:
        try:
            code = run() or 0
        except BrokenPipeError:  # as of `video-knet info | head -1`
            drop_stdout()
            return EXIT_PIPE
        except KeyboardInterrupt:
            signals.received = signals.received or signal.SIGINT
        except Exception as error:
            message = _message_of(error)
            if message is None:
                raise
            print_error(command, message)
            code = EXIT_FAULTS if isinstance(error, NothingError) else EXIT_BAD_INPUT
        if signals.received:
            left = kept()
            print_error(command, f"interrupted{left and f': {left}'}")
            return EXIT_SIGNAL + signals.received
        return code


def _message_of(error: Exception) -> str | None:
    """What to print of an error that the user can correct; None for a fault of the program."""
    module = error.name or "" if isinstance(error, ModuleNotFoundError) else ""
    package = module.partition(".")[0]
    if package and not package.startswith("video_knet"):
        requirement = f"'video_knet_ros[{EXTRAS[package]}]'" if package in EXTRAS else package
        return f"needs {package}: pip install {requirement}"
    is_ours = type(error).__module__.partition(".")[0] == PACKAGE  # all of these are about input
    if is_ours or isinstance(error, (OSError, FloatingPointError, MemoryError)):
        return str(error) or type(error).__name__
    return None


def print_error(command: str, message: str) -> None:
    """One line on stderr, cut to a length that can be read."""
    line = " ".join(message.split())
    line = line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]} ..."
    text = f"{command}: {line}".encode(errors="backslashreplace").decode()
    print(text, file=sys.stderr, flush=True)


@contextmanager
def notes(quiet: bool, verbose: bool, reasons: bool) -> Iterator[None]:
    """Show the log of this package on stderr.

    Args:
        quiet: warnings and errors only, and no progress bars.
        verbose: more notes.
        reasons: also why an engine was not taken.
    """
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    shows_reasons = verbose or (reasons and not quiet)
    handler = logging.StreamHandler(sys.stderr)
    with ExitStack() as stack:
        stack.enter_context(_level(PACKAGE, level))
        stack.enter_context(_level(REASONS_LOG, logging.INFO if shows_reasons else logging.WARNING))
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


# --- signals -------------------------------------------------------------------------------------


class _Signals:
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
def _interrupts() -> Iterator[_Signals]:
    """SIGINT and SIGTERM raise KeyboardInterrupt; a signal that is ignored, as of nohup, stays so.

    In another thread than the main one, which gets no signals, nothing changes.
    """
    signals = _Signals()
    before = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
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
