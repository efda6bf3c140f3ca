"""How fast the engines of a model are on this machine, and a cache of what was measured.

Times are cached with all they depend on: the model, the threads, the candidates, the machine and
the versions of its libraries (`machine_facts`). When one of them changes, the engines are measured
again. The same times give the same choice, so that two programs on one machine take one engine.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..machine import machine_facts
from .base import Runtime, Size
from .cache_files import cache_folder, make_cache_folder, open_trusted, replacing_whole
from .self_test import synthetic_frames

_FORMAT = 1
_ROUNDS = 8
"""Steps of each engine that count; one before them does not."""
_MIN_ROUNDS, _MAX_S = 2, 1.0
"""No further round begins after that time, but for the first ones."""
_MUCH_SLOWER = 3.0
"""An engine that takes so many times as long as the fastest is not measured any longer."""
_CLEARLY_FASTER = 0.9
"""Fraction of the time of the engine before: less of a gain may be chance."""

Times = dict[str, float]
"""Milliseconds of a step by the backend's name."""

_log = logging.getLogger(__name__)


def measure(engines: Mapping[str, Runtime]) -> Times:
    """Median of some steps of each, on `synthetic_frames`, all in turn.

    So a machine that is busy is so for all of them. An engine whose step fails is left out.
    """
    info = next(iter(engines.values())).info
    images = synthetic_frames(info.height, info.width)
    states: dict[str, Any] = dict.fromkeys(engines)
    steps: dict[str, list[float]] = {name: [] for name in engines}
    end = time.perf_counter() + _MAX_S
    for number in range(1 + _ROUNDS):
        if number > _MIN_ROUNDS and time.perf_counter() > end:
            break
        limit = _MUCH_SLOWER * min(_medians(steps).values(), default=math.inf)
        for name in list(steps):
            if number > _MIN_ROUNDS and statistics.median(steps[name][1:]) > limit:
                continue
            start = time.perf_counter()
            try:
                _, states[name] = engines[name].step(images[number % len(images)], states[name])
            except Exception as error:  # of many libraries
                _log.warning("%s: a step failed: %s", name, str(error) or type(error).__name__)
                del steps[name]
                continue
            steps[name].append(1e3 * (time.perf_counter() - start))
    return _medians(steps)


def _medians(steps: Mapping[str, Sequence[float]]) -> Times:
    """Without the first step of each, which warms up."""
    return {name: statistics.median(times[1:]) for name, times in steps.items() if times[1:]}


def fastest(times: Times, names: Sequence[str]) -> str:
    """The first of `names` that no later one beats clearly; those without a time do not count."""
    first, *others = [name for name in names if name in times] or names[:1]
    for name in others:
        if times[name] < _CLEARLY_FASTER * times[first]:
            first = name
    return first


def text(times: Times) -> str:
    """For the log."""
    return ", ".join(f"{name} {value:.1f} ms" for name, value in times.items())


class MeasuredTimes:
    """The file of the times of some backends with one model at one of its native sizes, or the
    first, in `cache_folder`."""

    def __init__(
        self, model: Path, threads: int, names: Sequence[str], size: Size | None = None
    ) -> None:
        machine = machine_facts()
        del machine["date"]
        self._names = names
        self._key = {
            "model": hashlib.sha256(model.read_bytes()).hexdigest(),
            "size": size,
            "threads": threads,
            "backends": list(names),
            **machine,
        }
        digest = hashlib.sha256(json.dumps([_FORMAT, self._key]).encode()).hexdigest()
        self._path = cache_folder() / f"times-{digest[:24]}.json"

    def read(self) -> Times:
        """What was measured; empty if nothing was, or it cannot be used, which is logged."""
        try:
            with open_trusted(self._path) as file:
                times = json.load(file)["milliseconds"]
            if not (times and set(times) <= set(self._names)):
                raise ValueError(f"expected some of {list(self._names)}, got {times}")
            return {str(name): float(value) for name, value in times.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("measured again, as %s cannot be used: %s", self._path, error)
            return {}

    def write(self, times: Times) -> Times:
        """Store what was measured, and return what counts.

        That is what another process has stored meanwhile, unless it lacks an engine.
        """
        stored = self.read()
        if set(stored) >= set(times):
            return stored
        text = json.dumps({"milliseconds": times, **self._key}, indent=1) + "\n"
        try:
            make_cache_folder(self._path.parent)
            with replacing_whole(self._path) as file:
                file.write(text.encode())
        except OSError as error:
            _log.warning("measured again the next time, as times cannot be cached: %s", error)
        return times
