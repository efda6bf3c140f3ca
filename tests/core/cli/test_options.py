"""Options made from settings classes, and the page about the commands."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
import typer

from video_knet_core.cli import app, main
from video_knet_core.cli.data_commands import LABELLED, VALIDATED
from video_knet_core.data.datasets import DATASETS
from video_knet_core.replay.replay_settings import ReplaySettings

REPO = Path(__file__).parents[3]


def test_each_setting_of_a_replay_is_an_option_with_its_docstring(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["replay", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(ReplaySettings):
        assert f"--{field.name.replace('_', '-')} " in text
        assert ReplaySettings.__pydantic_fields__[field.name].description in text


def test_the_page_has_every_command():
    page = (REPO / "docs" / "reference" / "command_line.md").read_text()
    listed = re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)
    assert set(listed) == set(typer.main.get_command(app).commands)


def test_help_and_page_have_every_data_set():
    page = (REPO / "docs" / "reference" / "data.md").read_text()
    assert all(f"`{name}`" in page for name in DATASETS)
    scored = [name for name, known in DATASETS.items() if known.predictions is not None]
    for text, names in ((VALIDATED, DATASETS), (LABELLED, scored)):
        assert set(re.findall(r"\w+", text)) - {"or"} == set(names)


def written_commands() -> list[str]:
    """The command lines in the pages, as written."""
    pages = [REPO / "README.md", *REPO.glob("docs/**/*.md"), *REPO.glob("models/*.md")]
    texts = [page.read_text().replace("\\\n", " ") for page in pages]
    lines = [line for text in texts for line in text.splitlines()]
    found = (re.match(r" *video-knet ([a-z].*)", line) for line in lines)
    return sorted({match[1] for match in found if match and "$" not in match[1]})


@pytest.mark.parametrize("line", written_commands())
def test_a_command_line_of_a_page_can_be_parsed(line, monkeypatch):
    monkeypatch.setattr("video_knet_core.cli.options.exit_code_of", lambda *arguments: 0)
    words = shlex.split(re.split(r"\s\||\s>", line)[0].replace("...", ""), comments=True)
    assert main(words) == 0
