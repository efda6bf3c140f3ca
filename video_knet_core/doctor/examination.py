"""All checks in turn, and their report."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from .engine_checks import ExaminedModel
from .host_checks import cache, machine, versions
from .lines import FAULT, WARNING, Lines
from .ros_checks import ros

ISSUES = "https://github.com/video-knet-ros/video_knet_ros/issues"


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    section: str
    status: str
    text: str
    remedy: str = ""


def doctor(model: str | None = None, as_json: bool = False) -> int:
    """Print the report; returns 1 if there is a fault, else 0.

    Args:
        model: a file or the name of a model; None is the shipped one.
        as_json: print one JSON document in place of lines.
    """
    checks: list[Check] = []
    for check in examine(model):
        if not as_json:
            if not checks or checks[-1].section != check.section:
                print(check.section)
            print(f"  {check.status:<8} {check.text}")
            if check.remedy:
                print(f"  {'':<8} -> {check.remedy}")
            sys.stdout.flush()
        checks.append(check)
    counts = {status: sum(c.status == status for c in checks) for status in (FAULT, WARNING)}
    if as_json:
        print(json.dumps({"checks": [asdict(check) for check in checks], **counts}, indent=2))
    else:
        print(
            ", ".join(f"{count} {status}{'s' * (count != 1)}" for status, count in counts.items())
        )
    return 1 if counts[FAULT] else 0


def examine(model: str | None = None) -> Iterator[Check]:
    """All checks, as they are made; a check that fails itself is a fault. See `doctor`."""
    found = ExaminedModel(model)
    sections: dict[str, Callable[[], Lines]] = {
        "Versions": versions,
        "Machine": machine,
        "ROS 2": ros,
        "Model": found.lines,
        "Engines": found.engine_lines,
        "Sample step": found.step_lines,
        "Cache": cache,
    }
    for section, lines in sections.items():
        try:
            for status, text, *remedy in lines():
                yield Check(section, status, _private(text), _private(" ".join(remedy)))
        except ImportError as error:
            yield Check(section, FAULT, _private(f"not checked: {error}"), "see Versions, above")
        except Exception as error:
            text = _private(f"the check failed: {type(error).__name__}: {error}")
            yield Check(section, FAULT, text, f"report this to {ISSUES}")


def _private(text: str) -> str:
    """One line, in which the home folder is ~."""
    text = " ".join(text.split())
    for home in {os.path.expanduser("~"), os.path.realpath(os.path.expanduser("~"))} - {"/", "~"}:
        text = re.sub(rf"(?<![\w./-]){re.escape(home)}(?![\w.-])", "~", text)
    return text
