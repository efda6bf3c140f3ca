"""Engines that hang, or fail half way: the node continues, and every request gets an answer."""

from __future__ import annotations

import threading

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from harness import PaintedRuntime, image_message, street
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from video_knet_ros import engines as engine_module
from video_knet_ros import lifecycle, node, outputs, snapshot


class FaultyEngines:
    """Opens painted engines; while a gate is cleared, opening or closing one hangs."""

    def __init__(self, world) -> None:
        self._world = world
        self.opening, self.closing = threading.Event(), threading.Event()
        self.opening.set()
        self.closing.set()
        self.asked = 0
        self.close_error: Exception | None = None

    def open(self, path, **options) -> PaintedRuntime:
        self.asked += 1
        assert self.opening.wait(60)
        runtime = self._world.open_painted(path)
        close = runtime.close

        def close_or_fail() -> None:
            assert self.closing.wait(60)
            close()
            if self.close_error is not None:
                raise self.close_error

        runtime.close = close_or_fail
        return runtime


@pytest.fixture
def engines(world, monkeypatch):
    monkeypatch.setattr(lifecycle, "CLOSE_WAIT_S", 0.3)
    monkeypatch.setattr(node, "ANSWER_WAIT_S", 0.3)
    monkeypatch.setattr(node, "SAVE_WAIT_S", 0.3)
    engines = FaultyEngines(world)
    yield engines
    engines.opening.set()
    engines.closing.set()


def assert_the_node_is_served(world) -> None:
    """Diagnostics come, parameters can be set, services answer."""
    world.report(lambda v: True)
    world.report(lambda v: True)
    assert world.set_parameter("tracking.max_coast_s", 2.0).successful
    assert world.call(Trigger, "save_snapshot", Trigger.Request()).message


def hang_in_a_step(world, camera_topic) -> PaintedRuntime:
    runtime = world.runtimes[-1]
    runtime.gate.clear()
    seen = len(runtime.seen)
    camera_topic.publish(image_message(street(2), 100.2))
    world.wait(lambda: len(runtime.seen) > seen, "inference to begin")
    return runtime


def test_the_node_is_served_while_its_engine_opens(world, engines):
    world.camera_node(start=False, open_runtime=engines.open)
    engines.opening.clear()
    configured = world.request_transition("configure")
    world.report(lambda v: v["state"] == "configuring")
    assert_the_node_is_served(world)
    answer = world.call(Trigger, "reset_tracker", Trigger.Request())
    assert (answer.success, answer.message) == (False, "the node is not configured")
    assert world.set_parameter("threads", 3).successful is False, "configure has read it"
    assert not configured.done() and world.state() == "unconfigured"
    engines.opening.set()
    world.wait(configured.done, "the answer")
    assert configured.result().success and world.state() == "inactive"


def test_a_second_transition_during_one_is_rejected(world, engines):
    world.camera_node(start=False, open_runtime=engines.open)
    engines.opening.clear()
    configured = world.request_transition("configure")
    world.wait(lambda: engines.asked, "the opening")
    assert not world.transition("configure")
    engines.opening.set()
    world.wait(configured.done, "the answer")
    assert configured.result().success and engines.asked == 1


def test_a_shutdown_while_the_engine_opens_is_made_and_the_engine_closed(world, engines):
    world.camera_node(start=False, open_runtime=engines.open)
    engines.opening.clear()
    configured = world.request_transition("configure")
    world.wait(lambda: engines.asked, "the opening")
    assert world.transition("shutdown") and world.state() == "finalized"
    world.wait(configured.done, "the answer")
    assert not configured.result().success
    engines.opening.set()
    world.wait(lambda: world.runtimes and world.runtimes[0].closed, "the engine to be closed")


def test_a_step_that_hangs_is_the_answer_of_reset_tracker(world, engines):
    world.camera_node(open_runtime=engines.open)
    camera_topic, tables = world.publisher(), world.tables()
    _, before = world.send(camera_topic, tables, street(1))
    runtime = hang_in_a_step(world, camera_topic)
    answer = world.call(Trigger, "reset_tracker", Trigger.Request())
    assert not answer.success and "busy for" in answer.message
    assert_the_node_is_served(world)
    runtime.gate.set()
    world.wait(lambda: len(tables) == 2, "the frame that was late")
    assert tables[-1].tracker_epoch == before.tracker_epoch, "what was not granted is not done"


