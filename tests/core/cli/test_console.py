"""How `video-knet` behaves in a shell: streams, exit codes, signals, completion, JSON."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bag_fixtures import bag_of
from dataset_fixtures import write_custom

import video_knet_core
from video_knet_core.cli import console, main

PROGRAM = [sys.executable, "-m", "video_knet_core.cli"]
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(*arguments: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, **options)


# --- facts about the program ---------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_that_of_the_package(option, capsys):
    assert main([option]) == 0
    assert capsys.readouterr().out == f"video-knet {video_knet_core.__version__}\n"


def completion(instruction: str, words: str = "") -> str:
    """What the program answers to a shell."""
    variables = {"_VIDEO_KNET_COMPLETE": instruction, "COMP_WORDS": f"video-knet {words}"}
    variables |= {"COMP_CWORD": str(len(words.split())), "_TYPER_COMPLETE_ARGS": words}
    return run(env=os.environ | variables, text=True).stdout


CHECKS = {"bash": ["bash", "-n"], "zsh": ["zsh", "-n"], "fish": ["fish", "--no-execute"]}


@pytest.mark.parametrize("shell", CHECKS)
def test_a_completion_script_is_one_of_its_shell(shell, tmp_path):
    script = completion(f"source_{shell}")
    assert "video-knet" in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([*CHECKS[shell], tmp_path / "script"], check=True)


def test_subcommands_and_the_names_of_backends_are_completed():
    assert completion("complete_bash", "re").split() == ["replay"]
    assert "tensorrt-rtx" in completion("complete_bash", "track --backend tens").split()
    assert "onnxruntime-cpu,tensorrt" in completion(
        "complete_bash", "bench --backend onnxruntime-cpu,tens"
    )


# --- what is written where -----------------------------------------------------------------------


def test_results_are_on_stdout_and_notes_on_stderr(track, model, capsys):
    for options in ([], ["-q"], ["--verbose"]):
        assert track(*options) == 0
        output = capsys.readouterr()
        assert "5 frames" in output.out
        lines = output.err.splitlines()
        assert ("not tensorrt: " in output.err) is (options == ["--verbose"])
        if options == ["-q"]:
            assert not lines
        else:  # one about the engine, without --verbose no other
            (line,) = [line for line in lines if line.startswith(f"{model} runs on ")]
            assert options or (lines == [line] and "; not" not in line)


def test_bench_prints_why_engines_were_not_taken_unless_it_is_quiet(model, capsys):
    for options, expected in (([], True), (["-q"], False)):
        assert main(["bench", str(model), "--frames", "1", *options]) == 0
        assert ("not tensorrt: " in capsys.readouterr().err) is expected


def test_log_and_signal_handlers_are_as_before_after_a_command(track):
    logger = logging.getLogger("video_knet_core")

    def handlers():
        signals = [signal.getsignal(number) for number in SIGNALS]
        return logger.level, list(logger.handlers), signals

    before = handlers()
    track("-q")
    assert handlers() == before


# --- JSON ----------------------------------------------------------------------------------------


def test_track_prints_one_json_document(track, tmp_path, capsys):
    assert track("--json", "--backend", "onnxruntime-cpu") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["backend"] == "onnxruntime-cpu"
    assert found["frames"] == 5 and found["out"] == str(tmp_path / "out")
    assert found["fps"] == pytest.approx(5 / found["seconds"]) and found["step_ms_median"] > 0
    assert isinstance(found["tracks"], dict)


def test_replay_prints_one_json_document(model, tmp_path, capsys):
    bag, out = bag_of(tmp_path, 5), tmp_path / "out"
    assert main(["replay", str(bag), "--out", str(out), "--model", str(model), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["frames"], found["failed"], found["damage"]) == (5, 0, "")
    assert found["out"] == str(out)


def test_replay_of_many_bags_prints_one_json_document(model, tmp_path, capsys):
    bag_of(tmp_path, 4)
    command = ["replay", "--glob", str(tmp_path / "i[n]"), "--out", str(tmp_path / "out")]
    assert main([*command, "--model", str(model), "--json"]) == 0
    (bag,) = json.loads(capsys.readouterr().out)["bags"]
    assert (bag["state"], bag["frames"], bag["reason"]) == ("done", 4, "")


def test_validate_data_prints_the_faults_as_one_json_document(tmp_path, capsys):
    write_custom(tmp_path)
    assert main(["validate-data", "custom", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["faults"] == []
    image = sorted((tmp_path / "val/images").rglob("*.png"))[0]
    image.write_bytes(b"broken")
    assert main(["validate-data", "custom", str(tmp_path), "--json"]) == 1
    (fault,) = json.loads(capsys.readouterr().out)["faults"]
    assert fault["split"] == "val" and image.stem in fault["where"] and fault["what"]


# --- nothing to do -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "word"),
    [(["--start", "99"], "99"), (["--start", "0.11", "--duration", "0.01"], "/camera/image_raw")],
)
def test_a_time_without_images_is_an_error(options, word, model, tmp_path, capsys):
    bag = bag_of(tmp_path, 3)
    command = ["replay", str(bag), "--out", str(tmp_path / "out"), "--model", str(model), "-q"]
    assert main([*command, *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("video-knet replay: ") and str(bag) in line and word in line


def test_a_data_set_without_clips_is_an_error(tmp_path, capsys):
    write_custom(tmp_path)
    shutil.rmtree(tmp_path / "val")
    for folder in ("images", "labels"):
        (tmp_path / "val" / folder).mkdir(parents=True)
    assert main(["validate-data", "custom", str(tmp_path)]) in (1, 2)
    assert main(["eval", "dataset", "custom", str(tmp_path)]) in (1, 2)
    assert "Traceback" not in capsys.readouterr().err


# --- pipes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["info", "--help"])
def test_a_reader_that_goes_away_ends_the_command_silently(word):
    process = subprocess.Popen(
        [*PROGRAM, word], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()  # as head does when it has read enough
    assert process.stderr.read() == ""
    assert process.wait() == 141


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_that_cannot_be_written_is_one_line(storage, tmp_path):
    def limit_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    arguments = ["make-bag", "synthetic:1", "--max-frames", "2", "--format", storage]
    result = run(*arguments, "--out", tmp_path / "bag", text=True, preexec_fn=limit_files)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("video-knet make-bag: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_under_stdout_is_one_line(unbuffered, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with open("/dev/full", "w") as full:
        result = subprocess.run([*PROGRAM, "info"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and "No space left" in result.stderr


def test_names_that_are_no_text_can_be_printed(images, tmp_path, capsysbinary):
    out = tmp_path / "bag\udcff"
    assert main(["make-bag", str(images), "--out", str(out)]) == 0
    assert rb"bag\udcff" in capsysbinary.readouterr().out


def test_names_that_are_no_text_can_be_in_errors(tmp_path, capsysbinary):
    assert main(["info", str(tmp_path / "none\udcff.onnx")]) == 2
    (line,) = capsysbinary.readouterr().err.splitlines()
    assert rb"none\udcff.onnx" in line


def test_control_sequences_in_errors_and_notes_are_shown_and_not_sent(capsys):
    with console.notes(quiet=False, verbose=False, reasons=False):
        logging.getLogger("video_knet_core.bags").warning("%s", "/a\x1b]0;mine\x07")
    console.print_error("video-knet", "no topic /a\x1b[2J")
    shown = capsys.readouterr().err
    assert shown == "/a\\x1b]0;mine\\x07\nvideo-knet: no topic /a\\x1b[2J\n"


# --- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupted_replay_reports_in_one_line_what_is_kept(number, model, tmp_path):
    bag, out = bag_of(tmp_path, 1000), tmp_path / "out"
    command = ["replay", bag, "--out", out, "--model", model, "--split-frames", "5", "-q"]
    process = subprocess.Popen(
        [*PROGRAM, *command],
        stderr=subprocess.PIPE,
        text=True,
        # a test run in the background ignores SIGINT, and its children would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (out / "unfinished/bag").is_dir():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(number)
    (line,) = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 128 + number
    assert str(out) in line and "--resume" in line


def test_an_error_that_comes_of_an_interruption_is_not_the_reason_of_the_end():
    """As from Ray, whose workers end of the same Ctrl-C.

    In a process of its own, since the tests may be run in a thread, which takes no signals.
    """
    code = """
import signal, sys
from video_knet_core.cli.console import exit_code_of

def run():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise RuntimeError("a worker ended") from None

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(exit_code_of(run, "video-knet fleet", lambda: ""))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "video-knet fleet: interrupted\n")
