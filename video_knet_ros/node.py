"""The camera node: images in, tracked instances and label images out.

The executor's thread only puts the newest image into the worker's mailbox and never waits for the
engine, which may hang; all else happens in the inference thread. While the node is active and
enabled it processes every image it can, with or without subscribers, because tracks must not have
gaps; only messages without a subscriber are not published.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from video_knet_core.engine.executor import run_in_thread
from video_knet_core.epochs import new_epoch
from video_knet_core.messages.image_messages import ImageError, to_rgb
from video_knet_core.messages.result_messages import FrameToPublish, latency_ms, nanoseconds
from video_knet_core.predictor import VideoPredictor
from video_knet_core.spatial.camera_model import SpatialError
from video_knet_core.spatial.locator import ObjectLocator
from video_knet_core.user_names import expand

from . import diagnostics, parameters, process
from .deferred import DeferredPublisher
from .engines import CLOSE_WAIT_S, EnginePool, EngineWorker
from .input_images import FrameCounts, RateLimit, SingleCameraFilter
from .lifecycle import EngineNode, RequestError
from .outputs import Outputs
from .ros_compat import add_post_set_parameters_callback
from .snapshot import save_snapshot
from .spatial_inputs import SpatialSubscriptions
from .subscription import COMPRESSED, RAW, AnyImage, ImageSubscription

GRAPH_PERIOD_S = 0.5
"""How often the QoS of the image publishers is looked at."""
ANSWER_WAIT_S = 2.0
"""How long a service waits for the engine before it answers that it is busy."""
SAVE_WAIT_S = 5.0
"""How long `save_snapshot` waits for the disk."""


class CameraNode(EngineNode):
    """One camera.

    Lifecycle: configure opens the model, activate subscribes, deactivate unsubscribes and keeps the
    model, cleanup frees it. Unless the parameter `autostart` is off the node configures and
    activates when its executor spins.

    Args:
        engines: of the process, which other cameras may use too; None = of this camera alone.
        name: of the node.
        kwargs: of the rclpy node, which raises InvalidParameterTypeException or
            InvalidParameterValueException for parameter overrides that cannot be used.
    """

    def __init__(
        self, engines: EnginePool | None = None, name: str = "video_knet", **kwargs: Any
    ) -> None:
        super().__init__(name, **kwargs)
        self._engines = engines or EnginePool()
        self.outputs: Outputs | None = None
        self._subscription = ImageSubscription(self, self._on_image)
        self._locator: ObjectLocator | None = None
        self._deferred = DeferredPublisher(self._publish_in_space, self._submit)
        on_input = self._deferred.input_received
        self._spatial_subscriptions = SpatialSubscriptions(self, on_input)
        self._rate_limit = RateLimit()
        self._camera_filter = SingleCameraFilter()
        self._last: FrameToPublish | None = None
        self._saving: Future[Path] | None = None
        self._next_epoch = new_epoch()  # of the next configuration: no id may name two objects
        self.counts = FrameCounts()
        self._reporter = diagnostics.Reporter()
        self.add_on_set_parameters_callback(self._validate)
        parameters.declare(self)
        self._given = {name: self._value(name) for name in ("model", "snapshot_folder")}
        add_post_set_parameters_callback(self, self._apply)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.add_service(SetBool, "~/set_enabled", self._set_enabled)
        self.add_service(Trigger, "~/reset_tracker", self._reset_tracker)
        self.add_service(Trigger, "~/save_snapshot", self._save_snapshot)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time may stand still
        self.create_timer(GRAPH_PERIOD_S, self._follow_publishers, clock=steady)
        self.create_timer(diagnostics.PERIOD_S, self._publish_diagnostics, clock=steady)
        self._start_timer = self.create_timer(0.0, self._start, clock=steady)

    # --- lifecycle

    def _start(self) -> None:
        self._start_timer.cancel()
        if self._value("autostart"):
            self.executor.create_task(self.autostart)

    def open_engine(self) -> EngineWorker:
        settings = {name: self._value(name) for name in ("backend", "threads")}
        settings["model"] = self._path("model")
        tracking, engine = parameters.tracking(self), self._engines.engine(settings)
        return EngineWorker(engine, tracking, self._next_epoch, self._on_build)

    def _on_build(self, what: str, fraction: float) -> None:
        """Progress callback of an engine's build, called by the thread that builds it."""
        self.status.engine_build = f"{what} {fraction:.0%}" if fraction < 1 else what

    def engine_opened(self, engine: VideoPredictor) -> None:
        info, status = engine.runtime.info, self.status
        status.model, status.task, status.engine = info.name, info.task, engine.runtime.name
        sizes = " or ".join(f"{width} x {height}" for height, width in info.sizes)
        self.get_logger().info(f"{info.name}, {sizes}, on {status.engine}")
        self.outputs = Outputs(self, info, self._value("mask_classes"))

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self.outputs is not None
        self.counts = FrameCounts()
        self._deferred.drop()
        self._locator = ObjectLocator(self.outputs.classes, parameters.spatial(self))
        result = super().on_activate(state)
        self.outputs.publish_classes()
        return result

    def state_changed(self) -> None:
        self._follow_publishers()

    def engine_closed(self) -> None:
        outputs, self.outputs, self._last = self.outputs, None, None
        self._deferred.drop()
        if outputs is not None:
            outputs.destroy()

    def destroy_node(self) -> None:
        """Leave the graph; wait for the engine and for a snapshot at most `CLOSE_WAIT_S` each."""
        try:
            super().destroy_node()
        finally:
            if self._saving is not None:
                wait_for([self._saving], CLOSE_WAIT_S)

    # --- images

    def _follow_publishers(self) -> None:
        """Subscribe as state, parameters and publishers require, or unsubscribe."""
        if self.status.state == "active" and self._value("enabled"):
            if not self._subscription:
                self.counts.watched_since = time.monotonic()
                self._rate_limit.restart()
            transport = COMPRESSED if self._value("compressed") else RAW
            self._subscription.follow(transport, self._value("reliability"))
            self._deferred.tick()
            if self.outputs and self._locator and self._uses_space(self.outputs):
                self._spatial_subscriptions.follow(self._locator.inputs)
            else:
                self._drop_spatial_inputs()
        else:
            self._subscription.drop()
            self._drop_spatial_inputs()
            self._deferred.drop()
            if self.worker is not None and self.worker.withdraw():
                self.counts.skipped += 1

    def _drop_spatial_inputs(self) -> None:
        if self._spatial_subscriptions and self._locator is not None:
            self._locator.inputs.forget_sensors()
        self._spatial_subscriptions.drop()

    def _uses_space(self, outputs: Outputs) -> bool:
        """Whether depth, camera info and transforms are needed now."""
        if outputs.has_subscribers(spatial=True):
            return True
        return self._value("semantic_size") == "cloud" and outputs.has_subscribers(semantic=True)

    def _on_image(self, message: AnyImage) -> None:
        if self.worker is None:  # received before a cleanup, delivered after it
            return
        counts = self.counts
        counts.received += 1
        counts.arrived = time.monotonic()
        # of its arrival without one; 0 is "not set", and simulated time that has not begun
        stamp = nanoseconds(message.header.stamp) or self._now()
        if not stamp:
            counts.undated += 1
        elif not self._camera_filter.accepts(message, stamp):
            counts.interleaved += 1
        elif not self._rate_limit.accepts(self._value("max_rate")):
            counts.limited += 1
        elif self.worker.offer(partial(self._process, message, stamp, counts)):
            counts.skipped += 1

    def _process(
        self, message: AnyImage, stamp: int, counts: FrameCounts, predictor: VideoPredictor
    ) -> None:
        """One frame, in the inference thread; a frame that fails is counted and reported."""
        counts.begun = time.monotonic()
        try:
            age = self._age_ms(message)
            if 0 < self._value("max_age_ms") < age:
                counts.expired, counts.expired_ms = counts.expired + 1, age
            elif predictor.is_late(stamp):
                counts.late += 1
            else:
                self._segment(message, stamp, counts, predictor)
        except Exception as error:  # whatever it is, it costs this frame alone
            if self.context.ok():  # else the process is ending, and publishing cannot work
                counts.failed += 1
                counts.last_failure = process.describe(error, ImageError)
                words = f"frame dropped: {counts.last_failure}"
                self.get_logger().error(words, throttle_duration_sec=2.0)
        finally:
            counts.begun = None

    def _segment(
        self, message: AnyImage, stamp: int, counts: FrameCounts, predictor: VideoPredictor
    ) -> None:
        """Image to outputs."""
        outputs, locator = self.outputs, self._locator
        assert outputs is not None and locator is not None
        dropped = counts.dropped
        image = to_rgb(message)
        frame = predictor.step(image, stamp)
        if counts is not self.counts or outputs is not self.outputs:
            return  # the node was deactivated or cleaned up during the step
        self._next_epoch = predictor.next_epoch
        counts.inference_ms = frame.times.step
        counts.note_epoch(frame.epoch, predictor.last_reset)
        self.status.engine = predictor.runtime.name  # a better one takes over when it is built
        sequence, skipped = counts.next_frame(dropped)
        self._last = result = FrameToPublish(
            message.header,
            image,
            frame,
            predictor.classes,
            sequence,
            skipped,
            rle=self._value("rle"),
            opacity=self._value("overlay_opacity"),
            latency_ms=self._age_ms(message),
        )
        if self._uses_space(outputs):
            spatial = locator.locate(frame, image, message.header.frame_id, stamp)
            result = replace(result, spatial=spatial, semantic_size=spatial.semantic_size)
        outputs.publish(result)
        counts.latency_ms = result.latency_ms
        counts.note_result()  # not before: a frame that cannot be published has failed
        if result.spatial is not None:
            self._deferred.offer(result if outputs.has_subscribers(spatial=True) else None)

    def _submit(self, job: Callable[[], None]) -> Future[None] | None:
        """Run a job in the inference thread; None if there is none."""
        with suppress(RuntimeError):  # the engine is closed
            return self.worker.call(lambda _: job()) if self.worker else None
        return None

    def _publish_in_space(self, result: FrameToPublish) -> None:
        """In the inference thread; an error is reported, the result in the image stands."""
        outputs, locator = self.outputs, self._locator
        if outputs is None or locator is None:
            return
        try:
            outputs.publish(result, spatial=True)
        except Exception as error:
            if self.context.ok():  # else the process is ending
                words = process.describe(error, SpatialError)
                locator.inputs.note("metres", words)

    # --- parameters, services, diagnostics

    def _value(self, parameter: str) -> Any:
        return self.get_parameter(parameter).value

    def _path(self, parameter: str) -> str:
        """Its value with `~` replaced; variables only as the node was started with them: anyone on
        the network may set a parameter, and read in a message what it becomes."""
        value = self._value(parameter)
        return expand(value) if value == self._given[parameter] else os.path.expanduser(value)

    def _now(self) -> int:
        return self.get_clock().now().nanoseconds

    def _age_ms(self, message: AnyImage) -> float:
        """Milliseconds from its stamp until now; NaN without a stamp, or a clock."""
        return latency_ms(nanoseconds(message.header.stamp), self._now())

    def _validate(self, changes: list[Parameter]) -> SetParametersResult:
        return parameters.validate(self, changes, configured=self.worker is not None)

    def _apply(self, changes: Sequence[Parameter]) -> None:
        try:
            self._follow_publishers()
            if self._locator and any(c.name in parameters.SPATIAL for c in changes):
                self._locator.settings = parameters.spatial(self)
            if self.worker and any(c.name.startswith(parameters.TRACKING) for c in changes):
                tracking = parameters.tracking(self)

                def change(predictor: VideoPredictor) -> None:
                    predictor.tracking = tracking

                self.worker.call(change)
        except Exception as error:  # rclpy would send no answer
            names = ", ".join(change.name for change in changes)
            self.get_logger().error(f"{names} not applied: {process.one_line(error)}")

    async def _set_enabled(self, request: SetBool.Request) -> str:
        (result,) = self.set_parameters([Parameter("enabled", value=request.data)])
        if not result.successful:
            raise RequestError(result.reason)
        return "enabled" if request.data else "disabled"

    async def _reset_tracker(self, request: Trigger.Request) -> str:
        worker = self.worker
        if worker is None or self.outputs is None:
            raise RequestError("the node is not configured")

        def reset(predictor: VideoPredictor) -> int:
            predictor.reset()
            self._next_epoch = predictor.next_epoch
            return predictor.epoch

        epoch = worker.call(reset)
        if not await self.wait(epoch, ANSWER_WAIT_S):
            epoch.cancel()
            raise RequestError(f"the engine has been busy for {worker.busy_s or 0.0:.1f} s")
        return f"tracker epoch {epoch.result()}"

    async def _save_snapshot(self, request: Trigger.Request) -> str:
        if self.worker is None or self.outputs is None or self._last is None:
            raise RequestError("no image has been processed yet")
        if self._saving is not None and not self._saving.done():
            raise RequestError("the previous snapshot is still being written")
        folder = Path(self._path("snapshot_folder"))
        if str(folder).startswith("~"):
            raise RequestError(f"snapshot_folder: expected an existing user, got {folder}")
        save = partial(save_snapshot, self._last, folder)
        self._saving = saving = run_in_thread(save, "snapshot")  # a disk may hang too
        if not await self.wait(saving, SAVE_WAIT_S):
            raise RequestError(f"{folder} could not be written within {SAVE_WAIT_S:g} s")
        try:
            return str(saving.result())
        except OSError as error:
            message = f"cannot save into {folder}: {process.one_line(error)}"
            self.get_logger().error(message)
            raise RequestError(message) from None

    def _publish_diagnostics(self) -> None:
        status, outputs = self.status, self.outputs
        status.subscription = str(self._subscription)
        status.obstacle = self._subscription.obstacle
        status.publishers = self._subscription.publishers
        if outputs is not None:
            status.published = outputs.published
            status.subscribers = outputs.frame_subscribers
            status.output_obstacle = outputs.obstacle
        inputs = self._locator.inputs if self._locator and self._spatial_subscriptions else None
        status.spatial = dict(inputs.counts) if inputs else {}
        status.spatial_reasons = dict(inputs.reasons) if inputs else {}
        simulated = self.get_clock().ros_time_is_active
        status.simulated_time = self._now() / 1e9 if simulated else None
        names = ("warn_after_s", "error_after_s", "max_rate", "max_age_ms")
        limits = diagnostics.Limits(*map(self._value, names))
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(self._reporter.report(stamp, status, self.counts, limits))
        for level, words in self._reporter.log_lines:
            self._log(level, words)

    def _log(self, level: bytes, words: str) -> None:
        """In a line of its own for each level: rclpy allows one level in a line."""
        if level == diagnostics.OK:
            self.get_logger().info(words)
        elif level == diagnostics.WARN:
            self.get_logger().warning(words)
        else:
            self.get_logger().error(words)


def main(args: list[str] | None = None) -> int:
    """The `camera_node` executable; see `process.run` for exit codes."""
    return process.run(lambda: [CameraNode()], args)
