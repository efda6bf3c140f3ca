"""Plans in files: what makes one stale, what damages it, and who builds it."""

from __future__ import annotations

import errno
import json
import logging
import os
import struct
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest

from video_knet_core.engine.tensorrt import plan_cache
from video_knet_core.engine.tensorrt.plan_cache import (
    MAX_PLANS,
    PlanCache,
    PlanError,
    PlanKey,
    read_plan,
    write_plan,
)

KEY = PlanKey(
    model="street",
    onnx_sha256="0" * 64,
    flavour="tensorrt",
    version="10.3.0",
    gpu="Orin",
    targets=("sm87",),
    precision="fp16",
    shape=(384, 1248, 3),
)
CHANGES = {
    "model": "road",
    "onnx_sha256": "1" * 64,
    "flavour": "tensorrt-rtx",
    "version": "10.7.0",
    "gpu": "Xavier",
    "targets": ("sm72",),
    "precision": "fp32",
    "shape": (288, 480, 3),
}
PLAN = b"a plan" * 1000
MAGIC = b"VKNETPLN"
TIMEOUT_S = 120


@pytest.fixture
def cache(tmp_path):
    return PlanCache(tmp_path / "cache")


def opened(plan, path):
    return plan, path


def get_or_build(cache, key, build, waiting=lambda: None):
    """The plan, and its file."""
    return cache.get_or_build(key, build, opened, waiting)


def fill(cache, key=KEY, plan=PLAN):
    """Put a plan there as a build does."""
    _, path = get_or_build(cache, key, lambda: plan)
    assert path is not None
    return path


def never():
    raise AssertionError("was built again")


def files(cache):
    return sorted(path.name for path in cache.folder.iterdir() if path.suffix != ".lock")


# --- keys ---------------------------------------------------------------------------------------


def test_a_plan_is_built_once(cache):
    fill(cache)
    assert cache.contains(KEY)
    assert get_or_build(cache, KEY, never)[0] == PLAN


def test_the_list_of_changes_has_every_field():
    assert set(CHANGES) == {field.name for field in fields(PlanKey)}


@pytest.mark.parametrize("field", CHANGES)
def test_each_field_of_the_key_counts(cache, field):
    fill(cache)
    other = replace(KEY, **{field: CHANGES[field]})
    assert not cache.contains(other) and cache.find(other) is None
    assert get_or_build(cache, other, lambda: b"another")[0] == b"another"
    assert get_or_build(cache, KEY, never)[0] == PLAN


def test_a_plan_for_more_targets_serves_one_of_them(cache):
    many = replace(KEY, flavour="tensorrt-rtx", gpu="", targets=("sm86", "sm89"))
    path = fill(cache, many)
    for target in many.targets:
        expected = replace(many, targets=(target,))
        assert cache.contains(expected) and cache.find(expected) == path
        assert get_or_build(cache, expected, never) == (PLAN, path)
    assert not cache.contains(replace(many, targets=("sm120",)))
    assert not cache.contains(replace(many, targets=("sm120", "sm89")))


def test_a_plan_may_be_copied_in_under_any_name(cache, tmp_path):
    path = tmp_path / "from_elsewhere.plan"
    write_plan(path, KEY, PLAN)
    cache.folder.mkdir()
    path.rename(cache.folder / path.name)
    assert get_or_build(cache, KEY, never)[0] == PLAN


