"""Index files in JSON: read once, checked against the types of their rows, and kept small."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ..run_lengths import MAX_PIXELS
from .label_png import value_ranges
from .video import DatasetError

T = TypeVar("T")
ROW = ConfigDict(arbitrary_types_allowed=True, strict=False)
"""Of the rows of an index; keys that a row does not name are ignored."""
Integer = Annotated[int, Field(strict=True, ge=-(1 << 63), lt=1 << 63)]
Length = Annotated[int, Field(strict=True, ge=1)]
Text = Annotated[str, Field(strict=True)]
Flag = Annotated[bool, BeforeValidator(bool)]


@dataclass(frozen=True, slots=True, config=ROW)
class Category:
    """A row of `categories`."""

    id: Integer
    name: Text
    isthing: Flag | None = None


@dataclass(frozen=True, slots=True, config=ROW)
class ImageSize:
    """Height and width of an image or a video in pixels."""

    height: Length
    width: Length

    def __post_init__(self) -> None:
        if self.height * self.width > MAX_PIXELS:
            raise ValueError(
                f"expected up to {MAX_PIXELS} pixels, got {self.height} x {self.width}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width


def load_index(
    path: Path, rows: type[T] | Any, keep: Callable[[dict], Any] | None = None
) -> T | Any:
    """The content of a JSON file, as `rows`: a class of rows or a list of one.

    `keep` replaces each object as soon as it is read, innermost first, so that what is not needed
    is gone before the rest of a large file is read. DatasetError if the file is missing, cannot be
    read, is not JSON or does not hold `rows`.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return TypeAdapter(rows).validate_python(json.load(file, object_hook=keep))
    except FileNotFoundError:
        raise DatasetError(f"there is no index {path}") from None
    except (OSError, RecursionError) as error:  # as of a folder
        raise DatasetError(f"the index {path} cannot be read: {error}") from None
    except ValidationError as error:
        raise DatasetError(f"{path}: {_first_fault(error)}") from None
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON: {error}") from None


def categories_by_id(categories: Sequence[Category], index: Path) -> dict[int, Category]:
    """The categories by ascending id; DatasetError if two have one id."""
    found = {category.id: category for category in categories}
    if len(found) != len(categories):
        ids = sorted(category.id for category in categories)
        raise DatasetError(f"{index}: categories: expected ids that differ, got {ids[:20]}")
    return dict(sorted(found.items()))


def class_of(category: int, classes: Mapping[int, int], where: str) -> int:
    """The class id of a category; DatasetError if it is none of `classes`."""
    if category not in classes:
        raise DatasetError(
            f"{where}.category_id: expected {value_ranges(np.array(sorted(classes)))}, "
            f"got {category}"
        )
    return classes[category]


def _first_fault(error: ValidationError) -> str:
    """The first fault as "place.key: expected X, got Y"."""
    fault = error.errors(include_url=False)[0]
    place, got = [str(key) for key in fault["loc"]], repr(fault["input"])[:80]
    match fault["type"]:
        case "missing":
            reason = f"expected the key {place.pop()!r}, got {str(sorted(fault['input']))[:200]}"
        case "value_error":
            reason = str(fault["ctx"]["error"])
        case "dataclass_type":
            reason = f"expected an object, got {got}"
        case _:
            reason = f"{fault['msg'].replace('Input should be', 'expected')}, got {got}"
    return ": ".join([*filter(None, [".".join(place)]), reason])
