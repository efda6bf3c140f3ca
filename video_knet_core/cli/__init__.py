"""The `video-knet` command, built by typer.

Each subcommand imports what it needs when it runs: tracking needs no torch.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Annotated

import typer

from .. import __version__
from . import data_commands, model_commands, video_commands
from .console import (
    EXIT_BAD_INPUT,
    EXIT_PIPE,
    EXIT_SIGNAL,
    drop_stdout,
    escape_unprintable,
    flush_stdout,
    print_error,
)

EPILOG = (
    "Results are written to stdout, notes and errors to stderr. Exit codes: 0 done; 1 the data "
    "have faults, or nothing was found to process; 2 usage, or input that cannot be used; "
    "130 Ctrl-C; 143 SIGTERM."
)
PLAIN = {
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
_UsageError = typer.BadParameter.__base__

app = typer.Typer(name="video-knet", epilog=EPILOG, **PLAIN)
evaluations = typer.Typer(name="eval", help="Measure a model on labelled data.", **PLAIN)
for run in (video_commands.track, video_commands.replay, video_commands.make_bag):
    app.command()(run)
app.add_typer(evaluations)
for run in (
    data_commands.synthetic,
    data_commands.pasted,
    data_commands.camvid,
    data_commands.dataset,
):
    evaluations.command()(run)
for run in (
    data_commands.bench,
    model_commands.info,
    model_commands.train,
    model_commands.export,
    model_commands.build_engine,
    model_commands.import_checkpoint,
    data_commands.validate_data,
):
    app.command()(run)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"video-knet {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Online video panoptic segmentation with persistent track ids."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code, see `EPILOG`."""
    escape_unprintable()
    try:
        try:
            program = typer.main.get_command(app)
            code = program.main(
                None if argv is None else list(argv), "video-knet", standalone_mode=False
            )
            return code or 0
        finally:
            flush_stdout()
    except _UsageError as error:
        path = error.ctx.command_path if error.ctx else "video-knet"
        print_error(path, f"{error.format_message().rstrip('.')}; see {path} --help")
        return EXIT_BAD_INPUT
    except typer.Abort:  # Ctrl-C before a command began
        return EXIT_SIGNAL + signal.SIGINT
    except BrokenPipeError:
        drop_stdout()
        return EXIT_PIPE
    except SystemExit as stop:  # after a completion, or where typer cannot write its help
        if not isinstance(stop.__context__, BrokenPipeError):
            raise
        drop_stdout()
        return EXIT_PIPE
    except OSError as error:  # a full disk
        drop_stdout()
        print_error("video-knet", f"stdout: {error}")
        return EXIT_BAD_INPUT