def test_a_strange_model_name_stays_in_the_folder(cache):
    path = fill(cache, replace(KEY, model="../../a b/ä"))
    assert path.parent == cache.folder and path.is_file()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"VIDEO_KNET_CACHE": "/a/b", "XDG_CACHE_HOME": "/c"}, "/a/b"),
        ({"VIDEO_KNET_CACHE": "~/b", "HOME": "/home/me"}, "/home/me/b"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/video_knet"),
        ({"HOME": "/home/me"}, "/home/me/.cache/video_knet"),
    ],
)
def test_the_folder(monkeypatch, variables, expected):
    for name in ("VIDEO_KNET_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert PlanCache().folder == Path(expected)


# --- stale and damaged --------------------------------------------------------------------------


def test_a_stale_plan_is_reported_in_one_line(cache, caplog):
    fill(cache)
    with caplog.at_level(logging.INFO):
        fill(cache, replace(KEY, version="10.7.0", onnx_sha256="1" * 64))
    lines = [record.message for record in caplog.records]
    assert len(lines) == 1
    assert "expected version 10.7.0, got 10.3.0" in lines[0]
    assert "expected onnx_sha256 111" in lines[0]


def with_header(change):
    """Write the header anew with a change; the plan stays."""

    def damage(data):
        start = len(MAGIC) + 4
        (size,) = struct.unpack("<I", data[len(MAGIC) : start])
        header = json.loads(data[start : start + size])
        change(header)
        text = json.dumps(header).encode()
        return MAGIC + struct.pack("<I", len(text)) + text + data[start + size :]

    return damage


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[:-1], "its plan has 5999 bytes of 6000"),
        (lambda data: data + b"x", "its plan has 6001 bytes of 6000"),
        (lambda data: data[:-1] + b"x", "its plan is not the one that was written"),
        (lambda data: b"x" + data[1:], "it does not start as a plan"),
        (lambda data: b"", "it does not start as a plan"),
        (lambda data: data[:12] + b"}" + data[13:], "its header cannot be read"),
        (lambda data: MAGIC + b"\0\0\0\x80" + data[12:], "its header is 2147483648 bytes long"),
        (with_header(lambda h: h.pop("sha256")), "its header cannot be read"),
        (with_header(lambda h: h["key"].pop("gpu")), "its header cannot be read"),
        (with_header(lambda h: h.update(format=2)), "expected 1, got 2"),
        (with_header(lambda h: h["key"].update(gpu="Thor")), "expected gpu Orin, got Thor"),
    ],
)
def test_a_damaged_plan_is_built_again_and_logged_in_one_line(cache, caplog, damage, reason):
    path = fill(cache)
    path.write_bytes(damage(path.read_bytes()))
    built = []
    with caplog.at_level(logging.INFO):
        plan, _ = get_or_build(cache, KEY, lambda: built.append(1) or b"new")
    assert (plan, built) == (b"new", [1])
    lines = [record.message for record in caplog.records]
    assert len(lines) == 1 and str(path) in lines[0] and reason in lines[0]
    assert get_or_build(cache, KEY, never)[0] == b"new"


def test_a_plan_that_cannot_be_opened_is_built_again(cache, caplog):
    fill(cache)

    def open_plan(plan, path):
        if plan == PLAN:
            raise PlanError("is not accepted")
        return plan

    with caplog.at_level(logging.INFO):
        assert cache.get_or_build(KEY, lambda: b"new", open_plan) == b"new"
    assert caplog.text.count("is not accepted") == 1


def test_what_others_could_have_written_is_not_read(cache, caplog):
    path = fill(cache)
    path.chmod(0o622)
    assert not cache.contains(KEY)
    with caplog.at_level(logging.INFO):
        assert get_or_build(cache, KEY, lambda: b"new")[0] == b"new"
    assert "is not trusted" in caplog.text and "622" in caplog.text
    assert path.stat().st_mode & 0o777 == 0o600


def test_old_plans_are_evicted(cache, caplog):
    versions = [replace(KEY, version=f"10.{n}") for n in range(MAX_PLANS + 2)]
    other = fill(cache, replace(KEY, model="road"))
    foreign = cache.folder / "notes.plan"
    foreign.write_text("mine")
    paths = []
    for age, key in enumerate(versions):
        paths.append(fill(cache, key))
        paths[-1].with_suffix(".kernels").write_bytes(b"")
        os.utime(paths[-1], (1000 + age, 1000 + age))
    with caplog.at_level(logging.INFO):
        newest = fill(cache, replace(KEY, version="11"))
    kept = [path for path in paths if path.exists()]
    assert kept == paths[-(MAX_PLANS - 1) :] and newest.exists()
    assert [path.with_suffix(".kernels").exists() for path in paths] == [
        path in kept for path in paths
    ]
    assert other.exists() and foreign.exists()
    assert f"{MAX_PLANS} stay" in caplog.text


def test_a_plan_in_use_is_not_old(cache):
    first = fill(cache)
    os.utime(first, (1, 1))
    for n in range(MAX_PLANS - 1):
        path = fill(cache, replace(KEY, version=f"11.{n}"))
        os.utime(path, (1000 + n, 1000 + n))
    get_or_build(cache, KEY, never)
    fill(cache, replace(KEY, version="12"))
    assert first.exists()


# --- files --------------------------------------------------------------------------------------


