"""Settings classes that pydantic checks, and their way from YAML or JSON and back.

All their errors are `ConfigError`s of one form, "key: expected X, got Y", made in one place.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import os
import typing
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic
from pydantic import AfterValidator, ConfigDict, PlainSerializer, PlainValidator, TypeAdapter
from typing_extensions import dataclass_transform

from .types import ClassTable

T = TypeVar("T")


class ConfigError(ValueError):
    """An unusable configuration; the message names the key, what is expected and what it got."""


def expect(condition: bool, key: str, expected: object, got: object) -> None:
    """ConfigError "`key`: expected `expected`, got `got`" unless `condition` holds."""
    if not condition:
        raise ConfigError(f"{key}: expected {expected}, got {_short(got)}")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def settings_class(cls: type | None = None, /, *, described: bool = False) -> Any:
    """Make a class a frozen dataclass whose fields pydantic checks against their types.

    Ranges of numbers are `Annotated[..., Field(ge=..., le=...)]`, rules between fields stand in
    `__post_init__` as `expect`. A value that does not fit is a ConfigError, also when replaced.
    `described` makes the docstrings of the fields their descriptions, for the command line; that
    parses the source, which takes some milliseconds.
    """
    if cls is None:
        return functools.partial(settings_class, described=described)
    config = ConfigDict(
        strict=True,
        allow_inf_nan=False,
        extra="forbid",
        use_attribute_docstrings=described,
    )
    with _without_plugins():
        made: Any = pydantic.dataclasses.dataclass(frozen=True, config=config)(cls)
    checked = made.__init__

    @functools.wraps(checked)
    def init(self: Any, *values: Any, **named: Any) -> None:
        try:
            checked(self, *values, **named)
        except pydantic.ValidationError as error:
            raise _config_error(cls, error) from None

    made.__init__ = init
    return made


def described_as(default: Any, description: str) -> Any:
    """A setting that is no number: its default and its meaning."""
    return pydantic.Field(default, description=description)


def number(default: float, low: float, high: float, description: str) -> Any:
    """A numeric setting: its default, its range, both ends included, and its meaning."""
    return pydantic.Field(default, ge=low, le=high, description=description)


@dataclasses.dataclass(frozen=True)
class Setting:
    """A field of a settings class, for user interfaces."""

    default: Any
    description: str
    range: tuple[float, float] | None
    """Both ends included; None if it is no number with limits."""
    choices: tuple[str, ...]


def described(cls: type) -> dict[str, Setting]:
    """The fields of a settings class by name."""
    found = {}
    for name, field in vars(cls)["__pydantic_fields__"].items():
        low = next((m.ge for m in field.metadata if hasattr(m, "ge")), None)
        high = next((m.le for m in field.metadata if hasattr(m, "le")), None)
        limits = None if low is None or high is None else (low, high)
        literal = typing.get_origin(field.annotation) is typing.Literal
        choices = typing.get_args(field.annotation) if literal else ()
        found[name] = Setting(field.default, field.description or "", limits, choices)
    return found


@contextmanager
def _without_plugins() -> Iterator[None]:
    """Keep pydantic from searching all installed packages for plugins, which takes a while."""
    name = "PYDANTIC_DISABLE_PLUGINS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def from_dict(cls: type[T], data: Any) -> T:
    """Build a settings class from plain data; ConfigError names the key that is wrong."""
    try:  # JSON, since there lists are tuples and mappings settings, while numbers stay strict
        return TypeAdapter(cls).validate_json(json.dumps(data, default=repr))
    except pydantic.ValidationError as error:
        raise _config_error(cls, error) from None
    except (TypeError, ValueError, RecursionError) as error:  # such as a list that holds itself
        raise ConfigError(f"{cls.__name__}: expected plain data, got {error}") from None


def to_dict(config: Any) -> dict[str, Any]:
    """Plain data of a dataclass, ready for YAML or JSON; `from_dict` is the inverse."""
    data: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return data


def parse_yaml(data: bytes) -> Any:
    """UTF-8 or UTF-16, each key of a mapping once; ValueError names what is wrong."""
    import yaml  # a robot reads no YAML

    class Loader(yaml.SafeLoader):
        """PyYAML keeps the last of equal keys; of a user's table the others would be lost."""

        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
            """A mapping whose keys differ as they are written."""
            node: yaml.MappingNode = super().compose_mapping_node(anchor)
            keys = [(k.tag, k.value) for k, _ in node.value if isinstance(k, yaml.ScalarNode)]
            twice = next((key for key, count in Counter(keys).items() if count > 1), None)
            if twice:
                line = node.start_mark.line + 1
                raise ValueError(
                    f"mapping of line {line}: expected each key once, got {twice[1]!r}"
                )
            return node

    try:
        return yaml.load(data, Loader)
    except RecursionError:
        raise ValueError("expected YAML, got one that is nested too deeply") from None
    # PyYAML lets through what its converters of dates, numbers and explicit tags raise:
    # "2020-13-01", "!!int x", "!!bool x", "!!timestamp x"
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"expected YAML, got {error}") from None


