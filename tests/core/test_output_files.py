"""Files of the user stay as they are, and a result is whole or not there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from video_knet_core.output_files import (
    OutputError,
    check_output_file,
    exclusive,
    expanded,
    is_new,
    new_folder,
    refuse_inputs,
    replacing,
    write_text,
)

HOLD = """
import sys
from pathlib import Path
from video_knet_core.output_files import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that writes into the folder `out`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_two_processes_exclude_each_other_and_a_killed_one_blocks_none(holder, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(OutputError, match=f"another process is writing {out}"), exclusive(out):
        pass
    with exclusive(tmp_path / "other"):
        pass
    holder.kill()
    holder.wait()
    with exclusive(out):
        assert list(out.iterdir()) == []


def test_a_file_is_no_folder_for_results(tmp_path):
    (tmp_path / "a").write_text("mine")
    for out in (tmp_path / "a", tmp_path / "a/b"):
        with pytest.raises(OutputError, match="got the file"), exclusive(out):
            pass
    assert (tmp_path / "a").read_text() == "mine"


def test_a_new_folder_may_have_hidden_files_only(tmp_path):
    (tmp_path / ".DS_Store").touch()
    with new_folder(tmp_path):
        pass
    (tmp_path / "notes.txt").touch()
    with pytest.raises(OutputError, match="new or empty"), new_folder(tmp_path):
        pass
    assert not is_new(tmp_path) and not is_new(tmp_path / "notes.txt") and is_new(tmp_path / "no")


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    write_text(path, "new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_what_a_link_points_to_is_not_written_to(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "a.txt").symlink_to("mine.txt")
    write_text(tmp_path / "a.txt", "result")
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert (tmp_path / "a.txt").read_text() == "result"


def test_two_writers_of_one_file_exclude_each_other(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as partial:
        partial.write_text("first")
        with pytest.raises(OutputError, match="another process is writing"):
            write_text(path, "second")
    assert path.read_text() == "first"


def same_file(name, tmp_path):
    """Another name of tmp_path/mine.onnx."""
    path = tmp_path / "mine.onnx"
    if name == "symbolic link":
        (tmp_path / "link.onnx").symlink_to(path)
        return tmp_path / "link.onnx"
    if name == "hard link":
        os.link(path, tmp_path / "hard.onnx")
        return tmp_path / "hard.onnx"
    (tmp_path / "sub").mkdir()
    return {"itself": path, "dots": tmp_path / "sub" / ".." / "mine.onnx"}[name]


@pytest.mark.parametrize("name", ["itself", "dots", "symbolic link", "hard link"])
def test_an_input_is_no_output_whatever_it_is_called(tmp_path, name):
    (tmp_path / "mine.onnx").write_text("mine")
    other = same_file(name, tmp_path)
    for check in (refuse_inputs, check_output_file):
        output = other if check is check_output_file else [other]
        with pytest.raises(OutputError, match=r"is the input .*mine\.onnx"):
            check(output, [tmp_path / "mine.onnx"])
    refuse_inputs([tmp_path / "new.onnx"], [tmp_path / "mine.onnx", tmp_path / "missing"])


def test_a_result_must_be_writable_and_have_its_suffix_before_the_work_begins(tmp_path):
    with pytest.raises(OutputError, match=r"ends in \.onnx"):
        check_output_file(tmp_path / "photo.jpg", [], ".onnx")
    with pytest.raises(OutputError, match="got the folder"):
        check_output_file(tmp_path, [])
    check_output_file(tmp_path / "new/folder/a.onnx", [], ".onnx")
    assert (tmp_path / "new/folder").is_dir()


def test_a_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/user")
    assert str(expanded("~/a/~b")) == "/home/user/a/~b"
    assert str(expanded("a/~b")) == "a/~b" and str(expanded("~nobody_here/a")) == "~nobody_here/a"
