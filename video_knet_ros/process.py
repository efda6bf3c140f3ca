"""Around the nodes of all executables: start, spin, log, end."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import rclpy
from rclpy.exceptions import (
    InvalidNamespaceException,
    InvalidNodeNameException,
    InvalidParameterTypeException,
    InvalidParameterValueException,
    InvalidServiceNameException,
    InvalidTopicNameException,
)
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.logging import get_logger
from rclpy.node import Node

from video_knet_core.engine.executor import busy_executors

START_ERRORS = (
    InvalidNamespaceException,
    InvalidNodeNameException,
    InvalidServiceNameException,
    InvalidTopicNameException,
    InvalidParameterTypeException,
    InvalidParameterValueException,
    rclpy_implementation.RCLError,  # names and namespaces that only the middleware looks at
)
"""What is wrong with the user's settings, and no bug."""


def run(
    create: Callable[[], Sequence[Node]],
    args: Sequence[str] | None,
    *start_errors: type[Exception],
) -> int:
    """Create nodes and spin them until a signal arrives or a callback raises SystemExit.

    If an engine still hangs in the end the process ends here, with the exit code below and the
    reason logged. `start_errors` are those of `create` that are the user's, beside `START_ERRORS`.

    Returns:
        The exit code: 0 after a signal, 1 if the arguments cannot be used or a node cannot be
        created, with the reason logged in one line; else that of the SystemExit.
    """
    with _interrupts() as serving:
        return _run(create, args, (*START_ERRORS, *start_errors), serving)


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """While the event is set Ctrl-C is left to rclpy, which ends the context.

    Python's own handler also raises KeyboardInterrupt, in whatever the main thread does just then:
    a finalizer prints a traceback for it. Once one has come all others are ignored, to the end of
    the process: the terminal and `ros2 launch` both send one, and the second would kill it.
    """
    serving, interrupted = threading.Event(), False
    if threading.current_thread() is not threading.main_thread():  # Python has no handlers there
        yield serving
        return
    before = signal.getsignal(signal.SIGINT)

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        again, interrupted = interrupted, True
        if not again and not serving.is_set() and callable(before):
            before(number, frame)

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield serving
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN if interrupted else before)


def _run(
    create: Callable[[], Sequence[Node]],
    args: Sequence[str] | None,
    start_errors: tuple[type[Exception], ...],
    serving: threading.Event,
) -> int:
    log = get_logger("video_knet_ros")
    try:
        rclpy.init(args=args)
    except RuntimeError as error:  # what rclpy raises for arguments shares no base but this
        log.fatal(one_line(error))
        return 1
    _forward_python_logging(log)
    nodes: Sequence[Node] = ()
    code = 0
    try:
        with warnings.catch_warnings():  # of rclpy, about a node that it could not make
            warnings.filterwarnings("ignore", "Failed to fini", RuntimeWarning)
            nodes = create()
        serving.set()
        _spin(nodes)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        pass
    except Exception as error:
        if rclpy.ok():  # else a signal ended the context under a transition
            if not isinstance(error, start_errors):
                raise
            log.fatal(one_line(error))
            code = 1
    finally:
        for node in nodes:
            try:
                node.destroy_node()
            except Exception as error:  # of an engine, or of the middleware; the others are, too
                log.error(f"a node was not destroyed: {describe(error)}")
        rclpy.try_shutdown()
    _leave_if_busy(code, log)
    return code


def _spin(nodes: Sequence[Node]) -> None:
    """Spin the nodes to the end; an error in one callback does not end them."""
    executor = SingleThreadedExecutor()
    for node in nodes:
        executor.add_node(node)
    try:
        while rclpy.ok():
            try:
                executor.spin()
            except ExternalShutdownException:
                return
            except Exception as error:
                if not rclpy.ok():
                    return
                words = f"a callback failed: {describe(error)}"
                get_logger("video_knet_ros").error(words, throttle_duration_sec=2.0)
    finally:
        executor.shutdown(timeout_sec=0)


def _leave_if_busy(code: int, log: RcutilsLogger) -> None:
    """End the process at once if an engine hangs or is being built.

    A native call that comes back while the interpreter is taken down aborts the process, and the
    engine's own finalizers would wait for it.
    """
    busy = [executor.busy_s or 0.0 for executor in busy_executors()]
    if busy:
        log.warning(f"an engine has been busy for {max(busy):.1f} s: not waiting for it")
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def one_line(error: BaseException | str) -> str:
    """The message of an error without line breaks; its type if it has none."""
    words = " ".join(str(error).split())
    return words if words or isinstance(error, str) else type(error).__name__


def describe(error: BaseException, *plain: type[Exception]) -> str:
    """The message of an error in one line, behind its type unless that is one of `plain`."""
    words, kind = one_line(error), type(error).__name__
    return words if isinstance(error, plain) or words == kind else f"{kind}: {words}"


def _forward_python_logging(log: RcutilsLogger) -> None:
    """Forward the log of the core, which uses Python's logging, to the ROS log."""
    for package in ("video_knet_core", "video_knet_ros"):
        logger = logging.getLogger(package)
        logger.setLevel(logging.INFO)
        logger.addHandler(_RosHandler(log))


class Throttle(logging.Filter):
    """Lets `FIRST` records of one line of code pass within `PERIOD_S`, and counts the others.

    What happens with each image would fill the log.
    """

    FIRST = 3
    PERIOD_S = 10.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._passed: dict[tuple[str, int], tuple[float, int]] = {}
        """Begin of the present period, and records in it, by line of code."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether `record` passes; the first of a period names how many of the last did not."""
        place, now = (record.pathname, record.lineno), self._clock()
        begun, count = self._passed.get(place, (now, 0))
        if now - begun > self.PERIOD_S:
            left_out = max(count - self.FIRST, 0)
            if left_out:
                record.msg, record.args = f"{record.getMessage()} ({left_out} more before)", ()
            begun, count = now, 0
        self._passed[place] = begun, count + 1
        return count < self.FIRST


class _RosHandler(logging.Handler):
    def __init__(self, log: RcutilsLogger) -> None:
        super().__init__()
        self.addFilter(Throttle())
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.levelno >= logging.ERROR:  # one call per level: rclpy ties a level to its line
            self._log.error(text)
        elif record.levelno >= logging.WARNING:
            self._log.warning(text)
        else:
            self._log.info(text)
