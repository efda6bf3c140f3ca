"""`video-knet --print-completion SHELL`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SHELLS = ("bash", "zsh", "fish")


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Add --print-completion."""
    parser.add_argument(
        "--print-completion",
        choices=SHELLS,
        action=_PrintCompletion,
        help="print a completion script for this shell (docs/command_line.md)",
    )


class _PrintCompletion(argparse.Action):
    """Imports shtab, which makes the script, only when it is asked for."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        try:
            import shtab
        except ModuleNotFoundError:
            parser.error("--print-completion needs shtab: pip install shtab")
        _complete_paths(parser, shtab.FILE, shtab.DIRECTORY)
        print(shtab.complete(parser, str(values)))
        parser.exit()


def _complete_paths(parser: argparse.ArgumentParser, file: Any, folder: Any) -> None:
    """Let the arguments that are paths be completed as such."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_paths(command, file, folder)
        elif action.metavar == "DIR":
            action.complete = folder  # type: ignore[attr-defined]  # where shtab looks
        elif action.type is Path or action.dest == "video":
            action.complete = file  # type: ignore[attr-defined]
