"""The decorator of commands, and the options that several commands have."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from ..config_io import ConfigError, parse_yaml
from ..engine.base import Runtime
from ..engine.selector import BACKENDS, default_model_path, open_runtime
from ..output_files import expanded
from ..tracking import DEFAULT_TRACKER, TRACKERS, TrackerSettings, all_settings, tracker_settings
from .console import exit_code_of, notes

MAX_INT = 2**31 - 1
MAX_SIDE = 16384
"""Pixels."""
_Parameter = inspect.Parameter
_OptionInfo = type(typer.Option())


class Names(tuple[str, ...]):
    """Words of one option, divided by commas."""


class Size(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int


class Sizes(tuple[Size, ...]):
    """Several of them, divided by commas."""


def option(description: str, metavar: str | None = None, *flags: str, **more: Any) -> Any:
    """`typer.Option`; without flags it is called as its parameter."""
    return typer.Option(*flags, help=description, metavar=metavar, **more)


def argument(description: str, metavar: str | None = None, **more: Any) -> Any:
    """`typer.Argument`."""
    return typer.Argument(help=description, metavar=metavar, **more)


def count(description: str, metavar: str = "N") -> Any:
    """An option whose value is a number from 1 on."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = 0
        if not 1 <= value <= MAX_INT:
            raise typer.BadParameter(f"expected 1..{MAX_INT}, got {text}")
        return value

    return option(description, metavar, parser=parse)


def choice(description: str, *names: str, metavar: str = "NAME", flag: str = "") -> Any:
    """An option whose value is one of `names`."""

    def parse(text: str) -> str:
        if text not in names:
            raise typer.BadParameter(f"expected one of {', '.join(names)}, got {text!r}")
        return text

    flags = [flag] if flag else []
    return option(description, metavar, *flags, parser=parse, autocompletion=_completion(names))


def choices(description: str, *names: str, metavar: str = "NAME,NAME", flag: str = "") -> Any:
    """An option whose value is `Names`: each is one of `names`, without `names` any word."""

    def parse(value: str | Names) -> Names:
        words = value.split(",") if isinstance(value, str) else value
        for word in words:
            if not word or (names and word not in names):
                known = f"names of {', '.join(names)}" if names else "words divided by commas"
                raise typer.BadParameter(f"expected {known}, got {word!r}")
        return Names(dict.fromkeys(words))

    flags = [flag] if flag else []
    return option(description, metavar, *flags, parser=parse, autocompletion=_completion(names))


