"""Replays of many bags: by one process, and by several workers of Ray."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from bag_fixtures import bag_of, storage_file
from replay_results import digests, failure, wait_for_frames

from video_knet_core import __version__
from video_knet_core.bags.making import BagFormat
from video_knet_core.cli import main
from video_knet_core.engine.onnx_runtime import OnnxRuntime
from video_knet_core.replay import fleet
from video_knet_core.replay.fleet import FleetPlan, JobState, find_jobs, replay_serially
from video_knet_core.replay.replay_settings import ReplayError, ReplaySettings
from video_knet_core.tracking import tracker_settings

FRAMES = 60
OPTIONS = "--split-frames 7 --include-input-topics --labels --tracks --threads 1"
SETTINGS = OPTIONS.split()
ENGINE = ["--backend", "onnxruntime-cpu"]
"""Not `auto`, which may choose another one, with other bytes, on a busy machine."""


@pytest.fixture(scope="module")
def bags(tmp_path_factory):
    """Six bags and a text: drive3 is cut off, text.mcap is none."""
    folder = tmp_path_factory.mktemp("many") / "bags"
    for number in range(6):
        made = bag_of(folder / f"made{number}", FRAMES + number, BagFormat("sqlite3"))
        made.rename(folder / f"drive{number}")
        shutil.rmtree(folder / f"made{number}")
    cut = storage_file(folder / "drive3")
    with cut.open("r+b") as stream:
        stream.truncate(cut.stat().st_size // 2)
    (folder / "text.mcap").write_text("no bag at all")
    return folder


@pytest.fixture(scope="module")
def serial(bags, model, tmp_path_factory):
    """Results of the six bags and the text, made in this process."""
    out = tmp_path_factory.mktemp("serial") / "out"
    assert main(fleet_command(bags / "*", out, model)) == 1
    return out


def fleet_command(pattern: Path, out: Path, model: Path, *more: str) -> list[str]:
    command = ["replay", "--glob", str(pattern), "--out", str(out), "--model", str(model)]
    return [*command, *ENGINE, *SETTINGS, *more]


def program(*command: str) -> list[str]:
    return [sys.executable, "-m", "video_knet_core.cli", *command]


def rows(report: str) -> dict[str, tuple[int, int, str]]:
    """Bag -> frames, failed and state of the table."""
    head, *lines = report[report.index("bag ") :].splitlines()
    found = {}
    for line in lines[: next(i for i, text in enumerate(lines) if ": " in text)]:
        name, frames, failed, _, *state = line.split()
        found[name] = int(frames), int(failed), " ".join(state)
    return found


# --- which bags ----------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> None:
    """Make empty files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_each_bag_has_a_folder_called_after_it_from_the_first_wildcard_on(tmp_path):
    touch(tmp_path, "monday/a.mcap", "tuesday/a.mcap", "tuesday/b.bag", "tuesday/c.x/c.db3")
    out = tmp_path / "out"
    jobs = find_jobs(f"{tmp_path}/*day/*", out)
    assert [job.name for job in jobs] == ["monday/a", "tuesday/a", "tuesday/b", "tuesday/c.x"]
    assert [job.out for job in jobs] == [out / job.name for job in jobs]
    (job,) = find_jobs(f"{tmp_path}/tuesday/b.bag", out)
    assert job.name == "b"


def test_a_pattern_may_be_relative_or_begin_with_a_tilde(tmp_path, monkeypatch):
    touch(tmp_path, "[x]/a.mcap", "home/a.mcap")
    monkeypatch.chdir(tmp_path / "[x]")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for pattern, folder in (("./*.mcap", "[x]"), ("~/*.mcap", "home")):
        (job,) = find_jobs(pattern, Path("out"))
        assert (job.bag, job.out) == (tmp_path / folder / "a.mcap", tmp_path / "[x]/out/a")


