"""The camera node: images in, tracked instances and label images out.

The executor's thread only leaves the newest image in the worker's mailbox; all else happens in the
inference thread. While the node is active and enabled it runs on every image it can take, with or
without listeners, because the memory of the tracks must not have holes; only messages that nobody
reads are not made.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool, Trigger

from video_knet_core.config import TrackingConfig
from video_knet_core.engine.runtime import ModelInfo, Runtime, default_model_path, open_runtime
from video_knet_core.epochs import new_epoch
from video_knet_core.predictor import VideoPredictor

from . import conversions, diagnostics, parameters, process
from .outputs import Outputs
from .snapshot import Snapshot
from .subscription import ImageSubscription, RateLimit
from .worker import InferenceThread, Worker

GRAPH_PERIOD_S = 0.5
"""How often the QoS of the image publishers is looked at."""
ENGINE_OPTIONS = ("backend", "threads")
"""Parameters that go to `open_runtime` under their own names."""


class Engine(NamedTuple):
    """What the inference thread owns."""

    runtime: Runtime
    predictor: VideoPredictor


class CameraNode(LifecycleNode):
    """One camera.

    Lifecycle: configure opens the model, activate subscribes, deactivate unsubscribes and keeps the
    model, cleanup frees it. A configure that fails leaves the node alive and unconfigured.

    Args:
        open_runtime: makes the engine.
        name: of the node.
        thread: the inference thread that it shares with other cameras; None = one of its own.
        kwargs: go to the rclpy node.

    Raises:
        InvalidParameterTypeException, InvalidParameterValueException: by rclpy, for parameter
            overrides that cannot be used.
    """

    def __init__(
        self,
        open_runtime: Callable[..., Runtime] = open_runtime,
        name: str = "video_knet",
        thread: InferenceThread | None = None,
        **kwargs,
    ) -> None:
        super().__init__(name, **kwargs)
        self._open_runtime = open_runtime
        self._thread = thread
        self._worker: Worker[Engine] | None = None
        self._outputs: Outputs | None = None
        self._subscription = ImageSubscription(self, self._on_image)
        self._rate_limit = RateLimit()
        self._last: Snapshot | None = None
        self._state = "unconfigured"
        self._fault = ""
        self._model, self._task, self._engine, self._build = "", "", "", ""
        self._next_epoch = new_epoch()  # of the next configuration: no id may name two objects
        self.counts = diagnostics.FrameCounts()
        self._reporter = diagnostics.Reporter()
        self.add_on_set_parameters_callback(self._validate)
        parameters.declare(self)
        self.add_post_set_parameters_callback(self._apply)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_service(SetBool, "~/set_enabled", self._set_enabled)
        self.create_service(Trigger, "~/reset_tracker", self._reset_tracker)
        self.create_service(Trigger, "~/save_snapshot", self._save_snapshot)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time may stand still
        self.create_timer(GRAPH_PERIOD_S, self._follow_publishers, clock=steady)
        self.create_timer(diagnostics.PERIOD_S, self._publish_diagnostics, clock=steady)

    # --- lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        settings = {name: self.get_parameter(name).value for name in ("model", *ENGINE_OPTIONS)}
        tracking = parameters.tracking_config(self)
        try:
            self._worker = Worker(partial(self._open, settings, tracking), _close, self._thread)
            info = self._worker.call(self._describe).result()
            self._outputs = Outputs(self, info)
            self._outputs.settings = parameters.output_settings(self)
        except Exception as error:
            self._note_fault("not configured", error)
            self._release()
            return TransitionCallbackReturn.FAILURE
        self._fault = ""
        self._state = "inactive"
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._outputs is not None
        self.counts = diagnostics.FrameCounts()
        try:
            result = super().on_activate(state)
            self._outputs.publish_classes()
            self._state = "active"
            self._follow_publishers()
        except Exception as error:
            self._note_fault("not activated", error)
            return TransitionCallbackReturn.ERROR
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
        self._fault = self._fault or f"a transition from {state.label} failed"
        self.get_logger().error(f"{self._fault}; the node is unconfigured")
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        self._release()
        super().destroy_node()

    def _open(self, settings: dict[str, Any], tracking: TrackingConfig) -> Engine:
        path = Path(settings["model"]) if settings["model"] else default_model_path()
        options = {name: settings[name] for name in ENGINE_OPTIONS}
        runtime = self._open_runtime(path, **options, background=True, progress=self._on_build)
        return Engine(runtime, VideoPredictor(runtime, tracking, self._next_epoch))

    def _describe(self, engine: Engine) -> ModelInfo:
        info = engine.runtime.info
        self._model, self._task, self._engine = info.name, info.task, engine.runtime.name
        self.get_logger().info(f"{info.name}, {info.width} x {info.height}, on {self._engine}")
        return info

    def _on_build(self, what: str, share: float) -> None:
        """Keep for the diagnostics how far the engine is; the thread that builds it calls this."""
        self._build = f"{what} {share:.0%}" if share < 1 else what

    def _note_fault(self, what: str, error: Exception) -> None:
        """Keep the reason for /diagnostics, and log it unless the process is ending."""
        self._fault = f"{what}: {process.one_line(error)}"
        if self.context.ok():
            self.get_logger().error(self._fault)

    def _release(self) -> None:
        """Go back to unconfigured, from any state."""
        self._state = "unconfigured"
        self._follow_publishers()
        if self._worker is not None:
            self._worker.close()
            self._worker = None
        # after the last frame, which sets them
        self._model, self._task, self._engine, self._build = "", "", "", ""
        if self._outputs is not None:
            self._outputs.destroy()
            self._outputs = None
        self._last = None

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
                self.counts.arrived = time.monotonic()  # the watchdog counts from now
            self._subscription.follow(*self._input(), value["reliability"])
        else:
            self._subscription.drop()
            if self._worker is not None and self._worker.withdraw():
                self.counts.skipped += 1

    def _input(self) -> tuple[type, str]:
        if self.get_parameter("compressed").value:
            return CompressedImage, "~/image/compressed"
        return Image, "~/image"

    def _on_image(self, message: Image | CompressedImage) -> None:
        if self._worker is None:  # taken off the wire before, delivered after a cleanup
            return
        self.counts.received += 1
        self.counts.arrived = time.monotonic()
        if not self._rate_limit.admits(self.get_parameter("max_rate").value):
            self.counts.limited += 1
        elif self._worker.offer(partial(self._process, message, self.counts)):
            self.counts.skipped += 1

    def _process(
        self, message: Image | CompressedImage, counts: diagnostics.FrameCounts, engine: Engine
    ) -> None:
        """One frame, in the inference thread; a frame that fails is counted and reported."""
        counts.begun = time.monotonic()
        try:
            if self._is_too_old(message):
                counts.expired += 1
            else:
                self._segment(message, counts, engine)
        except Exception as error:
            if self.context.ok():  # else the process is ending, and publishing cannot work
                self._report(error, counts)
        finally:
            counts.begun = 0.0

    def _is_too_old(self, message: Image | CompressedImage) -> bool:
        limit, stamp = self.get_parameter("max_age_ms").value, message.header.stamp
        age = conversions.latency_ms(
            conversions.nanoseconds(stamp), self.get_clock().now().nanoseconds
        )
        return limit > 0 and age > limit

    def _segment(
        self, message: Image | CompressedImage, counts: diagnostics.FrameCounts, engine: Engine
    ) -> None:
        """Image to outputs."""
        assert self._outputs is not None
        dropped = counts.dropped
        stamp = conversions.nanoseconds(message.header.stamp)
        image = conversions.to_rgb(message)
        frame = engine.predictor.step(image, stamp or self.get_clock().now().nanoseconds)
        if counts is not self.counts:  # the node was deactivated and activated meanwhile
            return
        self._next_epoch = engine.predictor.next_epoch
        self._last = Snapshot(message.header, image, frame)
        counts.inference_ms = frame.times.step
        self._engine = engine.runtime.name  # a better one takes over when it is built
        number = counts.next_frame(dropped)
        counts.latency_ms = self._outputs.publish(message.header, image, frame, *number)
        counts.processed += 1  # not before: a frame that cannot be published has failed

    def _report(self, error: Exception, counts: diagnostics.FrameCounts) -> None:
        counts.failed += 1
        kind = "" if isinstance(error, conversions.ImageError) else f"{type(error).__name__}: "
        counts.last_failure = kind + process.one_line(error)
        self.get_logger().error(f"frame dropped: {counts.last_failure}", throttle_duration_sec=2.0)

    # --- parameters, services, diagnostics

    def _validate(self, changes: list[Parameter]) -> SetParametersResult:
        return parameters.validate(changes, configured=self._worker is not None)

    def _apply(self, changes: list[Parameter]) -> None:
        self._follow_publishers()
        if self._outputs is not None:
            self._outputs.settings = parameters.output_settings(self)
        if self._worker and any(p.name in parameters.TRACKING_PARAMETERS for p in changes):
            self._worker.call(partial(_set_tracking, parameters.tracking_config(self)))

    def _set_enabled(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        (result,) = self.set_parameters([Parameter("enabled", value=request.data)])
        response.success = result.successful
        response.message = result.reason or ("enabled" if request.data else "disabled")
        return response

    def _reset_tracker(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        response.success = self._worker is not None
        response.message = "the node is not configured"
        if self._worker is not None:
            response.message = f"tracker epoch {self._worker.call(_reset).result()}"
        return response

    def _save_snapshot(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        if self._worker is None or self._outputs is None or self._last is None:
            response.message = "no image has been processed yet"
            return response
        folder = Path(self.get_parameter("snapshot_folder").value).expanduser()
        try:
            saved = self._last.save(folder, self._outputs.classes)
        except OSError as error:
            response.message = f"cannot save into {folder}: {process.one_line(error)}"
            self.get_logger().error(response.message)
            return response
        response.success, response.message = True, str(saved)
        return response

    def _publish_diagnostics(self) -> None:
        status = diagnostics.NodeStatus(
            name=self.get_fully_qualified_name(),
            state=self._state,
            model=self._model,
            task=self._task,
            engine=self._engine,
            engine_build=self._build,
            fault=self._fault,
            subscription=str(self._subscription),
            incompatible=self._subscription.incompatible,
            made=self.made,
        )
        stamp = self.get_clock().now().to_msg()
        report = self._reporter.report(stamp, status, self.counts, parameters.limits(self))
        self._diagnostics.publish(report)


def _close(engine: Engine) -> None:
    engine.runtime.close()


def _reset(engine: Engine) -> int:
    engine.predictor.reset()
    return engine.predictor.epoch


def _set_tracking(config: TrackingConfig, engine: Engine) -> None:
    engine.predictor.tracking = config


def main(args: list[str] | None = None) -> int:
    """The `camera_node` executable; see `process.run` for exit codes."""
    return process.run(lambda: [CameraNode()], start, args)


def start(node: CameraNode) -> None:
    """Configure and activate, unless the parameter `autostart` is off."""
    if (
        node.get_parameter("autostart").value
        and node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    ):
        node.trigger_activate()