def test_the_node_is_served_while_a_service_waits_for_its_engine(world, engines, monkeypatch):
    monkeypatch.setattr(node, "ANSWER_WAIT_S", 60.0)
    camera = world.camera_node(open_runtime=engines.open)
    camera_topic, tables = world.publisher(), world.tables()
    world.send(camera_topic, tables, street(1))
    runtime = hang_in_a_step(world, camera_topic)
    answer = world.request(Trigger, "reset_tracker", Trigger.Request())
    assert_the_node_is_served(world)
    received = camera.counts.received
    camera_topic.publish(image_message(street(3), 100.3))
    world.wait(lambda: camera.counts.received > received, "the image")
    assert not answer.done()
    runtime.gate.set()
    world.wait(answer.done, "the answer")
    assert answer.result().success


def test_a_hung_engine_is_given_up_and_a_new_one_serves(world, engines):
    camera = world.camera_node(open_runtime=engines.open)
    camera_topic, tables = world.publisher(), world.tables()
    old = hang_in_a_step(world, camera_topic)
    assert world.transition("deactivate") and world.transition("cleanup")
    level, message, values = world.report(lambda v: v["state"] == "unconfigured")
    assert level == DiagnosticStatus.ERROR and "busy for" in message
    assert not old.closed
    assert world.transition("configure") and world.transition("activate")
    world.wait(lambda: camera.outputs.subscribers["instances"], "the reader")
    old.gate.set()
    world.wait(lambda: old.closed, "the old engine to be closed")
    world.wait(camera_topic.get_subscription_count, "the subscription")
    world.send(camera_topic, tables, street(2))
    assert len(tables) == 1, "the old engine's result is not published"
    assert camera.status.fault == "" and len(old.threads) == 1


@pytest.mark.parametrize("how", ["raises", "hangs"])
def test_a_close_that_fails_leaves_the_node_unconfigured_and_configurable(world, engines, how):
    world.camera_node(open_runtime=engines.open)
    if how == "hangs":
        engines.closing.clear()
    else:
        engines.close_error = RuntimeError("the GPU is gone")
    assert world.transition("deactivate") and world.transition("cleanup")
    level, message, _ = world.report(lambda v: v["state"] == "unconfigured")
    assert level == DiagnosticStatus.ERROR
    assert ("the GPU is gone" if how == "raises" else "busy for") in message
    world.wait(lambda: not world.tester.count_publishers("/video_knet/instances"), "a clean graph")
    assert world.transition("configure") and world.transition("activate")
    assert world.report(lambda v: v["state"] == "active")[0] == DiagnosticStatus.OK


@pytest.mark.parametrize(
    "transition",
    [
        Transition(label="activate"),
        Transition(label="deactivate"),
        Transition(label="cleanup"),
        Transition(label="fly"),
        Transition(id=Transition.TRANSITION_ACTIVATE),
        Transition(id=Transition.TRANSITION_ACTIVE_SHUTDOWN),
        Transition(id=77),
    ],
    ids=lambda transition: transition.label or str(transition.id),
)
def test_a_transition_that_the_state_does_not_have_is_answered_and_logged(world, transition, capfd):
    world.camera_node(start=False)
    request = ChangeState.Request(transition=transition)
    assert world.call(ChangeState, "change_state", request).success is False
    assert world.state() == "unconfigured"
    log = capfd.readouterr().err
    assert "the node is unconfigured, expected one of configure, shutdown" in log


