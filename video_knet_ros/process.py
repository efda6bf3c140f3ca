"""What all executables do around their nodes: start, spin, log, end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import rclpy
from rclpy.exceptions import (
    InvalidNodeNameException,
    InvalidParameterTypeException,
    InvalidParameterValueException,
)
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.logging import get_logger
from rclpy.node import Node

from video_knet_core.data.frames import FrameError

AnyNode = TypeVar("AnyNode", bound=Node)


START_ERRORS = (
    InvalidNodeNameException,
    InvalidParameterTypeException,
    InvalidParameterValueException,
    FrameError,
)
"""What is wrong with the user's settings, and no bug."""


def run(
    create: Callable[[], Sequence[AnyNode]],
    start: Callable[[AnyNode], None],
    args: Sequence[str] | None,
) -> int:
    """Create nodes, start each, spin them until a signal comes or a callback raises SystemExit.

    Returns:
        The exit code: 0 after a signal, 1 if the arguments cannot be used or a node cannot be
        created, with the reason logged in one line; else that of the SystemExit.
    """
    log = get_logger("video_knet_ros")
    try:
        rclpy.init(args=args)
    except RuntimeError as error:  # what rclpy raises for arguments shares no base but this
        log.fatal(one_line(error))
        return 1
    _forward_python_logging(log)
    nodes: Sequence[AnyNode] = ()
    try:
        nodes = create()
        for node in nodes:
            start(node)
        _spin(nodes)
    except START_ERRORS as error:
        log.fatal(one_line(error))
        return 1
    except SystemExit as end:
        return int(end.code or 0)
    except Exception:
        if rclpy.ok():
            raise  # else a signal ended the context under a transition, which cannot be published
    except KeyboardInterrupt:
        pass
    finally:
        for node in nodes:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _spin(nodes: Sequence[Node]) -> None:
    """Spin; an error in one callback does not end the nodes.

    rclpy raises out of its lifecycle service, for example, when a transition is asked for that the
    present state does not have.
    """
    executor = SingleThreadedExecutor()
    for node in nodes:
        executor.add_node(node)
    while rclpy.ok():
        try:
            executor.spin()
        except ExternalShutdownException:
            return
        except Exception as error:
            if not rclpy.ok():
                return
            reason = f"{type(error).__name__}: {one_line(error)}"
            log = get_logger("video_knet_ros")
            log.error(f"a callback failed: {reason}", throttle_duration_sec=2.0)


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks."""
    return " ".join(str(error).split())


def _forward_python_logging(log: RcutilsLogger) -> None:
    """Let what the core says through Python's logging appear in the ROS log."""
    for package in ("video_knet_core", "video_knet_ros"):
        logger = logging.getLogger(package)
        logger.setLevel(logging.INFO)
        logger.addHandler(_RosHandler(log))


class _RosHandler(logging.Handler):
    def __init__(self, log: RcutilsLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.levelno >= logging.ERROR:  # one call per level: rclpy ties a level to its line
            self._log.error(text)
        elif record.levelno >= logging.WARNING:
            self._log.warning(text)
        else:
            self._log.info(text)
