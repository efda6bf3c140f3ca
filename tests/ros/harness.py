"""Shared by the ROS tests: painted images with known segments, nodes to send and collect them."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from video_knet_ros.msg import TrackedInstanceArray

from video_knet_core.engine.base import ModelInfo
from video_knet_core.messages.result_messages import nanoseconds
from video_knet_core.messages.topics import OUTPUTS
from video_knet_core.types import ClassInfo, ClassTable, Detections
from video_knet_ros import node
from video_knet_ros.engines import EnginePool
from video_knet_ros.outputs import CONVERSIONS

CLASSES = ClassTable(
    (
        ClassInfo(0, "road", False, (128, 64, 128)),
        ClassInfo(1, "sky", False, (70, 130, 180)),
        ClassInfo(2, "person", True, (220, 20, 60)),
        ClassInfo(3, "vehicle", True, (0, 0, 142)),
    )
)
ROAD, SKY, PERSON, CAR, TRUCK = 1, 2, 3, 4, 5
"""Red values of painted pixels; 0 is no segment."""
_CLASS_OF_SLOT = np.array([0, 1, 2, 3, 3])
HEIGHT, WIDTH = 48, 96
TIMEOUT_S = 90.0
"""After it a test fails: much longer than anything takes on a busy machine."""
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


@contextmanager
def reserved_domain(
    choose: Callable[[], int] = lambda: 1 + secrets.randbelow(100),
) -> Iterator[int]:
    """A ROS domain that no other test run on this machine has; RuntimeError if none is free.

    Reserved by the ports that `domain_coordinator` uses, so that its users are respected too. Not
    chosen by `random`, whose seed pytest-randomly may set to the same value in two runs.
    """
    with socket.socket() as reservation:
        for _ in range(100):
            domain = choose()
            try:
                reservation.bind(("", 32768 + domain))
            except OSError:
                continue
            yield domain
            return
    raise RuntimeError("expected a free ROS domain, got none in 100 attempts")


class PaintedRuntime:
    """An engine that reads the segments off the image: red value s + 1 is slot s.

    While `gate` is cleared, a step waits; `seen` holds the green value of every image that came.
    """

    name = "painted"
    info = ModelInfo("painted-street", CLASSES, HEIGHT, WIDTH, "panoptic")

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.seen: list[int] = []
        self.closed = False
        self.threads: set[str] = {threading.current_thread().name}

    def step(self, image: np.ndarray, state: Any) -> tuple[Detections, Any]:
        self.threads.add(threading.current_thread().name)
        self.seen.append(int(image[0, 0, 1]))
        assert self.gate.wait(TIMEOUT_S), "the test never opened the gate"
        if image[0, 0, 2] == 66:
            raise RuntimeError("the engine\nbroke")
        slots = np.arange(len(_CLASS_OF_SLOT))
        painted = np.ascontiguousarray(image[::2, ::2, 0])
        return (
            Detections(
                segment_map=painted,
                class_ids=_CLASS_OF_SLOT.astype(np.int64),
                scores=np.full(len(slots), 0.9, np.float32),
                areas=np.array([(painted == s + 1).sum() for s in slots], np.int64),
                embeddings=np.eye(len(slots), dtype=np.float32),
            ),
            (0 if state is None else state) + 1,
        )

    def close(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.closed = True


def street(number: int = 0, scale: int = 1, things: tuple[int, ...] = (PERSON, CAR)) -> np.ndarray:
    """A painted street, RGB uint8; things drive right with `number`, which is its green value."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:16, :, 0] = SKY
    image[20:, :, 0] = ROAD  # rows 16..19 belong to no segment
    for i, thing in enumerate(things):
        x = 4 + 20 * i + 2 * (number % 10)
        image[24 + 6 * i : 36 + 4 * i, x : x + 10, 0] = thing
    image[..., 1] = number
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def image_message(pixels: np.ndarray, stamp: float = 1.0, encoding: str = "rgb8") -> Image:
    """Message of painted pixels with a header that no other message has."""
    message = CONVERSIONS.image_message(Image().header, encoding, pixels)
    message.header.stamp = CONVERSIONS.time_message(round(stamp * 1e9))
    message.header.frame_id = f"front_camera_{stamp}"
    return message


