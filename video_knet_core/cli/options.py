"""The decorator of commands, and the options that several commands have."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config_io import ConfigError, parse_yaml
from ..engine.base import Runtime
from ..engine.model_index import find_model
from ..engine.selector import BACKENDS, default_model_path, open_runtime
from ..output_files import expanded
from ..tracking import DEFAULT_TRACKER, TRACKERS, TrackerSettings, all_settings, tracker_settings
from .console import exit_code_of, notes

MAX_INT = 2**31 - 1
MAX_SIDE = 16384
"""Pixels."""
_KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY


class Values(tuple[Any, ...]):
    """The parts of one word; a plain tuple would be several words to typer."""


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
            number = int(text)
        except ValueError:
            number = 0
        if not 1 <= number <= MAX_INT:
            raise typer.BadParameter(f"expected 1..{MAX_INT}, got {text}")
        return number

    return option(description, metavar, parser=parse)


def choice(description: str, *names: str) -> Any:
    """An option whose value is one of `names`."""

    def parse(text: str) -> str:
        if text not in names:
            raise typer.BadParameter(f"expected one of {', '.join(names)}, got {text!r}")
        return text

    return option(description, "NAME", parser=parse, autocompletion=completion(names))


def choices(description: str, *names: str, metavar: str = "NAME,NAME") -> Any:
    """An option whose value is `Values`: each is one of `names`, without `names` any word."""

    def parse(value: str | Values) -> Values:  # the default is Values already
        words = value.split(",") if isinstance(value, str) else value
        for word in words:
            if not word or (names and word not in names):
                known = f"names of {', '.join(names)}" if names else "words divided by commas"
                raise typer.BadParameter(f"expected {known}, got {word!r}")
        return Values(dict.fromkeys(words))

    return option(description, metavar, parser=parse, autocompletion=completion(names))


def completion(names: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Completes the last of several `names` divided by commas."""

    def complete(incomplete: str) -> list[str]:
        first, comma, last = incomplete.rpartition(",")
        return [f"{first}{comma}{name}" for name in names if name.startswith(last)]

    return complete


