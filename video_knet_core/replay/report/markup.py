"""HTML in which all text is escaped, unless it is HTML already."""

from __future__ import annotations

import html
from functools import lru_cache
from importlib import resources
from string import Template


class Markup(str):
    """Text that is HTML."""


def escaped(value: object) -> Markup:
    """A value as HTML; also good within the quotes of an attribute."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def joined(*parts: object) -> Markup:
    """Parts one after the other."""
    return Markup("".join(escaped(part) for part in parts))


def tag(name: str, /, *content: object, **attributes: object) -> Markup:
    """An element; of the names of attributes, `_` stands for `-` and one at the end for nothing."""
    names = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
    words = "".join(f' {key}="{escaped(value)}"' for key, value in names.items())
    return Markup(f"<{name}{words}>{joined(*content)}</{name}>")


def template(name: str, /, **values: object) -> Markup:
    """The file `name` with its `$fields` filled in."""
    return Markup(_read(name).substitute({key: escaped(v) for key, v in values.items()}))


def text_of(name: str) -> str:
    """The file `name` as it is."""
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")


@lru_cache
def _read(name: str) -> Template:
    return Template(text_of(name))
