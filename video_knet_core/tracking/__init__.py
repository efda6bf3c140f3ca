"""Trackers: each module here registers its own; `build_tracker` makes one from its settings.

A package adds trackers with an entry point of the group `video_knet_core.trackers` that names a
module which registers them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from ..config_io import ConfigError, described, from_dict
from ..installation import plugins
from .embedding import EmbeddingSettings
from .tracker import TRACKERS, Tracker, TrackerSettings

_log = logging.getLogger(__name__)
ENTRY_POINTS = "video_knet_core.trackers"
DEFAULT_TRACKER = EmbeddingSettings.tracker

for _name in (
    *(f"{__name__}.{module.name}" for module in iter_modules(__path__)),
    *sorted(found.value for found in plugins(ENTRY_POINTS).values()),
):
    try:
        import_module(_name)
    except Exception as _error:  # a custom tracker, or a file left by an earlier version
        _log.warning("no trackers of %s: %s: %s", _name, type(_error).__name__, _error)


def tracker_settings(tracker: str = DEFAULT_TRACKER, **values: Any) -> TrackerSettings:
    """Settings of a tracker by its name, as the node parameters `tracking.*` and the CLI give them.

    Raises:
        ConfigError: there is no such tracker, or it has no such setting or value.
    """
    if tracker not in TRACKERS:
        near = get_close_matches(str(tracker), TRACKERS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"tracker: expected one of {list(TRACKERS)}, got {tracker!r}{hint}")
    settings: TrackerSettings = from_dict(TRACKERS[tracker].Settings, values)
    return settings


@dataclass(frozen=True)
class TrackerSetting:
    """A setting that one or more trackers have, described once for all user interfaces."""

    default: Any
    description: str
    range: tuple[float, float] | None
    """Both ends included; None for a bool."""
    trackers: tuple[str, ...]
    """Names of those that have it."""


def all_settings() -> dict[str, TrackerSetting]:
    """The settings of all trackers by name: a name means the same for each that has it.

    TypeError if it does not.
    """
    found: dict[str, TrackerSetting] = {}
    for name, tracker in TRACKERS.items():
        for key, field in described(tracker.Settings).items():
            others = found[key].trackers if key in found else ()
            setting = TrackerSetting(field.default, field.description, field.range, (*others, name))
            if others and replace(setting, trackers=others) != (expected := found[key]):
                raise TypeError(
                    f"setting {key} of tracker {name}: expected default, range and description of "
                    f"that of {others[0]}, {_facts(expected)}, got {_facts(setting)}; or rename it"
                )
            found[key] = setting
    return found


def _facts(setting: TrackerSetting) -> tuple[Any, ...]:
    return setting.default, setting.range, setting.description


def build_tracker(settings: TrackerSettings | None = None) -> Tracker:
    """The tracker of these settings; by default the one of association embeddings.

    Raises:
        ConfigError: it needs a package that is missing.
    """
    settings = settings or EmbeddingSettings()
    return TRACKERS[settings.tracker](settings)