def test_bags_whose_results_would_be_in_one_folder_are_rejected(tmp_path):
    touch(tmp_path, "a.mcap", "a.bag", "x/x.mcap")
    out = tmp_path / "out"
    with pytest.raises(ReplayError, match=r"a\.mcap would be in .*out/a, those of .*a\.bag in"):
        find_jobs(f"{tmp_path}/a.*", out)
    with pytest.raises(ReplayError, match=r"x\.mcap would be in .*out/x/x, those of .*/x in"):
        find_jobs(f"{tmp_path}/x*/**", out)


def test_results_are_not_taken_for_bags_also_in_a_linked_folder(tmp_path):
    touch(tmp_path, "bags/a.mcap", "bags/out/a/bag/bag_0000.mcap")
    (tmp_path / "link").symlink_to(tmp_path / "bags")
    for folder in ("bags", "link"):
        jobs = find_jobs(f"{tmp_path}/bags/**/*.mcap", tmp_path / folder / "out", resume=True)
        assert [job.name for job in jobs] == ["a"]


def test_bags_are_in_natural_order_and_hidden_files_are_none(tmp_path):
    touch(tmp_path, "drive10.mcap", "drive2.mcap", "drive1.mcap", "._drive1.mcap", "Thumbs.db")
    for pattern in ("*", "[.dT]*"):
        jobs = find_jobs(f"{tmp_path}/{pattern}", tmp_path / "out")
        assert [job.name for job in jobs] == ["drive1", "drive2", "drive10"]


def test_a_fleet_of_no_bags_or_over_other_results_is_rejected_before_it_begins(
    bags, model, tmp_path, capsys
):
    command = fleet_command(bags / "*.bag", tmp_path / "out", model)
    assert f"no bag is called {bags}/*.bag" in failure(command, capsys)
    (tmp_path / "out/drive5").mkdir(parents=True)
    (tmp_path / "out/drive5/notes").touch()
    line = failure(fleet_command(bags / "*", tmp_path / "out", model), capsys)
    assert "out/drive5 is not empty: --resume" in line
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["drive5"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "either a bag IN or --glob"),
        (["in", "--glob", "*"], "either a bag IN or --glob"),
        (["in", "--ray", "local"], "--ray is for many bags"),
        (["--glob", "*", "--workers", "2"], "--workers is for --ray"),
    ],
)
def test_arguments_that_exclude_each_other_are_reported(arguments, words, tmp_path, capsys):
    assert words in failure(["replay", "--out", str(tmp_path / "out"), *arguments], capsys)