def fail(*args, **kwargs):
    raise RuntimeError("no more of these")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (outputs.ImageTopic, "__init__"),
        (engine_module, "VideoPredictor"),
    ],
    ids=["outputs", "predictor"],
)
def test_what_configure_opened_is_closed_when_a_later_step_fails(world, monkeypatch, owner, name):
    camera = world.camera_node(start=False)
    before = {publisher.topic_name for publisher in camera.publishers}
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        assert not world.transition("configure")
    (engine,) = world.runtimes
    world.wait(lambda: engine.closed, "the engine to be closed")
    level, message, values = world.report(lambda v: v["state"] == "unconfigured")
    assert level == DiagnosticStatus.ERROR and "no more of these" in message
    assert {p.topic_name for p in camera.publishers} == before
    assert world.transition("configure") and world.transition("activate")
    world.send(world.publisher(), world.tables(), street())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError("no model file m.onnx"), "not configured: no model file m.onnx"),
        (MemoryError(), "not configured: MemoryError"),
        (SystemExit("no licence"), "not configured: SystemExit: no licence"),
    ],
)
def test_an_engine_that_does_not_open_is_the_reason_in_the_diagnostics(world, error, words):
    def raise_error(path, **options):
        raise error

    world.camera_node(start=False, open_runtime=raise_error)
    assert not world.transition("configure") and world.state() == "unconfigured"
    _, message, values = world.report(lambda v: v["reason"], DiagnosticStatus.ERROR)
    assert message == words
    assert (values["state"], values["reason"]) == ("unconfigured", "transition_failed")


def test_an_activation_that_fails_frees_the_engine_and_is_explained(world, monkeypatch):
    world.camera_node(start=False)
    assert world.transition("configure")
    with monkeypatch.context() as patch:
        patch.setattr(outputs.Outputs, "publish_classes", fail)
        assert not world.transition("activate")
    assert world.state() == "unconfigured"
    level, message, _ = world.report(lambda v: v["state"] == "unconfigured")
    assert level == DiagnosticStatus.ERROR and "no more of these" in message
    world.wait(lambda: world.runtimes[0].closed, "the engine to be closed")
    assert world.transition("configure") and world.transition("activate")


def test_a_disk_that_hangs_is_the_answer_of_save_snapshot(world, engines, monkeypatch, tmp_path):
    world.camera_node(snapshot_folder=str(tmp_path))
    camera_topic, tables = world.publisher(), world.tables()
    world.send(camera_topic, tables, street(1))
    gate = threading.Event()
    write = snapshot.Path.write_bytes
    monkeypatch.setattr(snapshot.Path, "write_bytes", lambda *a: gate.wait(60) and write(*a))
    request = Trigger.Request()
    first = world.call(Trigger, "save_snapshot", request)
    assert not first.success and str(tmp_path) in first.message
    second = world.call(Trigger, "save_snapshot", request)
    assert not second.success and second.message != first.message
    world.send(camera_topic, tables, street(2))
    gate.set()
    world.wait(lambda: (tmp_path / "100.100000000" / "table.json").exists(), "the late snapshot")
    world.wait(lambda: world.call(Trigger, "save_snapshot", request).success, "a new one")


def test_a_service_that_fails_unexpectedly_answers(world, monkeypatch):
    world.camera_node()
    world.send(world.publisher(), world.tables(), street(1))
    monkeypatch.setattr(node, "save_snapshot", fail)
    answer = world.call(Trigger, "save_snapshot", Trigger.Request())
    assert not answer.success and "no more of these" in answer.message


def test_parameters_that_cannot_be_applied_are_answered(world, monkeypatch):
    world.camera_node()
    with monkeypatch.context() as patch:
        patch.setattr(node.CameraNode, "_follow_publishers", fail)
        assert world.set_parameter("overlay_opacity", 0.25).successful


def test_a_parameter_may_be_set_to_the_value_that_it_has(world):
    camera = world.camera_node(threads=1)
    values = {"model": "painted.onnx", "threads": 1, "max_rate": 5.0}
    request = SetParametersAtomically.Request(
        parameters=[Parameter(name, value=v).to_parameter_msg() for name, v in values.items()]
    )
    result = world.call(SetParametersAtomically, "set_parameters_atomically", request).result
    assert result.successful, result.reason
    assert camera.get_parameter("max_rate").value == 5.0
    assert not world.set_parameter("model", "other.onnx").successful