def test_only_the_user_can_read_them_and_write_in_their_folder(cache):
    previous = os.umask(0)
    try:
        path = fill(cache)
    finally:
        os.umask(previous)
    assert cache.folder.stat().st_mode & 0o777 == 0o755
    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in cache.folder.iterdir()}
    assert len(modes) == 2 and set(modes.values()) == {0o600} and path.name in modes


def test_a_full_disk_costs_the_file_and_is_reported_once(cache, caplog, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(plan_cache.os, "fsync", full)
    for key in (KEY, replace(KEY, version="11")):
        assert get_or_build(cache, key, lambda: PLAN) == (PLAN, None)
    assert files(cache) == []
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1 and "No space left on device" in warnings[0]


def test_a_folder_that_cannot_be_made(tmp_path, caplog):
    blocked = tmp_path / "a_file"
    blocked.touch()
    for _ in range(2):
        cache = PlanCache(blocked / "cache")
        assert not cache.contains(KEY)
        assert get_or_build(cache, KEY, lambda: PLAN) == (PLAN, None)
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 2 and "Not a directory" in warnings[0]  # one for each cache


def test_what_a_dead_process_left_is_evicted(cache):
    cache.folder.mkdir()
    partial = cache.folder / f".{KEY.file_name}.0123.partial"
    other = cache.folder / f".{replace(KEY, model='road').file_name}.0123.partial"
    for path in (partial, other):
        path.write_bytes(b"half")
    fill(cache)
    assert not partial.exists() and other.exists()


def test_a_build_that_fails_leaves_nothing_and_frees_the_lock(cache):
    def fail():
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        get_or_build(cache, KEY, fail)
    assert files(cache) == []
    fill(cache)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux's /proc")
def test_no_descriptor_stays_open(cache):
    fill(cache)
    for n in range(10):
        get_or_build(cache, KEY, never)
        fill(cache, replace(KEY, version=str(n)))
    files = (os.path.realpath(fd) for fd in Path("/proc/self/fd").iterdir())
    assert not [file for file in files if file.startswith(str(cache.folder.resolve()))]


# --- two processes ------------------------------------------------------------------------------

BUILDER = """
import logging, sys, time
from pathlib import Path
from test_plan_cache import KEY, PLAN, opened
from video_knet_core.engine.tensorrt.plan_cache import PlanCache
logging.basicConfig(level=logging.INFO, format="%(message)s")
folder, go, started, waiting = map(Path, sys.argv[1:])
def build():
    with started.open("a") as file:
        file.write("built\\n")
    while not go.exists():
        time.sleep(0.02)
    return PLAN
assert PlanCache(folder).get_or_build(KEY, build, opened, waiting.touch)[0] == PLAN
"""


class Builders:
    """Processes that all want the same plan, and whose build ends when it is let."""

    def __init__(self, cache, folder):
        self.go, self.started, self.waiting = (folder / name for name in ("go", "started", "wait"))
        self._folder = cache.folder

    def start(self):
        paths = [str(Path(__file__).parent), str(Path(__file__).parents[3])]
        return subprocess.Popen(
            [sys.executable, "-c", BUILDER, self._folder, self.go, self.started, self.waiting],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            stderr=subprocess.PIPE,
            text=True,
        )


def wait_for(path):
    end = time.monotonic() + TIMEOUT_S
    while not path.exists():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


@pytest.fixture
def builders(cache, tmp_path):
    return Builders(cache, tmp_path)


def test_two_processes_build_once(cache, builders):
    processes = [builders.start() for _ in range(2)]
    wait_for(builders.started)
    wait_for(builders.waiting)
    builders.go.touch()
    logs = [process.communicate(timeout=TIMEOUT_S)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], logs
    assert builders.started.read_text() == "built\n"
    assert "".join(logs).count("another process builds the engine for street: waiting") == 1
    assert read_plan(cache.find(KEY))[1] == PLAN


def test_the_builder_dies_and_the_one_who_waits_builds(cache, builders):
    process = builders.start()
    wait_for(builders.started)

    def kill():
        process.kill()
        process.wait(timeout=TIMEOUT_S)

    assert get_or_build(cache, KEY, lambda: b"ours", kill)[0] == b"ours"
    process.communicate()


def test_who_waits_may_give_up(cache, builders):
    process = builders.start()
    wait_for(builders.started)

    def give_up():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get_or_build(cache, KEY, never, give_up)
    builders.go.touch()
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, errors
