"""Configurations from plain data, as in YAML or JSON, and back.

An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from .config import ConfigError
from .types import ClassTable

T = TypeVar("T")


def from_dict(cls: type[T], data: Any, where: str = "") -> T:
    """Build the dataclass `cls` from plain data; ConfigError on unknown keys and wrong types."""
    if not isinstance(data, dict):
        raise ConfigError(f"{where or cls.__name__} must be a mapping, found {data!r}")
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {known}"
            raise ConfigError(f"unknown key {_join(where, key)!r}{hint}")
    values = {k: _convert(hints[k], v, _join(where, k)) for k, v in data.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"{where or cls.__name__}: {error}") from None


def to_dict(config: Any) -> dict[str, Any]:
    """Plain data of a dataclass, ready for YAML or JSON; `from_dict` is the inverse."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if isinstance(value, ClassTable):
        return value.to_rows()
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def load_yaml(cls: type[T], path: str | Path) -> T:
    """Read a dataclass from a YAML file; errors name the file."""
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_bytes())  # UTF-8 or UTF-16 in any locale
    except FileNotFoundError:
        raise ConfigError(f"no config file {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    try:
        return from_dict(cls, data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _join(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, types.UnionType):  # X | None
        if value is None:
            return None
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    if hint is ClassTable:
        return _class_table(value, where)
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)  # type: ignore[arg-type]
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where} must be a list, found {value!r}")
        inner = typing.get_args(hint)[0]
        return tuple(_convert(inner, v, where) for v in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise ConfigError(f"{where} must be {hint.__name__}, found {value!r}")
    return value


def _class_table(rows: Any, where: str) -> ClassTable:
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f"{where} must be a list of classes, found {rows!r}")
    try:
        return ClassTable.from_rows(rows)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{where}: {error}") from None
