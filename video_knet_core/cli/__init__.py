"""The `video-knet` command, built by typer.

Each subcommand imports what it needs when it runs: tracking needs no torch.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from .. import __version__
from .console import EXIT_BAD_INPUT, EXIT_PIPE, EXIT_SIGNAL, drop_stdout, print_error
from .data_commands import bench, camvid, dataset, judges, pasted, synthetic, validate_data
from .model_commands import (
    build_engine,
    export,
    finetune,
    import_checkpoint,
    info,
    self_label,
    train,
)
from .setup_commands import doctor, get, list_models
from .video_commands import make_bag, replay, track

EPILOG = (
    "Results are written to stdout, notes and errors to stderr. Exit codes: 0 done; 1 the data "
    "have faults, or nothing was found to process; 2 usage, or input that cannot be used; "
    "130 Ctrl-C; 141 stdout was closed; 143 SIGTERM."
)
PLAIN = {"rich_markup_mode": None, "context_settings": {"help_option_names": ["-h", "--help"]}}
_UsageError = typer.BadParameter.__base__

app = typer.Typer(name="video-knet", epilog=EPILOG, **PLAIN)
for run in (
    *(track, replay, make_bag, bench, info, train, finetune, export, build_engine),
    *(import_checkpoint, validate_data, self_label, doctor),
):
    app.command()(run)
evaluations = typer.Typer(name="eval", help="Measure a model on labelled data.", **PLAIN)
app.add_typer(evaluations)
for run in (synthetic, pasted, camvid, dataset, judges):
    evaluations.command()(run)
models = typer.Typer(name="models", help="List and download the models of this version.", **PLAIN)
app.add_typer(models)
models.command("list")(list_models)
models.command()(get)


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
    if hasattr(sys.stdout, "reconfigure"):  # file systems allow names that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    words, code = None if argv is None else list(argv), 0
    try:
        try:
            program = typer.main.get_command(app)
            code = program.main(words, "video-knet", standalone_mode=False) or 0
        finally:
            print(end="", flush=True)  # while an error can still be handled
        return code
    except _UsageError as error:
        path = error.ctx.command_path if error.ctx else "video-knet"
        print_error(path, f"{error.format_message().rstrip('.')}; see {path} --help")
        return EXIT_BAD_INPUT
    except typer.Abort:  # Ctrl-C before a command began
        return EXIT_SIGNAL + signal.SIGINT
    except (BrokenPipeError, SystemExit) as stop:
        # typer exits after a completion, and where stdout is closed
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, BrokenPipeError):
            raise
        drop_stdout()
        return EXIT_PIPE
    except OSError as error:  # a full disk
        drop_stdout()
        if code != EXIT_BAD_INPUT:  # else the command has reported it: stdout is not buffered
            print_error("video-knet", f"stdout: {error}")
        return EXIT_BAD_INPUT
