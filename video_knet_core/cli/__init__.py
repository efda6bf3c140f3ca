"""The `video-knet` command, a file for each group of subcommands.

Each subcommand imports what it needs when it runs: tracking needs no torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from .. import __version__
from .arguments import expand_paths
from .bench import add_bench
from .completion import add_completion
from .console import (
    add_verbosity,
    drop_stdout,
    escape_unprintable,
    flush_stdout,
    interrupts,
    notes,
    print_error,
)
from .data import add_validate
from .engine import add_build_engine
from .errors import BAD_INPUT, EXIT_BAD_INPUT, EXIT_FAULTS, EXIT_PIPE, EXIT_SIGNAL, NothingError
from .evaluate import add_evaluate
from .models import add_export, add_import, add_info
from .replay import add_make_bag, add_replay
from .track import add_track
from .training import add_train

EPILOG = (
    "Results are written to stdout, notes and errors to stderr. Exit codes: 0 done; 1 the data "
    "have faults, or nothing was found to process; 2 usage, or input that cannot be used; "
    "130 Ctrl-C; 143 SIGTERM."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code, see `EPILOG`. SystemExit of bad usage has 2 too."""
    escape_unprintable()
    try:
        try:
            return _run(_parser().parse_args(argv))
        finally:
            flush_stdout()
    except BrokenPipeError:  # as of `video-knet info | head -1`
        drop_stdout()
        return EXIT_PIPE
    except OSError as error:  # a full disk
        drop_stdout()
        print_error("", f"stdout: {error}")
        return EXIT_BAD_INPUT


def _run(arguments: argparse.Namespace) -> int:
    with notes(arguments), interrupts() as signals:
        code, interrupted = EXIT_BAD_INPUT, False
        try:
            expand_paths(arguments)
            code = arguments.run(arguments) or 0
        except BrokenPipeError:
            raise
        except NothingError as error:
            print_error(arguments.command, error)
            code = EXIT_FAULTS
        except BAD_INPUT as error:
            print_error(arguments.command, error)
        except ModuleNotFoundError as error:  # where ROS came with the system's Python
            if (error.name or "").startswith("video_knet"):
                raise
            print_error(arguments.command, f"needs {error.name}: pip install {error.name}")
        except KeyboardInterrupt:
            interrupted = True
        if interrupted or signals.received:
            kept = arguments.kept(arguments) if "kept" in arguments else ""
            print_error(arguments.command, f"interrupted{kept and f': {kept}'}")
            return EXIT_SIGNAL + (signals.received or 2)
        return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="video-knet",
        description="Online video panoptic segmentation with persistent track ids.",
        epilog=EPILOG,
    )
    parser.add_argument("-V", "--version", action="version", version=f"%(prog)s {__version__}")
    add_completion(parser)
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
    for command in _leaves(parser):
        add_verbosity(command)
    return parser


def _leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers without subcommands."""
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    for group in groups:
        for command in group.choices.values():
            yield from _leaves(command)
    if not groups:
        yield parser
