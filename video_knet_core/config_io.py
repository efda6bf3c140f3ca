"""Configurations from plain data, as in YAML or JSON, and back.

An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml

from .config import ConfigError, short
from .types import ClassTable

T = TypeVar("T")


def from_dict(cls: type[T], data: Any, where: str = "") -> T:
    """Build the dataclass `cls` from plain data; ConfigError on unknown keys and wrong types."""
    if not isinstance(data, dict):
        raise ConfigError(f"{where or cls.__name__}: expected a mapping, got {short(data)}")
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {known}"
            raise ConfigError(f"unknown key {_join(where, key)!r}{hint}")
    for key in _required(cls):
        if key not in data:
            got = short(list(data))
            raise ConfigError(f"{where or cls.__name__}: expected the key {key!r}, got {got}")
    return cls(**{k: _convert(hints[k], v, _join(where, k)) for k, v in data.items()})


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
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"no config file {path}") from None
    except OSError as error:  # a folder, or one that may not be read
        raise ConfigError(f"config file {path}: {error.strerror}") from None
    except ValueError as error:  # a null character in the path
        raise ConfigError(f"config file {str(path)!r}: {error}") from None
    try:
        return from_dict(cls, _parse(data))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


class _Loader(yaml.SafeLoader):
    """PyYAML keeps the last of equal keys; of a user's table the others would be lost unseen."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping whose keys differ as they are written."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key, count in Counter(keys).items() if count > 1), None)
        if twice:
            line = node.start_mark.line + 1
            raise ConfigError(f"mapping of line {line}: expected each key once, got {twice[1]!r}")
        return node


def _parse(data: bytes) -> Any:
    """UTF-8 or UTF-16, whatever the locale is; ConfigError also for a key that is there twice."""
    try:
        return yaml.load(data, _Loader)
    except ConfigError:
        raise
    except RecursionError:
        raise ConfigError("is not YAML that can be read: it is nested too deeply") from None
    # PyYAML lets through what its converters of dates, numbers and explicit tags raise:
    # "2020-13-01", "!!int x", "!!bool x", "!!timestamp x"
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ConfigError(f"is not YAML: {error}") from None


def _required(cls: type) -> list[str]:
    """Fields without a default."""
    missing = dataclasses.MISSING
    fields = dataclasses.fields(cls)
    return [f.name for f in fields if f.default is missing and f.default_factory is missing]


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
            raise ConfigError(f"{where}: expected a list, got {short(value)}")
        inner = typing.get_args(hint)[0]
        return tuple(_convert(inner, v, where) for v in value)
    if hint is float:
        return _number(value, where)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise ConfigError(f"{where}: expected {hint.__name__}, got {short(value)}")
    if hint is str and "\0" in value:
        raise ConfigError(f"{where}: expected text without null characters, got {value!r}")
    return value


def _number(value: Any, where: str) -> float:
    """A finite one; integers are taken as well, unless they are too large."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with suppress(OverflowError):  # of an integer
            if math.isfinite(number := float(value)):
                return number
    raise ConfigError(f"{where}: expected a finite number, got {short(value)}")


def _class_table(rows: Any, where: str) -> ClassTable:
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f"{where}: expected a list of classes, got {short(rows)}")
    try:
        return ClassTable.from_rows(rows)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{where}: {error}") from None