class World:
    """One executor, spun by the test itself whenever it waits for something."""

    def __init__(self) -> None:
        self.executor = SingleThreadedExecutor()
        self.runtimes: list[PaintedRuntime] = []
        self.tester = self.add(Node("tester"))
        self.diagnostics: list[Any] = []
        self.tester.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._stamp = 100.0

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        (status,) = message.status
        values = {entry.key: entry.value for entry in status.values}
        node_name = status.name.removesuffix(": frames")
        self.diagnostics.append((status.level, status.message, values, node_name))

    def add(self, new: Any) -> Any:
        """Let `new` take part; it is destroyed with the world."""
        self.executor.add_node(new)
        return new

    def wait(
        self, condition: Callable[[], Any], what: str = "condition", timeout: float = TIMEOUT_S
    ):
        """Spin until `condition` gives something true, and return that."""
        end = time.monotonic() + timeout
        while not (result := condition()):
            assert time.monotonic() < end, f"waited {timeout:g} s for {what}"
            self.executor.spin_once(timeout_sec=0.02)
        return result

    def open_painted(self, path: Any, **options: Any) -> PaintedRuntime:
        """In place of `open_runtime`."""
        self.runtimes.append(PaintedRuntime())
        return self.runtimes[-1]

    def camera_node(
        self, start: bool = True, wait: bool = True, **parameters: Any
    ) -> node.CameraNode:
        """A camera node with the painted engine (unless `open_runtime` is given).

        With `start` and `wait` it is active, or has failed to configure, when this returns.
        """
        open_runtime = parameters.pop("open_runtime", self.open_painted)
        parameters = {"model": "painted.onnx", "autostart": start, **parameters}
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        engines = EnginePool(open_runtime)
        camera = self.add(node.CameraNode(engines, parameter_overrides=overrides))
        if wait and parameters["autostart"] is True:
            self.wait(lambda: camera.status.fault or camera.status.state == "active", "the start")
        return camera

    def publisher(self, qos: QoSProfile = RELIABLE, topic: str = "image", kind: type = Image):
        """A camera's publisher, once the node has subscribed to it with the same reliability."""
        publisher = self.tester.create_publisher(kind, f"/video_knet/{topic}", qos)
        self.wait(lambda: self.reliability(topic) == qos.reliability, "the subscription to match")
        self.wait(publisher.get_subscription_count, "the subscription")
        return publisher

    def reliability(self, topic: str = "image") -> ReliabilityPolicy | None:
        """QoS that the camera node requests on its image topic; None without a subscription."""
        found = self.tester.get_subscriptions_info_by_topic(f"/video_knet/{topic}")
        return found[0].qos_profile.reliability if found else None

    def collect(self, kind: type, topic: str, qos: QoSProfile = RELIABLE) -> list:
        """List of all messages on an output, filled from now on."""
        got: list = []
        full = f"/video_knet/{topic}"
        subscription = self.tester.create_subscription(kind, full, got.append, qos)
        self.wait(lambda: self.publishers(subscription), f"a publisher of {topic}")
        self.wait(lambda: self.subscribers(topic), f"the publisher of {topic} to be matched")
        return got

    def publishers(self, subscription: Any) -> int:
        """Publishers that a subscription of the tester has found."""
        if hasattr(subscription, "get_publisher_count"):
            return subscription.get_publisher_count()
        return self.tester.count_publishers(subscription.topic_name)  # Humble

    def subscribers(self, topic: str) -> int:
        """Subscribers of an output that the camera node has found."""
        names = {output.topic: name for name, output in OUTPUTS.items()}
        name = names.get(topic, topic)
        cameras = [n for n in self.executor.get_nodes() if isinstance(n, node.CameraNode)]
        return sum(c.outputs.subscribers.get(name, 0) for c in cameras if c.outputs)

    def tables(self) -> list[TrackedInstanceArray]:
        """`collect` for the instances."""
        return self.collect(TrackedInstanceArray, "instances")

    def send(self, publisher: Any, tables: list, pixels: np.ndarray, step: float = 0.1):
        """Publish one image and wait for its table."""
        self._stamp += step
        before = len(tables)
        message = image_message(pixels, self._stamp)
        publisher.publish(message)
        self.wait(lambda: len(tables) > before, "a table")
        return message, tables[-1]

    def call(self, kind: type, service: str, request: Any) -> Any:
        """Response of a service of the camera node, or of any other by its full name."""
        future = self.request(kind, service, request)
        self.wait(future.done, f"an answer of {service}")
        return future.result()

    def request(self, kind: type, service: str, request: Any) -> Any:
        """Future of what `call` returns."""
        name = service if service.startswith("/") else f"/video_knet/{service}"
        client = self.tester.create_client(kind, name)
        self.wait(client.service_is_ready, f"service {service}")
        return client.call_async(request)

    def set_parameter(self, name: str, value: Any) -> Any:
        """Result of setting one parameter from outside."""
        request = SetParameters.Request()
        request.parameters = [Parameter(name, value=value).to_parameter_msg()]
        return self.call(SetParameters, "set_parameters", request).results[0]

    def transition(self, label: str) -> bool:
        """Ask for a lifecycle transition from outside, as `ros2 lifecycle set` does."""
        future = self.request_transition(label)
        self.wait(future.done, f"an answer to {label}")
        return future.result().success

    def request_transition(self, label: str) -> Any:
        """Future of the response to a lifecycle transition."""
        request = ChangeState.Request(transition=Transition(label=label))
        return self.request(ChangeState, "change_state", request)

    def state(self) -> str:
        """The lifecycle state that the camera node reports."""
        return self.call(GetState, "get_state", GetState.Request()).current_state.label

    def now(self) -> float:
        """Seconds on the clock of the nodes."""
        return self.tester.get_clock().now().nanoseconds / 1e9

    def report(
        self,
        condition: Callable[[dict], Any],
        level: bytes | None = None,
        words: str = "",
        name: str = "/video_knet",
    ) -> tuple[bytes, str, dict]:
        """Level, words and values of the next diagnostics of a node that fit what is given.

        Those that name a node before DDS has discovered its name do not.
        """
        del self.diagnostics[:]

        def fits(found: tuple[bytes, str, dict, str]) -> bool:
            right = level in (None, found[0]) and words in found[1] and name == found[3]
            known = "_NODE_NAME_UNKNOWN_" not in f"{found[1]} {found[2]}"
            return right and known and condition(found[2])

        self.wait(lambda: any(map(fits, self.diagnostics)), f"diagnostics {level} {words}")
        return next(filter(fits, self.diagnostics))[:3]

    def close(self) -> None:
        for runtime in self.runtimes:
            runtime.gate.set()
        for each in self.executor.get_nodes():
            each.destroy_node()
        self.executor.shutdown()


def stamps(messages: list) -> list[int]:
    """Stamps in nanoseconds."""
    return [nanoseconds(m.header.stamp) for m in messages]
