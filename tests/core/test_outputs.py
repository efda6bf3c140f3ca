"""What is published of a frame, by the task of the model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from video_knet_core.messages.topics import OUTPUTS
from video_knet_core.tasks import TASKS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "topics.md"
ALWAYS = {"~/class_map", "~/label_info", "/diagnostics"}


def documented() -> dict[str, set[str]]:
    """Task -> topics that the page has a "yes" for."""
    rows = re.findall(
        r"^\| `(\S+)` \| `\w+/.*? \| ([^|]*)\|([^|]*)\|([^|]*)\|$", PAGE.read_text(), re.M
    )
    tasks = ("panoptic", "semantic", "instance")
    return {
        task: {topic for topic, *cells in rows if cells[column].strip() == "yes"}
        for column, task in enumerate(tasks)
    }


def test_every_task_has_outputs_and_the_usual_ones_are_among_them():
    for task in TASKS.values():
        assert task.default_outputs
        assert set(task.default_outputs) <= set(task.outputs) <= set(OUTPUTS)


@pytest.mark.parametrize("task", TASKS)
def test_the_page_on_topics_lists_all(task):
    published = {f"~/{OUTPUTS[name].topic}" for name in TASKS[task].outputs}
    assert documented()[task] == published | ALWAYS