def load_yaml(cls: type[T], path: str | Path) -> T:
    """Read a settings class from a YAML file; errors name the file."""
    return read_yaml(functools.partial(from_dict, cls), path)


def read_yaml(make: Callable[[Any], T], path: str | Path) -> T:
    """What `make` makes of the plain data in a YAML file; errors name the file."""
    try:
        return make(parse_yaml(Path(path).read_bytes()))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ValueError as error:  # also of a null character in the path
        raise ConfigError(f"{path}: {error}") from None


# --- types of fields -----------------------------------------------------------------------------


def _without_null(text: str) -> str:
    if "\0" in text:
        raise ValueError(f"expected text without null characters, got {_short(text)}")
    return text


def _class_table(rows: Any) -> ClassTable:
    if isinstance(rows, ClassTable):
        return rows
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"expected a list of classes, got {_short(rows)}")
    return ClassTable.from_rows(rows)


Text = Annotated[str, AfterValidator(_without_null)]
"""Text that may be the name of a file."""
Classes = Annotated[ClassTable, PlainValidator(_class_table), PlainSerializer(ClassTable.to_rows)]
"""A class table; its rows in plain data."""


# --- errors --------------------------------------------------------------------------------------


def _config_error(cls: type, error: pydantic.ValidationError) -> ConfigError:
    """The first fault that pydantic found, as "key: expected X, got Y"."""
    fault = error.errors(include_url=False)[0]
    *above, last = fault["loc"] or ("",)
    key, got = ".".join(map(str, fault["loc"])), _short(fault["input"])
    match fault["type"]:
        case "unexpected_keyword_argument":
            return _unknown_key(key, str(last), _keys_at(cls, above))
        case "missing" | "missing_argument":
            where = ".".join(map(str, above)) or cls.__name__
            return ConfigError(f"{where}: expected the key {last!r}, got none")
        case "value_error":  # raised by a class of settings, or by the type of one of its fields
            reason = fault["ctx"]["error"]
            mark = "." if isinstance(reason, ConfigError) else ": "
            return ConfigError(f"{key}{mark if key else ''}{reason}")
        case "dataclass_type" | "dataclass_exact_type":
            expected = "a mapping"
        case _:
            expected = fault["msg"].removeprefix("Input should be ")
    return ConfigError(f"{key or cls.__name__}: expected {expected}, got {got}")


def _unknown_key(key: str, name: str, known: list[str]) -> ConfigError:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {known}"
    return ConfigError(f"unknown key {key!r}; {hint}")


def _keys_at(cls: Any, path: list[int | str]) -> list[str]:
    """The keys of the settings at a path of keys below those of `cls`."""
    for key in path:
        if isinstance(key, str):  # else the place in a list
            hint = typing.get_type_hints(cls)[key]
            cls = next(t for t in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(t))
    return [field.name for field in dataclasses.fields(cls)]


def _short(value: object) -> str:
    """A value of any kind and size, for a message."""
    try:
        text = repr(value)
    except ValueError:  # an integer of too many digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:96]} ..."