def _completion(names: tuple[str, ...]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        first, comma, last = incomplete.rpartition(",")
        return [f"{first}{comma}{name}" for name in names if name.startswith(last)]

    return complete


def parse_size(text: str) -> Size:
    """Height and width of HxW."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text, re.ASCII)
    if match is None or max(map(int, match.groups())) > MAX_SIDE:
        expected = f"height x width of at most {MAX_SIDE} pixels, as 384x1248"
        raise typer.BadParameter(f"expected {expected}, got {text!r}")
    return Size(int(match[1]), int(match[2]))


def parse_sizes(text: str) -> Sizes:
    """Several HxW, divided by commas."""
    return Sizes(map(parse_size, text.split(",")))


BACKEND = f"One of {', '.join(BACKENDS)}; auto is the best that works here."
TRACKER = f"What recognises an object in the next frame: one of {', '.join(TRACKERS)}."
TRACKING = "A setting of the tracker, one of " + ", ".join(
    f"{key} ({setting.default})" for key, setting in all_settings().items()
)
SHIPPED = "the shipped model"
Threads = Annotated[int, option("CPU threads of the engine and OpenCV.", "N", min=1, max=1024)]
Json = Annotated[bool, option("Print one JSON document on stdout, nothing else.", None, "--json")]
JsonFile = Annotated[Path | None, option("Also write all figures there.", "FILE", "--json")]
OutFolder = Annotated[Path, option("Folder of the results.", "DIR", "--out")]
MaxFrames = Annotated[int | None, count("Stop after N frames.")]
Video = Annotated[
    str, argument("Video file, folder of images, webcam index, or synthetic[:seed].", "VIDEO")
]


@dataclasses.dataclass(frozen=True)
class EngineOptions:
    """The model of a command, and what runs it."""

    model: Annotated[
        Path | None, option(".onnx or .safetensors.", "FILE", show_default=SHIPPED)
    ] = None
    backend: Annotated[str, choice(BACKEND, "auto", *BACKENDS)] = "auto"
    threads: Threads = 2

    @property
    def path(self) -> Path:
        """The model file, by default the shipped one."""
        return self.model or default_model_path()

    def open(self) -> Runtime:
        """Open the model; the caller closes it."""
        return open_runtime(self.path, self.backend, self.threads)


@dataclasses.dataclass(frozen=True)
class TrackingOptions:
    """The tracker and its settings."""

    tracker: Annotated[str, choice(TRACKER, *TRACKERS)] = DEFAULT_TRACKER
    tracker_options: Annotated[list[str] | None, option(TRACKING, "KEY=VALUE", "--tracking")] = None

    @property
    def config(self) -> TrackerSettings:
        """The same for a predictor; ConfigError names a setting that the tracker does not have."""
        values = {}
        for text in self.tracker_options or ():
            key, _, value = text.partition("=")
            if key not in (known := list(all_settings())):
                raise ConfigError(f"--tracking: expected one of {known}, got {key!r}")
            try:
                values[key] = parse_yaml(value.encode())
            except ValueError:
                values[key] = value
        return tracker_settings(self.tracker, **values)


# --- commands ------------------------------------------------------------------------------------


Quiet = Annotated[bool, option("No notes and progress bars on stderr.", None, "--quiet", "-q")]
Verbose = Annotated[
    bool, option("More notes, as why an engine was not taken.", None, "--verbose", "-v")
]


def command(
    *, kept: Callable[..., str] | None = None, reasons: bool = False
) -> Callable[[Callable[..., int | None]], Callable[..., int]]:
    """A decorator that makes a function a command: its parameters are options, as typer has it.

    A parameter whose type is a settings class becomes an option for each of its fields. `--quiet`
    and `--verbose` are added, `~` in paths is replaced, and errors become a line and an exit code.

    Args:
        kept: called with the command's values after an interruption; returns what is kept.
        reasons: also show why an engine was not taken.
    """

    def decorate(function: Callable[..., int | None]) -> Callable[..., int]:
        signature = inspect.signature(function, eval_str=True)
        settings: dict[str, Any] = {
            name: parameter.annotation
            for name, parameter in signature.parameters.items()
            if dataclasses.is_dataclass(parameter.annotation)
        }

        @functools.wraps(function)
        def run(ctx: typer.Context, *, quiet: bool, verbose: bool, **given: Any) -> int:
            if quiet and verbose:
                raise typer.BadParameter("expected at most one of --quiet and --verbose, got both")
            given = {name: _expanded(value) for name, value in given.items()}

            def call() -> int | None:
                for name, cls in settings.items():
                    fields = [field.name for field in dataclasses.fields(cls)]
                    given[name] = cls(**{field: given.pop(field) for field in fields})
                return function(**given)

            with notes(quiet, verbose, reasons):
                left = functools.partial(kept, **given) if kept else str
                return exit_code_of(call, ctx.command_path, left)

        parameters: dict[str, tuple[Any, Any]] = {"ctx": (typer.Context, _Parameter.empty)}
        for name, parameter in signature.parameters.items():
            one = {name: (parameter.annotation, parameter.default)}
            parameters |= _field_options(settings[name]) if name in settings else one
        parameters |= {"quiet": (Quiet, False), "verbose": (Verbose, False)}
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                _Parameter(name, _Parameter.KEYWORD_ONLY, default=default, annotation=hint)
                for name, (hint, default) in parameters.items()
            ]
        )
        run.__annotations__ = {name: hint for name, (hint, _) in parameters.items()}
        return run

    return decorate


def _expanded(value: Any) -> Any:
    """A shell leaves `~` in `--out=~/result`."""
    if isinstance(value, list):
        return [_expanded(item) for item in value]
    return expanded(value) if isinstance(value, Path) else value


def _field_options(cls: Any) -> dict[str, tuple[Any, Any]]:
    """Annotation and default of each field: its own option, else one derived from its type."""
    found = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        own = [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, _OptionInfo)]
        derived = hint if own else _derived_option(cls.__pydantic_fields__[name], name)
        found[name] = (derived, getattr(cls, name))
    return found


def _derived_option(field: Any, name: str) -> Any:
    """The annotation of an option for a field of a settings class; pydantic checks its value."""
    hint, default, text = field.annotation, field.default, field.description or ""
    if type(None) in typing.get_args(hint):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    flag = f"--{name.replace('_', '-')}"
    if hint is bool:
        flag = f"{flag}/--no-{flag[2:]}" if default else flag
        return Annotated[bool, option(text, None, flag, show_default=False)]
    if typing.get_origin(hint) is tuple:
        return Annotated[Names, choices(text, flag=flag)]
    if typing.get_origin(hint) is typing.Literal:
        return Annotated[str, choice(text, *typing.get_args(hint), flag=flag)]
    metavar = {int: "N", float: "X"}.get(hint)
    return Annotated[hint if default is not None else hint | None, option(text, metavar, flag)]
