"""A lifecycle node with an engine, for which it waits without blocking its executor.

rclpy runs lifecycle transitions and services in the executor's thread, where waiting blocks
everything else. Here both are coroutines: the executor resumes them when it wakes, and serves
timers, parameters and other services between.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from video_knet_core.predictor import VideoPredictor

from . import process
from .diagnostics import NodeStatus
from .engines import CLOSE_WAIT_S, EngineWorker

_log = logging.getLogger(__name__)


class RequestError(Exception):
    """A request that cannot be met now; the caller gets the message as answer."""


class EngineNode(LifecycleNode):
    """A `LifecycleNode` that opens an engine in configure and closes it in cleanup and shutdown.

    A configure that fails leaves the node alive and unconfigured, and so does a cleanup whose
    engine hangs or cannot be closed, with the reason in `status.fault`. A subclass must have a
    timer: limits of time are looked at when the executor wakes.
    """

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.status = NodeStatus(self.get_fully_qualified_name())
        self.worker: EngineWorker | None = None
        """Runs the engine; None while unconfigured."""
        # a callback that waits blocks those of its group unless the group is reentrant
        self._reentrant = ReentrantCallbackGroup()
        self._pending: list[str] = []
        for number, callback in self._callbacks.items():
            self._callbacks[number] = partial(self._attempt, callback)
        service = self._service_change_state
        service.callback, service.callback_group = self._on_change_state, self._reentrant
        self._reentrant.add_entity(service)

    # --- what a subclass has to do

    def open_engine(self) -> EngineWorker:
        """Begin to open the engine."""
        raise NotImplementedError

    def engine_opened(self, engine: VideoPredictor) -> None:
        """Part of configure; what it raises is the reason of a failed configure."""

    def engine_closed(self) -> None:
        """The node is unconfigured now; a second call does what the first left undone."""

    def state_changed(self) -> None:
        """`status.state` has another value."""

    # --- lifecycle

    async def autostart(self) -> None:
        """Configure and activate; what fails is logged."""
        for label in ("configure", "activate"):
            if not await self.change_state(Transition(label=label)):
                return

    async def _prepare(self, transition: str) -> None:
        """Let the engine open before configure, and close before cleanup and shutdown.

        RequestError if a shutdown came while it opened.
        """
        if transition == "configure":
            worker = self._open()
            await self.wait(worker.opened, unless=lambda: self.worker is not worker)
            if self.worker is not worker:
                raise RequestError("the node was shut down while the engine opened")
        elif transition in ("cleanup", "shutdown") and self.worker is not None:
            self._enter("inactive")  # no image may arrive for a closed engine
            worker = self.worker
            if not await self.wait(worker.close(), CLOSE_WAIT_S):
                worker.give_up()

    def _open(self) -> EngineWorker:
        self.worker, self.status.state = self.open_engine(), "configuring"
        return self.worker

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self.engine_opened((self.worker or self._open()).opened.result())
        except Exception as error:  # of engines and middlewares, which have no base but this
            self._release(wait=False)
            self._note_fault("not configured", error)
            return TransitionCallbackReturn.FAILURE
        self.status.fault = ""
        self._enter("inactive")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        self._enter("active")
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._enter("inactive")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self._enter("finalized")
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Clean up after a transition that failed; the node is unconfigured then."""
        self._release(wait=False)
        self.get_logger().error("a transition failed: the node is unconfigured")
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Leave the graph; wait for the engine at most `CLOSE_WAIT_S`."""
        try:
            self._release()
        finally:
            super().destroy_node()

    def _enter(self, state: str) -> None:
        self.status.state = state
        self.state_changed()

    def _release(self, wait: bool = True) -> None:
        """Go back to unconfigured, from any state.

        If `wait` the engine has `CLOSE_WAIT_S` to close; else it closes in its own time.
        """
        self._enter("unconfigured")
        worker, self.worker = self.worker, None
        if worker is not None and (reason := worker.end(CLOSE_WAIT_S if wait else None)):
            self._note_fault("engine not closed", reason)
        # after the last frame, which changes it
        self.status = NodeStatus(self.status.name, fault=self.status.fault)
        self.engine_closed()

    def _note_fault(self, what: str, reason: BaseException | str) -> None:
        """Keep the reason of a fault, and log it."""
        fault = self.status.fault = f"{what}: {process.one_line(reason)}"
        if self.context.ok():
            self.get_logger().error(fault)
        else:  # the node's logger also publishes, which fails now
            _log.error("%s: %s", self.get_name(), fault)

    def _attempt(
        self, callback: Callable[[LifecycleState], TransitionCallbackReturn], state: LifecycleState
    ) -> TransitionCallbackReturn:
        """Run a callback of a transition; rclpy drops the reason of one that raises."""
        try:
            return callback(state)
        except Exception as error:  # of any backend or the middleware; then `on_error` cleans up
            name = callback.__name__.removeprefix("on_")
            self._note_fault(f"{name} failed", process.describe(error))
            return TransitionCallbackReturn.ERROR

    # --- transitions and services that wait

    async def change_state(self, transition: Transition) -> bool:
        """Make a transition; False, with the reason logged, if it is impossible or fails."""
        label = transition.label or str(transition.id)
        try:
            label = self._check(transition)
            self._pending.append(label)
            try:
                await self._prepare(label)
                trigger: Callable[[], Any] = getattr(self, f"trigger_{label}")
                return trigger() == TransitionCallbackReturn.SUCCESS
            finally:
                self._pending.remove(label)
        except Exception as error:  # whatever it is, the caller waits for an answer
            self._log_failure(f"transition {label}", error)
            return False

    def _check(self, transition: Transition) -> str:
        """The label of a transition, which clients give by label or number; or RequestError."""
        available = {n: label for n, label, *_ in self._state_machine.available_transitions}
        label = transition.label or available.get(transition.id, "")
        if label not in available.values():
            state, expected = self._state_machine.current_state[1], sorted(set(available.values()))
            raise RequestError(f"the node is {state}, expected one of {', '.join(expected)}")
        if self._pending and label != "shutdown":
            raise RequestError(f"{self._pending[0]} is in progress")
        return label

    async def _on_change_state(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        response.success = await self.change_state(request.transition)
        return response

    def add_service(self, kind: type, name: str, answer: Callable[[Any], Awaitable[str]]) -> None:
        """Offer a service whose response has `success` and `message`.

        `answer` takes the request and gives the message; if it raises, the response is no success,
        and unless that was a `RequestError` it is logged.
        """

        async def callback(request: Any, response: Any) -> Any:
            try:
                response.message = await answer(request)
                response.success = True
            except RequestError as error:
                response.message = str(error)
            except Exception as error:  # whatever it is, the caller waits for an answer
                response.message = self._log_failure(name, error)
            return response

        self.create_service(kind, name, callback, callback_group=self._reentrant)

    async def wait(
        self,
        future: Future[Any],
        limit_s: float = math.inf,
        unless: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Let the executor serve others until `future` is done; False after `limit_s`, or `unless`
        something else has happened."""
        end = time.monotonic() + limit_s
        future.add_done_callback(self._wake)
        while not future.done():
            if time.monotonic() >= end or unless():
                return False
            await _NextWake()
        return True

    def _wake(self, done: Future[Any]) -> None:
        """Make the executor check what it waits for, from any thread."""
        executor = self.executor
        if executor is not None:
            with suppress(InvalidHandle):  # it has been shut down
                executor.wake()

    def _log_failure(self, what: str, error: Exception) -> str:
        """Log why a request failed, unless the process is ending; the reason."""
        reason = process.describe(error, RequestError)
        if self.context.ok():
            self.get_logger().error(f"{what}: {reason}", throttle_duration_sec=2.0)
        return reason


class _NextWake:
    """Awaited, it gives control back until the executor wakes."""

    def __await__(self) -> Generator[None, None, None]:
        yield
