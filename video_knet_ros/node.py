"""The camera node: images in, tracked instances and label images out.

The executor's thread only leaves the newest image in the worker's mailbox and never waits for the
engine, which may hang; all else happens in the inference thread. While the node is active and
enabled it runs on every image it can take, with or without listeners, because the memory of the
tracks must not have holes; only messages that nobody reads are not made.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from functools import partial
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from video_knet_core.engine.base import ModelInfo, Runtime
from video_knet_core.engine.selector import open_runtime
from video_knet_core.epochs import new_epoch

from . import conversions, diagnostics, parameters, process
from .camera_engine import ENGINE_OPTIONS, Engine
from .conversions import ImageTimes
from .frame_counts import FrameCounts
from .lifecycle import AsyncLifecycleNode, RequestError
from .outputs import Outputs
from .snapshot import Snapshot
from .subscription import COMPRESSED, RAW, AnyImage, ImageSubscription, OneCamera, RateLimit
from .worker import CLOSE_WAIT_S, InferenceThread, Worker, run_aside

GRAPH_PERIOD_S = 0.5
"""How often the QoS of the image publishers is looked at."""
ANSWER_WAIT_S = 2.0
"""How long a service waits for the engine before it answers that it is busy."""
SAVE_WAIT_S = 5.0
"""How long `save_snapshot` waits for the disk."""


class CameraNode(AsyncLifecycleNode):
    """One camera.

    Lifecycle: configure opens the model, activate subscribes, deactivate unsubscribes and keeps the
    model, cleanup frees it. A configure that fails leaves the node alive and unconfigured, and so
    does a cleanup whose engine hangs or cannot be closed, with the reason in the diagnostics.

    Args:
        open_runtime: makes the engine.
        name: of the node.
        choose_thread: gives the inference thread for the engine of these settings, which it may
            share with other cameras; None = one of its own.
        kwargs: go to the rclpy node.

    Raises:
        InvalidParameterTypeException, InvalidParameterValueException: by rclpy, for parameter
            overrides that cannot be used.
    """

    def __init__(
        self,
        open_runtime: Callable[..., Runtime] = open_runtime,
        name: str = "video_knet",
        choose_thread: Callable[..., InferenceThread | None] = lambda **settings: None,
        **kwargs,
    ) -> None:
        super().__init__(name, **kwargs)
        self._open_runtime = open_runtime
        self._choose_thread = choose_thread
        self._worker: Worker[Engine] | None = None
        self._outputs: Outputs | None = None
        self._subscription = ImageSubscription(self, self._on_image)
        self._rate_limit = RateLimit()
        self._one_camera = OneCamera()
        self._times = ImageTimes(self.get_clock())
        self._last: Snapshot | None = None
        self._saving: Future[Path] | None = None
        self._state = "unconfigured"
        self._model, self._task, self._engine, self._build = "", "", "", ""
        self._next_epoch = new_epoch()  # of the next configuration: no id may name two objects
        self.counts = FrameCounts()
        self._reporter = diagnostics.Reporter()
        self.add_on_set_parameters_callback(self._validate)
        parameters.declare(self)
        self.add_post_set_parameters_callback(self._apply)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.add_service(SetBool, "~/set_enabled", self._set_enabled)
        self.add_service(Trigger, "~/reset_tracker", self._reset_tracker)
        self.add_service(Trigger, "~/save_snapshot", self._save_snapshot)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time may stand still
        self.create_timer(GRAPH_PERIOD_S, self._follow_publishers, clock=steady)
        self.create_timer(diagnostics.PERIOD_S, self._publish_diagnostics, clock=steady)

    # --- lifecycle

    async def bring_up(self) -> None:
        """Configure and activate; what fails is logged."""
        for label in ("configure", "activate"):
            if not await self.change_state(Transition(label=label)):
                return

    async def prepare(self, transition: str) -> None:
        """Let the engine open before configure, and close before cleanup and shutdown.

        Raises:
            RequestError: a shutdown came while the engine was opened.
        """
        if transition == "configure":
            worker = self._begin_opening()
            await self.wait(lambda: worker.opened.done() or self._worker is not worker)
            if self._worker is not worker:
                raise RequestError("the node was shut down meanwhile")
        elif transition in ("cleanup", "shutdown") and self._worker is not None:
            self._state = "inactive"  # no image may come for a closed engine
            self._follow_publishers()
            await self._finish(self._worker)

    async def _finish(self, worker: Worker[Engine]) -> None:
        """Close the engine, and give it up if that takes too long."""
        closed = worker.close()
        closed.add_done_callback(self.wake)
        if not await self.wait(closed.done, CLOSE_WAIT_S):
            worker.give_up()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            worker = self._worker or self._begin_opening()
            self._outputs = Outputs(self, self._describe(worker.opened.result()))
            self._outputs.settings = parameters.output_settings(self)
        except Exception as error:  # of engines and middlewares, which share no base but this
            self._release(wait=False)
            self.note_fault("not configured", error)
            return TransitionCallbackReturn.FAILURE
        self.fault = ""
        self._state = "inactive"
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._outputs is not None
        self.counts = FrameCounts()
        result = super().on_activate(state)
        self._outputs.publish_classes()
        self._state = "active"
        self._follow_publishers()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._state = "inactive"
        self._follow_publishers()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self._state = "finalized"
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Clean up after a transition that failed; the node is unconfigured then."""
        self._release(wait=False)
        self.get_logger().error("a transition failed: the node is unconfigured")
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Leave the graph; wait for the engine and for a snapshot at most `CLOSE_WAIT_S` each."""
        try:
            self._release()
            if self._saving is not None:
                wait_for([self._saving], CLOSE_WAIT_S)
        finally:
            super().destroy_node()

    def _begin_opening(self) -> Worker[Engine]:
        settings = {name: self.get_parameter(name).value for name in ("model", *ENGINE_OPTIONS)}
        tracking, epoch = parameters.tracking_config(self), self._next_epoch
        opening = partial(
            Engine.open, self._open_runtime, settings, tracking, epoch, self._on_build
        )
        worker = Worker(opening, Engine.close, self._choose_thread(**settings))
        self._worker, self._state = worker, "configuring"
        worker.opened.add_done_callback(self.wake)
        return worker

    def _describe(self, engine: Engine) -> ModelInfo:
        info = engine.runtime.info
        self._model, self._task, self._engine = info.name, info.task, engine.runtime.name
        self.get_logger().info(f"{info.name}, {info.width} x {info.height}, on {self._engine}")
        return info

    def _on_build(self, what: str, share: float) -> None:
        """Keep for the diagnostics how far the engine is; the thread that builds it calls this."""
        self._build = f"{what} {share:.0%}" if share < 1 else what

    def _release(self, wait: bool = True) -> None:
        """Go back to unconfigured, from any state; a second time does what the first left undone.

        Args:
            wait: for the engine to close, at most `CLOSE_WAIT_S`. One that is not waited for closes
                in its own time.
        """
        self._state = "unconfigured"
        self._follow_publishers()
        worker, self._worker = self._worker, None
        if worker is not None and (reason := worker.end(CLOSE_WAIT_S if wait else None)):
            self.note_fault("engine not closed", reason)
        # after the last frame, which sets them
        self._model, self._task, self._engine, self._build = "", "", "", ""
        outputs, self._outputs, self._last = self._outputs, None, None
        if outputs is not None:
            outputs.destroy()

    # --- images

    @property
    def readers(self) -> dict[str, int]:
        """Subscribers of each output; empty while unconfigured."""
        return self._outputs.readers if self._outputs is not None else {}

    @property
    def made(self) -> dict[str, int]:
        """Messages made of each output since configure; empty while unconfigured."""
        return self._outputs.made if self._outputs is not None else {}

    def _follow_publishers(self) -> None:
        """Be subscribed as state, parameters and the publishers on the topic call for, or not."""
        value = {name: self.get_parameter(name).value for name in ("enabled", "reliability")}
        if self._state == "active" and value["enabled"]:
            if not self._subscription:
                self.counts.watched_since = time.monotonic()
                self._rate_limit.restart()
            transport = COMPRESSED if self.get_parameter("compressed").value else RAW
            self._subscription.follow(transport, value["reliability"])
        else:
            self._subscription.drop()
            if self._worker is not None and self._worker.withdraw():
                self.counts.skipped += 1

    def _on_image(self, message: AnyImage) -> None:
        if self._worker is None:  # taken off the wire before, delivered after a cleanup
            return
        counts = self.counts
        counts.received += 1
        counts.arrived = time.monotonic()
        stamp = self._times.stamp(message)
        if stamp is None:
            counts.undated += 1
        elif not self._one_camera.admits(message, stamp):
            counts.interleaved += 1
        elif not self._rate_limit.admits(self.get_parameter("max_rate").value):
            counts.limited += 1
        elif self._worker.offer(partial(self._process, message, stamp, counts)):
            counts.skipped += 1

    def _process(self, message: AnyImage, stamp: int, counts: FrameCounts, engine: Engine) -> None:
        """One frame, in the inference thread; a frame that fails is counted and reported."""
        counts.begun = time.monotonic()
        try:
            age = self._times.age_ms(message)
            if 0 < self.get_parameter("max_age_ms").value < age:
                counts.expired, counts.expired_ms = counts.expired + 1, age
            elif engine.predictor.is_late(stamp):
                counts.late += 1
            else:
                self._segment(message, stamp, counts, engine)
        except Exception as error:  # whatever it is, it costs this frame alone
            if self.context.ok():  # else the process is ending, and publishing cannot work
                self._report(error, counts)
        finally:
            counts.begun = None

    def _segment(self, message: AnyImage, stamp: int, counts: FrameCounts, engine: Engine) -> None:
        """Image to outputs."""
        outputs = self._outputs
        assert outputs is not None
        dropped = counts.dropped
        image = conversions.to_rgb(message)
        frame = engine.predictor.step(image, stamp)
        if counts is not self.counts or outputs is not self._outputs:
            return  # the node was deactivated or cleaned up meanwhile
        self._next_epoch = engine.predictor.next_epoch
        self._last = Snapshot(message.header, image, frame)
        counts.inference_ms = frame.times.step
        counts.note_epoch(frame.epoch, engine.predictor.last_reset)
        self._engine = engine.runtime.name  # a better one takes over when it is built
        number = counts.next_frame(dropped)
        counts.latency_ms = outputs.publish(message.header, image, frame, *number)
        counts.note_result()  # not before: a frame that cannot be published has failed

    def _report(self, error: Exception, counts: FrameCounts) -> None:
        counts.failed += 1
        kind = "" if isinstance(error, conversions.ImageError) else f"{type(error).__name__}: "
        counts.last_failure = kind + process.one_line(error)
        self.get_logger().error(f"frame dropped: {counts.last_failure}", throttle_duration_sec=2.0)

    # --- parameters, services, diagnostics

    def _validate(self, changes: list[Parameter]) -> SetParametersResult:
        return parameters.validate(self, changes, configured=self._worker is not None)

    def _apply(self, changes: list[Parameter]) -> None:
        try:
            self._follow_publishers()
            if self._outputs is not None:
                self._outputs.settings = parameters.output_settings(self)
            if self._worker and any(p.name in parameters.TRACKING_PARAMETERS for p in changes):
                tracking = parameters.tracking_config(self)
                self._worker.call(lambda engine: engine.set_tracking(tracking))
        except Exception as error:  # rclpy would leave whoever sets them without an answer
            names = ", ".join(change.name for change in changes)
            self.get_logger().error(f"{names} not applied: {process.one_line(error)}")

    async def _set_enabled(self, request: SetBool.Request) -> str:
        (result,) = self.set_parameters([Parameter("enabled", value=request.data)])
        if not result.successful:
            raise RequestError(result.reason)
        return "enabled" if request.data else "disabled"

    async def _reset_tracker(self, request: Trigger.Request) -> str:
        worker = self._worker
        if worker is None or self._outputs is None:
            raise RequestError("the node is not configured")
        epoch = worker.call(self._reset)
        epoch.add_done_callback(self.wake)
        if not await self.wait(epoch.done, ANSWER_WAIT_S):
            epoch.cancel()
            raise RequestError(f"the engine has been busy for {worker.busy_s or 0.0:.1f} s")
        return f"tracker epoch {epoch.result()}"

    def _reset(self, engine: Engine) -> int:
        """Forget the tracks, in the inference thread; the new epoch, which none has had."""
        epoch = engine.reset()
        self._next_epoch = engine.predictor.next_epoch
        return epoch

    async def _save_snapshot(self, request: Trigger.Request) -> str:
        if self._worker is None or self._outputs is None or self._last is None:
            raise RequestError("no image has been processed yet")
        if self._saving is not None and not self._saving.done():
            raise RequestError("the snapshot before this one is still being written")
        folder = Path(process.expand(self.get_parameter("snapshot_folder").value))
        if str(folder).startswith("~"):
            raise RequestError(f"snapshot_folder must be of a user there is, got {folder}")
        save = partial(self._last.save, folder, self._outputs.classes)
        self._saving = saving = run_aside(save, "snapshot")  # a disk may hang too
        saving.add_done_callback(self.wake)
        if not await self.wait(saving.done, SAVE_WAIT_S):
            raise RequestError(f"{folder} could not be written within {SAVE_WAIT_S:g} s")
        try:
            return str(saving.result())
        except OSError as error:
            message = f"cannot save into {folder}: {process.one_line(error)}"
            self.get_logger().error(message)
            raise RequestError(message) from None

    def _publish_diagnostics(self) -> None:
        status = diagnostics.NodeStatus(
            name=self.get_fully_qualified_name(),
            state=self._state,
            model=self._model,
            task=self._task,
            engine=self._engine,
            engine_build=self._build,
            fault=self.fault,
            subscription=str(self._subscription),
            obstacle=self._subscription.obstacle,
            publishers=self._subscription.publishers,
            made=self.made,
            subscribers=self._outputs.frame_subscribers if self._outputs is not None else 0,
            output_obstacle=self._outputs.obstacle if self._outputs is not None else "",
            simulated_time=self._times.simulated(),
        )
        stamp = self.get_clock().now().to_msg()
        report = self._reporter.report(stamp, status, self.counts, parameters.limits(self))
        self._diagnostics.publish(report)


def main(args: list[str] | None = None) -> int:
    """The `camera_node` executable; see `process.run` for exit codes."""
    return process.run(lambda: [CameraNode()], start, args)


def start(node: CameraNode) -> None:
    """Configure and activate, unless the parameter `autostart` is off.

    The executor of the node does it while it spins; without one it is done when this returns.
    """
    if not node.get_parameter("autostart").value:
        return
    if node.executor is not None:
        node.executor.create_task(node.bring_up)
    elif node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
        node.trigger_activate()
