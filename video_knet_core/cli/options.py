"""The decorator of commands, and the options that several commands have."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer import Argument, Option

from ..config import ASSOCIATIONS, Association, TrackingConfig
from ..engine.base import Runtime
from ..engine.selector import BACKENDS, default_model_path, open_runtime
from ..output_files import expanded
from .console import exit_code_of, notes

MAX_INT = 2**31 - 1
MAX_SIDE = 16384
"""Pixels."""


class Names(tuple[str, ...]):
    """Words of one option, divided by commas."""


class Size(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int


class Sizes(tuple[Size, ...]):
    """Several of them, divided by commas."""


def positive(text: str) -> int:
    """A number from 1 on."""
    value = int(text)
    if not 1 <= value <= MAX_INT:
        raise ValueError(f"expected a number from 1 to {MAX_INT}, got {value}")
    return value


def one_of(*names: str) -> dict[str, Any]:
    """Arguments of an `Option` whose value is one of `names`, also for shell completion."""

    def parse(text: str) -> str:
        if text not in names:
            raise typer.BadParameter(f"expected one of {', '.join(names)}, got {text!r}")
        return text

    return {"parser": parse, "autocompletion": _completion(names)}


def some_of(*names: str) -> dict[str, Any]:
    """The same for `Names`: each is one of `names`; without `names` any word."""

    def parse(value: str | Names) -> Names:
        words = value.split(",") if isinstance(value, str) else value
        for word in words:
            if not word or (names and word not in names):
                known = f"names of {', '.join(names)}" if names else "words divided by commas"
                raise typer.BadParameter(f"expected {known}, got {word!r}")
        return Names(dict.fromkeys(words))

    return {"parser": parse, "autocompletion": _completion(names)}


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


@dataclasses.dataclass(frozen=True)
class EngineOptions:
    """The model of a command, and what runs it."""

    model: Annotated[
        Path | None,
        Option(metavar="FILE", help=".onnx or .safetensors.", show_default="the shipped model"),
    ] = None
    backend: Annotated[
        str,
        Option(
            metavar="NAME",
            help=f"One of {', '.join(BACKENDS)}; auto is the best that works here.",
            **one_of("auto", *BACKENDS),
        ),
    ] = "auto"
    threads: Annotated[
        int, Option(metavar="N", min=1, max=1024, help="CPU threads of the engine.")
    ] = 2

    @property
    def path(self) -> Path:
        """The model file, by default the shipped one."""
        return self.model or default_model_path()

    def open(self) -> Runtime:
        """Open the model; the caller closes it."""
        return open_runtime(self.path, self.backend, self.threads)


@dataclasses.dataclass(frozen=True)
class TrackingOptions:
    """How tracks are recognised."""

    association: Annotated[
        Association,
        Option(
            metavar="NAME",
            help="How tracks are recognised: embedding, ours; quasi_dense, the authors' tracker; "
            "or, to compare with: raw kernels, iou of masks, sort, mask_propagation by optical "
            "flow, appearance to an ImageNet network (needs torch).",
            **one_of(*ASSOCIATIONS),
        ),
    ] = TrackingConfig.association

    @property
    def config(self) -> TrackingConfig:
        """The same for a predictor."""
        return TrackingConfig(self.association)


Threads = Annotated[
    int, Option(metavar="N", min=1, max=1024, help="CPU threads of the engine and OpenCV.")
]
Json = Annotated[
    bool,
    Option("--json", help="Print the result as one JSON document, and nothing else on stdout."),
]
JsonFile = Annotated[
    Path | None, Option("--json", metavar="FILE", help="Also write all figures there.")
]
OutFolder = Annotated[Path, Option("--out", metavar="DIR", help="Folder of the results.")]
MaxFrames = Annotated[int | None, Option(metavar="N", parser=positive, help="Stop after N frames.")]
Video = Annotated[
    str,
    Argument(
        metavar="VIDEO", help="Video file, folder of images, webcam index, or synthetic[:seed]."
    ),
]


# --- commands ------------------------------------------------------------------------------------


_VERBOSITY = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
    for name, option in {
        "quiet": Annotated[
            bool, Option("--quiet", "-q", help="No notes and progress bars on stderr.")
        ],
        "verbose": Annotated[
            bool,
            Option("--verbose", "-v", help="More notes, as why an engine was not taken."),
        ],
    }.items()
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

        parameters = [
            inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        ]
        for name, parameter in signature.parameters.items():
            fields = _field_options(settings[name]) if name in settings else [parameter]
            parameters += [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in fields]
        parameters += _VERBOSITY
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _expanded(value: Any) -> Any:
    """A shell leaves `~` in `--out=~/result`."""
    if isinstance(value, list):
        return [_expanded(item) for item in value]
    return expanded(value) if isinstance(value, Path) else value


def _field_options(cls: Any) -> Iterator[inspect.Parameter]:
    """A parameter for each field: its own `Option`, else one derived from what pydantic knows."""
    kind = inspect.Parameter.KEYWORD_ONLY
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        if typing.get_origin(hint) is not Annotated or not _is_option(hint.__metadata__[-1]):
            hint = _derived_option(cls.__pydantic_fields__[name], f"--{name.replace('_', '-')}")
        yield inspect.Parameter(name, kind, default=getattr(cls, name), annotation=hint)


def _is_option(value: object) -> bool:
    return type(value).__name__ == "OptionInfo"


def _derived_option(field: Any, flag: str) -> Any:
    """The annotation of an option for a field of a settings class; pydantic checks its value."""
    hint, default = field.annotation, field.default
    if type(None) in typing.get_args(hint):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    choices = _literals(hint)
    options: dict[str, Any] = {"help": field.description, "show_default": bool(default)}
    options |= {"metavar": {int: "N", float: "X"}.get(hint)}
    if hint is bool and default:
        flag, options["show_default"] = f"{flag}/--no-{flag[2:]}", False
    elif typing.get_origin(hint) is tuple:
        hint, options = Names, {**options, "metavar": "NAME,NAME", **some_of(*choices)}
    elif choices:
        hint, options = str, {**options, "metavar": "|".join(choices), **one_of(*choices)}
    return Annotated[hint if default is not None else hint | None, Option(flag, **options)]


def _literals(hint: Any) -> tuple[str, ...]:
    """The values of a Literal, also of one in a tuple."""
    if typing.get_origin(hint) is tuple:
        return _literals(typing.get_args(hint)[0])
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
