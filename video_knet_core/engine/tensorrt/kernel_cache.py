"""The kernels that TensorRT-RTX compiles for the GPU as it loads a plan, cached beside the plan."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from .plan_cache import PlanError, PlanKey, kernels_file, read_plan, write_plan

_log = logging.getLogger(__name__)


class KernelCache:
    """Compiled kernels of one engine."""

    def __init__(self, engine: Any, cache: Any, key: PlanKey, path: Path | None) -> None:
        self._engine = engine
        self._cache = cache
        self._key = key
        self._path = path
        self._saved = self._restore()

    @classmethod
    def of(cls, engine: Any, key: PlanKey, plan_path: Path | None) -> KernelCache | None:
        """None where TensorRT has no such cache."""
        if not hasattr(engine, "create_runtime_config"):
            return None
        config = engine.create_runtime_config()
        if not hasattr(config, "create_runtime_cache"):
            return None
        path = None if plan_path is None else kernels_file(plan_path)
        return cls(engine, config.create_runtime_cache(), key, path)

    def _restore(self) -> bytes:
        """Load what was cached; what does not fit is compiled again."""
        if self._path is None or not self._path.is_file():
            return b""
        try:
            cached = read_plan(self._path)[1]
        except PlanError as error:
            _log.info("compiling kernels again: %s %s", self._path, str(error))
            return b""
        if self._cache.deserialize(cached):
            return cached
        _log.info("compiling kernels again: %s is of another GPU, driver or version", self._path)
        return b""

    def context_config(self, strategy: Any) -> Any:
        """The configuration of a new context, which takes its kernels from here."""
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        config.set_runtime_cache(self._cache)
        return config

    def save(self) -> None:
        """Write what is new."""
        if self._path is None:
            return
        kernels = bytes(self._cache.serialize())
        if kernels == self._saved:
            return
        self._saved = kernels
        try:
            write_plan(self._path, self._key, kernels)
        except OSError as error:
            _log.warning("compiled kernels cannot be cached in %s: %s", self._path, str(error))
            self._path = None