def parse_size(text: str) -> Values:
    """Height and width of HxW."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text, re.ASCII)
    if match is None or max(map(int, match.groups())) > MAX_SIDE:
        expected = f"height x width of at most {MAX_SIDE} pixels, as 384x1248"
        raise typer.BadParameter(f"expected {expected}, got {text!r}")
    return Values(map(int, match.groups()))


def parse_sizes(text: str) -> Values:
    """Several HxW, divided by commas."""
    return Values(map(parse_size, text.split(",")))


def parse_trackers(text: str | Values) -> Values:
    """Pairs of a name and settings of NAME,NAME:KEY=VALUE, or of all trackers."""
    if not isinstance(text, str):
        return text
    every = [name for name, tracker in TRACKERS.items() if tracker.any_network]
    words = [word for part in text.split(",") for word in (every if part == "all" else (part,))]
    try:
        return Values({word: _settings_of(*word.split(":")) for word in words}.items())
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None


def _settings_of(tracker: str, *settings: str) -> TrackerSettings:
    """Settings of a tracker from KEY=VALUE; ConfigError names one that it does not have."""
    values = {}
    for text in settings:
        key, _, value = text.partition("=")
        if key not in (known := list(all_settings())):
            raise ConfigError(f"tracking: expected one of {known}, got {key!r}")
        try:
            values[key] = parse_yaml(value.encode())
        except ValueError:
            values[key] = value
    return tracker_settings(tracker, **values)


BACKEND = f"One of {', '.join(BACKENDS)}; auto is the fastest that works here."
TRACKER = f"What recognises an object in the next frame: one of {', '.join(TRACKERS)}."
TRACKING = "A setting of the tracker, one of " + ", ".join(
    f"{key} ({setting.default})" for key, setting in all_settings().items()
)
MODEL = "Name of a model (`video-knet models list`), .onnx or .safetensors."
SHIPPED = "the shipped model"
Threads = Annotated[int, option("CPU threads of the engine and OpenCV.", "N", min=1, max=1024)]
Json = Annotated[bool, option("Print one JSON document on stdout, nothing else.", None, "--json")]
JsonFile = Annotated[Path | None, option("Also write all figures there.", "FILE", "--json")]
OutFolder = Annotated[Path, option("Folder of the results.", "DIR", "--out")]
MaxFrames = Annotated[int | None, count("Stop after N frames.")]
SOURCES = "Video file, folder of images, webcam index, or synthetic[:seed]."
Video = Annotated[str, argument(SOURCES, "VIDEO")]
Quiet = Annotated[bool, option("No notes and progress bars on stderr.", None, "--quiet", "-q")]
Verbose = Annotated[
    bool, option("More notes, such as why a faster engine was not used.", None, "--verbose", "-v")
]


@dataclasses.dataclass(frozen=True)
class EngineOptions:
    """The model of a command, and what runs it."""

    model: Annotated[str | None, option(MODEL, "NAME|FILE", show_default=SHIPPED)] = None
    backend: Annotated[str, choice(BACKEND, "auto", *BACKENDS)] = "auto"
    threads: Threads = 2

    @property
    def path(self) -> Path:
        """The model file, by default the shipped one; ModelError if there is none of its name."""
        return find_model(self.model) if self.model else default_model_path()

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
        return _settings_of(self.tracker, *self.tracker_options or ())


# --- commands ------------------------------------------------------------------------------------

_parameter = functools.partial(inspect.Parameter, kind=_KEYWORD_ONLY)


def command(
    *, kept: Callable[..., str] | None = None, reasons: bool = False
) -> Callable[[Callable[..., int | None]], Callable[..., int]]:
    """A decorator that makes a function a command: its parameters are options, as typer has it.

    A parameter whose type is a dataclass becomes an option for each of its fields. `--quiet` and
    `--verbose` are added, `~` in paths is replaced, and errors become a line and an exit code.
    After an interruption, `kept` is called with the command's values and returns what is kept.
    With `reasons`, the log has why an engine was not taken.
    """

    def decorate(function: Callable[..., int | None]) -> Callable[..., int]:
        own = inspect.signature(function, eval_str=True).parameters.values()
        groups: dict[str, Any] = {
            parameter.name: parameter.annotation
            for parameter in own
            if dataclasses.is_dataclass(parameter.annotation)
        }

        @functools.wraps(function)
        def run(ctx: typer.Context, *, quiet: bool, verbose: bool, **given: Any) -> int:
            if quiet and verbose:
                raise typer.BadParameter("expected at most one of --quiet and --verbose, got both")
            given = {name: _expanded(value) for name, value in given.items()}

            def call() -> int | None:
                for name, cls in groups.items():
                    fields = [field.name for field in dataclasses.fields(cls)]
                    given[name] = cls(**{field: given.pop(field) for field in fields})
                return function(**given)

            with notes(quiet, verbose, reasons):
                left = functools.partial(kept, **given) if kept else str
                return exit_code_of(call, ctx.command_path, left)

        shown = [_parameter("ctx", annotation=typer.Context)]
        for parameter in own:
            group = groups.get(parameter.name)
            shown += _options_of(group) if group else [parameter.replace(kind=_KEYWORD_ONLY)]
        shown.append(_parameter("quiet", annotation=Quiet, default=False))
        shown.append(_parameter("verbose", annotation=Verbose, default=False))
        run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
        return run

    return decorate


def _expanded(value: Any) -> Any:
    """A shell leaves `~` in `--out=~/result`."""
    if isinstance(value, list):
        return [_expanded(item) for item in value]
    return expanded(value) if isinstance(value, Path) else value


def _options_of(cls: type) -> Iterator[inspect.Parameter]:
    """A parameter for each field: of a settings class by its type and docstring, else as it is."""
    settings = vars(cls).get("__pydantic_fields__")
    for name, hint in typing.get_type_hints(cls, include_extras=settings is None).items():
        shown = _derived_option(name, hint, settings[name]) if settings else hint
        yield _parameter(name, annotation=shown, default=getattr(cls, name))


def _derived_option(name: str, hint: Any, field: Any) -> Any:
    """The annotation of an option for a field of a settings class; pydantic checks its value."""
    text, parts = field.description, (hint, *typing.get_args(hint))
    if hint is bool:
        flag = f"--{name.replace('_', '-')}"
        flag = f"{flag}/--no-{name}" if field.default else flag
        return Annotated[bool, option(text, None, flag, show_default=False)]
    if typing.get_origin(hint) is tuple:
        return Annotated[Values, choices(text)]
    if typing.get_origin(hint) is typing.Literal:
        return Annotated[str, choice(text, *parts[1:])]
    metavar = "X" if float in parts else "N" if int in parts else None
    return Annotated[hint, option(text, metavar)]
