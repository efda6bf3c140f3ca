"""Lifecycle, parameters and services of the camera node."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from harness import CAR, TIMEOUT_S, street
from rcl_interfaces.srv import DescribeParameters
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from std_srvs.srv import SetBool, Trigger

from video_knet_core.engine.hot_swap import HotSwapRuntime
from video_knet_core.engine.selector import open_runtime
from video_knet_core.tracking import TRACKERS, tracker_settings
from video_knet_ros import parameters

ROOT = Path(__file__).parents[2]


def test_a_walk_through_the_lifecycle(world):
    camera = world.camera_node(start=False)
    assert not world.runtimes and world.reliability() is None
    assert world.transition("configure")
    (engine,) = world.runtimes
    assert world.reliability() is None
    assert world.transition("activate")
    tables = world.tables()
    camera_topic = world.publisher()
    world.send(camera_topic, tables, street(1))
    assert world.transition("deactivate")
    world.wait(lambda: world.reliability() is None, "the node to unsubscribe")
    assert world.transition("activate")
    assert world.runtimes == [engine] and not engine.closed
    world.wait(camera_topic.get_subscription_count, "the subscription")
    world.send(camera_topic, tables, street(2))
    assert tables[-1].sequence == 0, "counts begin anew with an activation"
    assert world.transition("deactivate") and world.transition("cleanup")
    assert engine.closed and len(engine.threads) == 1
    world.wait(lambda: not world.tester.count_publishers("/video_knet/instances"), "a clean graph")
    assert world.transition("configure")
    assert len(world.runtimes) == 2
    assert world.transition("shutdown")
    assert world.runtimes[1].closed
    assert camera.get_name() == "video_knet"


def test_a_corrupt_model_leaves_the_node_alive_and_a_good_one_can_follow(world, tmp_path, capfd):
    corrupt = tmp_path / "corrupt.onnx"
    corrupt.write_bytes(b"this is no model")

    def open_(path, **options):
        return open_runtime(path, **options) if path == str(corrupt) else world.open_painted(path)

    world.camera_node(open_runtime=open_, model=str(corrupt))
    lines = [line for line in capfd.readouterr().err.splitlines() if "not configured" in line]
    assert len(lines) == 1 and str(corrupt) in lines[0]
    level, message, values = world.report(lambda v: v["state"] == "unconfigured")
    assert level == DiagnosticStatus.ERROR and str(corrupt) in message
    assert not world.transition("configure")
    assert world.set_parameter("model", str(tmp_path / "good.onnx")).successful
    assert world.transition("configure") and world.transition("activate")
    tables = world.tables()
    world.send(world.publisher(), tables, street())


def test_a_model_is_found_by_its_name_and_an_unknown_one_is_answered_with_the_known(world):
    camera = world.camera_node(
        open_runtime=open_runtime, model="stret", backend="onnxruntime-cpu", threads=1
    )
    level, message, _ = world.report(lambda v: v["state"] == "unconfigured")
    assert level == DiagnosticStatus.ERROR
    assert "street_open" in message and "video-knet models get street" in message
    assert world.set_parameter("model", "street").successful
    assert world.transition("configure")
    assert camera.status.model == "street"


@pytest.mark.parametrize("name", ["some.onnx", "~/some.onnx", "$MODELS/some.onnx"])
def test_the_engine_gets_its_parameters_and_paths_are_expanded(world, tmp_path, monkeypatch, name):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MODELS", str(tmp_path))
    requested = []

    def open_(path, **options):
        requested.append((path, options["backend"], options["threads"]))
        return world.open_painted(path)

    world.camera_node(open_runtime=open_, model=name, backend="painted", threads=3)
    expected = str(tmp_path / "some.onnx") if "/" in name else name
    assert requested == [(expected, "painted", 3)]


def test_a_misspelt_parameter_is_named_with_the_nearest_one(world, capfd):
    world.camera_node(start=False, max_rat=5.0, use_sim_time=False)
    log = capfd.readouterr().err
    assert "no parameter max_rat:" in log and "did you mean max_rate?" in log
    assert log.count("is ignored") == 1


def test_an_engine_that_is_built_meanwhile_takes_over(world):
    go_on = threading.Event()

    def build(progress):
        progress("tensorrt: building", 0.4)
        assert go_on.wait(TIMEOUT_S)
        better = world.open_painted("some.onnx")
        better.name = "tensorrt"
        return better

    def open_(path, background, progress, **options):
        assert background
        return HotSwapRuntime(world.open_painted(path), build, progress)

    world.camera_node(open_runtime=open_)
    tables = world.tables()
    camera_topic = world.publisher()
    _, before = world.send(camera_topic, tables, street(1))
    _, _, values = world.report(lambda v: v["engine_build"])
    assert (values["engine"], values["engine_build"]) == ("painted", "tensorrt: building 40%")
    go_on.set()
    world.wait(lambda: len(world.runtimes) == 2, "the build")
    while not world.runtimes[1].seen:
        _, after = world.send(camera_topic, tables, street(2))
    _, _, values = world.report(lambda v: v["engine"] == "tensorrt")
    assert values["engine_build"] == "tensorrt serves"
    assert world.runtimes[0].closed
    assert after.tracker_epoch == before.tracker_epoch
    ids = [[row.track_id for row in table.instances] for table in (before, after)]
    assert ids[0] == ids[1] and max(ids[0]) > 0


def test_set_enabled_unsubscribes_and_keeps_the_tracks(world):
    world.camera_node()
    tables = world.tables()
    camera_topic = world.publisher()
    _, before = world.send(camera_topic, tables, street(1))
    answer = world.call(SetBool, "set_enabled", SetBool.Request(data=False))
    assert (answer.success, answer.message) == (True, "disabled")
    world.wait(lambda: not camera_topic.get_subscription_count(), "the node to unsubscribe")
    assert world.call(SetBool, "set_enabled", SetBool.Request(data=True)).message == "enabled"
    world.wait(camera_topic.get_subscription_count, "the node to subscribe")
    _, after = world.send(camera_topic, tables, street(2))
    assert after.tracker_epoch == before.tracker_epoch
    assert [r.track_id for r in after.instances] == [r.track_id for r in before.instances]


def test_reset_tracker_starts_a_new_epoch_with_new_ids(world):
    world.camera_node()
    tables = world.tables()
    camera_topic = world.publisher()
    _, before = world.send(camera_topic, tables, street(1))
    answer = world.call(Trigger, "reset_tracker", Trigger.Request())
    assert answer.success and answer.message == f"tracker epoch {before.tracker_epoch + 1}"
    _, after = world.send(camera_topic, tables, street(2))
    assert after.tracker_epoch == before.tracker_epoch + 1
    old, new = ({r.track_id for r in t.instances if r.is_thing} for t in (before, after))
    assert old and new and not old & new


def test_an_epoch_that_reset_tracker_has_named_does_not_come_again(world):
    world.camera_node()
    named = world.call(Trigger, "reset_tracker", Trigger.Request()).message
    for label in ("deactivate", "cleanup", "configure", "activate"):
        assert world.transition(label)
    _, table = world.send(world.publisher(), world.tables(), street(1))
    assert table.tracker_epoch == int(named.removeprefix("tracker epoch ")) + 1


def test_the_tracker_uses_parameters_at_run_time(world):
    world.camera_node()
    tables = world.tables()
    camera_topic = world.publisher()
    for i in range(3):
        world.send(camera_topic, tables, street(i, things=(CAR,)))
    assert world.set_parameter("tracking.max_coast_s", 0.0).successful
    _, table = world.send(camera_topic, tables, street(3, things=()))
    assert not [r for r in table.instances if r.is_thing] and len(table.ended) == 1
    assert world.set_parameter(
        "tracking.birth_score", 0.95
    ).successful  # the painted scores are 0.9
    _, table = world.send(camera_topic, tables, street(4, things=(CAR,)))
    assert not [r for r in table.instances if r.track_id] and not table.born


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("tracking.birth_score", 1.5, "out of range"),
        ("tracking.birth_score", float("nan"), "out of range"),
        ("tracking.birth_score", "high", "Wrong parameter type"),
        ("tracking.max_coast_s", -1.0, "out of range"),
        ("reliability", "sometimes", "one of auto, reliable, best_effort, got 'sometimes'"),
        ("autostart", False, "read-only"),
        ("model", "other.onnx", "model is read by configure: deactivate and clean up"),
        ("threads", 1, "threads is read by configure"),
        ("compressed", True, "compressed is read by configure"),
    ],
)
def test_what_cannot_be_is_rejected_with_a_reason(world, name, value, words):
    camera = world.camera_node()
    before = camera.get_parameter(name).value
    result = world.set_parameter(name, value)
    assert not result.successful
    assert words in result.reason
    assert camera.get_parameter(name).value == before


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("threads", 0, InvalidParameterValueException),
        ("reliability", "sometimes", InvalidParameterValueException),
        ("tracking.birth_score", "high", InvalidParameterTypeException),
    ],
)
def test_a_bad_override_at_start_is_rejected(world, name, value, error):
    with pytest.raises(error, match=name):
        world.camera_node(**{name: value})


def test_the_files_that_are_written_from_the_table_are_up_to_date():
    for name, content in parameters.files().items():
        assert (ROOT / name).read_text() == content, "run python -m video_knet_ros.parameters"
    (section,) = yaml.safe_load(parameters.files()["config/camera.yaml"]).values()
    assert section["ros__parameters"] == {p.name: p.default for p in parameters.PARAMETERS}


def test_trackers_of_other_packages_do_not_come_into_the_files(monkeypatch):
    monkeypatch.setitem(TRACKERS, "theirs", type("Theirs", (), {"__module__": "their_package"}))
    with pytest.raises(
        RuntimeError, match="uninstall the packages of these trackers first: theirs"
    ):
        parameters.files()


def test_the_settings_of_every_tracker_are_parameters(world):
    node = world.camera_node(start=False)
    assert parameters.tracking(node) == tracker_settings()
    for name in TRACKERS:
        assert world.set_parameter("tracking.tracker", name).successful
        assert parameters.tracking(node) == tracker_settings(name)


def test_every_parameter_is_described_with_its_range(world):
    world.camera_node(start=False)
    request = DescribeParameters.Request(names=[p.name for p in parameters.PARAMETERS])
    described = world.call(DescribeParameters, "describe_parameters", request).descriptors
    for spec, descriptor in zip(parameters.PARAMETERS, described, strict=True):
        assert spec.description in descriptor.description
        ranges = (*descriptor.integer_range, *descriptor.floating_point_range)
        assert [(r.from_value, r.to_value) for r in ranges] == [spec.range] * bool(spec.range)
        assert all(choice in descriptor.additional_constraints for choice in spec.choices)
