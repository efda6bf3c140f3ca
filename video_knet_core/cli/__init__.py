"""The `video-knet` command, a file for each group of subcommands.

Each subcommand imports what it needs when it runs: tracking needs no torch.
"""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Sequence

from .bench import add_bench
from .data import add_validate
from .engine import add_build_engine
from .errors import BAD_INPUT, EXIT_BAD_INPUT, EXIT_INTERRUPTED
from .evaluate import add_evaluate
from .models import add_export, add_import, add_info
from .replay import add_make_bag, add_replay
from .track import add_track
from .training import add_train


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 1 for faulty data, or 2 for bad usage or input."""
    _print_names_of_any_script()
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return arguments.run(arguments) or 0
    except BAD_INPUT as error:
        print(f"video-knet {arguments.command}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _print_names_of_any_script() -> None:
    """Escape what the terminal's encoding lacks, instead of failing at a class name."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="video-knet", description="Online video panoptic segmentation with ids that stay."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_track(commands)
    add_replay(commands)
    add_make_bag(commands)
    add_evaluate(commands)
    add_bench(commands)
    add_info(commands)
    add_train(commands)
    add_export(commands)
    add_build_engine(commands)
    add_import(commands)
    add_validate(commands)
    return parser