def test_the_missing_extra_is_named(bags, model, tmp_path):
    code = (
        "import sys; sys.modules['ray'] = None;"
        "from video_knet_core.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = fleet_command(bags / "*", tmp_path / "out", model, "--ray", "local")
    result = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.endswith("needs ray: pip install 'video_knet_ros[fleet]'\n")
    assert not (tmp_path / "out").exists()


# --- one after the other -------------------------------------------------------------------------


def test_the_results_of_each_bag_are_those_of_a_replay_of_its_own(bags, serial, model, tmp_path):
    for name in ("drive0", "drive3"):
        command = ["replay", str(bags / name), "--out", str(tmp_path / name), *ENGINE]
        assert main([*command, "--model", str(model), *SETTINGS]) == (name == "drive3")
        assert digests(tmp_path / name) == digests(serial / name)


def test_the_table_lists_each_bag_and_what_is_done_is_not_done_again(
    bags, serial, model, tmp_path, capsys
):
    shutil.copytree(serial, tmp_path / "out")
    before = digests(serial)
    command = fleet_command(bags / "*", tmp_path / "out", model, "--resume")
    assert main(command) == 1
    report = capsys.readouterr().out
    found = rows(report)
    cut = found.pop("drive3")
    assert 10 < cut[0] < FRAMES and cut[1:] == (0, "damaged")
    assert found.pop("text") == (0, 0, "failed")
    assert found == {f"drive{n}": (FRAMES + n, 0, "done before") for n in (0, 1, 2, 4, 5)}
    assert f"drive3: {storage_file(bags / 'drive3')}: damaged after message" in report
    assert f"text: {bags / 'text.mcap'} is no bag" in report
    assert report.endswith("7 bags: 5 done before, 1 damaged, 1 failed\n")
    assert digests(tmp_path / "out") == before


def test_finished_results_of_other_settings_are_reported_and_kept(bags, serial, model, tmp_path):
    shutil.copytree(serial / "drive0", tmp_path / "out/drive0")
    plan = FleetPlan(model, 1, ReplaySettings(every=2), tracker_settings(), ENGINE[1])
    (result,) = replay_serially(find_jobs(f"{bags}/drive0", tmp_path / "out", True), plan)
    assert result.state is JobState.FAILED
    assert (
        f"replay of {FRAMES} frames, but every was 1 and is 2; include_input_topics"
        in result.reason
    )
    assert digests(tmp_path / "out/drive0") == digests(serial / "drive0")


def test_a_bag_that_fails_is_tried_again_with_a_fresh_engine_after_the_others(
    bags, model, tmp_path, monkeypatch
):
    opened, tried = [], []

    def open_runtime(path, **options):
        opened.append(path)
        return real_open(path, **options)

    def replay(bag, runtime, out, *arguments, **options):
        tried.append(bag.name)
        if bag.name == "drive1" and tried.count("drive1") == 1:
            raise RuntimeError("the engine is hurt")
        return real_replay(bag, runtime, out, *arguments, **options)

    real_open, real_replay = fleet.open_runtime, fleet.replay
    monkeypatch.setattr(fleet, "open_runtime", open_runtime)
    monkeypatch.setattr(fleet, "replay", replay)
    plan = FleetPlan(model, 1, ReplaySettings(), tracker_settings())
    results = list(replay_serially(find_jobs(f"{bags}/drive[12]", tmp_path / "out"), plan))
    assert tried == ["drive1", "drive2", "drive1"] and len(opened) == 2
    assert [(o.job.name, o.state, o.frames) for o in results] == [
        ("drive2", JobState.DONE, FRAMES + 2),
        ("drive1", JobState.DONE, FRAMES + 1),
    ]


@pytest.mark.parametrize("ended", ["whole", "early"])
def test_the_engine_is_closed_when_the_bags_are_done_or_iteration_stops(
    bags, model, tmp_path, monkeypatch, ended
):
    opened, closed, real_open = [], [], fleet.open_runtime

    def open_runtime(path, **options):
        runtime = real_open(path, **options)
        opened.append(runtime)
        monkeypatch.setattr(runtime, "close", lambda: closed.append(runtime), raising=False)
        return runtime

    monkeypatch.setattr(fleet, "open_runtime", open_runtime)
    plan = FleetPlan(model, 1, ReplaySettings(), tracker_settings())
    results = replay_serially(find_jobs(f"{bags}/drive[12]", tmp_path / "out"), plan)
    next(results)
    assert not closed
    if ended == "early":
        results.close()
    else:
        assert len(list(results)) == 1
    assert closed == opened and len(opened) == 1


def test_an_engine_that_cannot_be_closed_does_not_end_the_fleet(bags, model, tmp_path, monkeypatch):
    def fail(runtime):
        raise RuntimeError("the GPU is gone")

    def replay(*arguments, **options):
        raise RuntimeError("the engine is hurt")

    monkeypatch.setattr(fleet, "replay", replay)
    monkeypatch.setattr(OnnxRuntime, "close", fail)
    plan = FleetPlan(model, 1, ReplaySettings(), tracker_settings(), "onnxruntime-cpu")
    results = list(replay_serially(find_jobs(f"{bags}/drive[12]", tmp_path / "out"), plan))
    assert [result.state for result in results] == [JobState.FAILED] * 2


# --- by workers of Ray ---------------------------------------------------------------------------


def test_a_machine_without_the_shared_disk_or_with_another_version_is_named(tmp_path):
    pytest.importorskip("ray", reason="needs the extra `fleet`")
    from video_knet_core.replay.ray_fleet import FleetError, check_machine

    marker, host = tmp_path / "marker", socket.gethostname()
    with pytest.raises(FleetError, match=f"the machine {host} has no {marker}"):
        check_machine(marker, tmp_path, __version__)
    marker.touch()
    check_machine(marker, tmp_path, __version__)
    with pytest.raises(FleetError, match=f"{host} has video_knet_ros {__version__}, expected 0.0"):
        check_machine(marker, tmp_path, "0.0")


@pytest.fixture(scope="module")
def cluster():
    """Address of a Ray cluster with two cores, and a GPU that is none."""
    ray = pytest.importorskip("ray", reason="needs the extra `fleet`")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    context = ray.init(
        "local", num_cpus=2, num_gpus=1, include_dashboard=False, object_store_memory=80 << 20
    )
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.mark.slow
def test_two_workers_give_what_one_process_gives(cluster, bags, serial, model, tmp_path):
    command = fleet_command(bags / "*", tmp_path / "out", model, "--ray", cluster)
    result = subprocess.run(program(*command), capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    found = rows(result.stdout)
    assert found.pop("text") == (0, 0, "failed") and found.pop("drive3")[2] == "damaged"
    assert found == {f"drive{n}": (FRAMES + n, 0, "done") for n in (0, 1, 2, 4, 5)}
    assert result.stderr.count("text is tried again: ") == 1
    assert "GPUs of the cluster are not used; a test engine is onnxruntime-cpu" in result.stderr
    assert digests(tmp_path / "out") == digests(serial)


@pytest.mark.slow
def test_the_bag_of_a_killed_worker_is_finished_by_a_fresh_one(
    cluster, bags, serial, model, tmp_path
):
    out = tmp_path / "out"
    process = subprocess.Popen(
        program(*fleet_command(bags / "*", out, model, "--ray", cluster)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_frames(out / "drive0", process, 7)
    os.kill(busy_worker(), signal.SIGKILL)
    report, log = process.communicate(timeout=120)
    assert process.returncode == 1, log
    assert "is tried again: the worker died" in log
    assert rows(report)["drive0"] == (FRAMES, 0, "done")
    assert digests(out) == digests(serial)


@pytest.mark.slow
def test_a_model_that_no_worker_can_open_ends_the_fleet_with_its_reason(cluster, bags, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_text("no model")
    command = fleet_command(bags / "*", tmp_path / "out", broken, "--ray", cluster)
    result = subprocess.run(program(*command), capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith(f"video-knet replay: {broken}")


def test_an_address_without_a_server_is_reported_at_once(bags, model, tmp_path, capsys):
    pytest.importorskip("ray", reason="needs the extra `fleet`")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        command = fleet_command(bags / "*", tmp_path / "out", model, "--ray", address)
        assert f"no Ray cluster at {address}: " in failure(command, capsys)


@pytest.mark.slow
def test_more_threads_than_a_machine_has_cores_are_rejected(cluster, bags, model, tmp_path):
    command = fleet_command(bags / "*", tmp_path / "out", model, "--ray", cluster)
    command[command.index("--threads") + 1] = "3"
    result = subprocess.run(program(*command), capture_output=True, text=True)
    assert result.returncode == 2
    assert "no machine of the cluster has 3 cores: give fewer --threads" in result.stderr


@pytest.mark.slow
def test_a_fleet_on_this_machine_that_is_interrupted_can_be_resumed(bags, serial, model, tmp_path):
    pytest.importorskip("ray", reason="needs the extra `fleet`")
    out = tmp_path / "out"
    process = subprocess.Popen(
        program(*fleet_command(bags / "*", out, model, "--ray", "local")),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # a test run in the background ignores SIGINT, and its children would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for_frames(out / "drive2", process, 7)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    assert process.wait(timeout=60) == 130
    assert not list(out.glob(".fleet_*"))
    assert len(list(out.glob("drive*/replay.json"))) < 6
    assert main(fleet_command(bags / "*", out, model, "--resume")) == 1
    assert digests(out) == digests(serial)


def busy_worker() -> int:
    """Process id of a worker with a bag, of a cluster that this process started."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it has ended
                if "ray::_RayWorker.replay" in "".join(process.cmdline()):
                    return process.pid
        time.sleep(0.01)
    pytest.fail("no worker is busy")
