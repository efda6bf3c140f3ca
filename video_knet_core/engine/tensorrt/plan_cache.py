"""A cache of TensorRT plans, which take minutes to build: files, found by what made them.

A file is a header (magic, length, JSON with the `PlanKey` and the length and SHA-256 of the rest)
and the plan. It appears whole or not at all. Processes that need the same plan at once build it
once: the others wait. Whatever is wrong with a file, the plan is rebuilt and the reason logged.

A plan is code for the GPU, so that a file which another user could have written is not read.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import IO, Any, TypeVar

from ..cache_files import (
    UntrustedError,
    cache_folder,
    make_cache_folder,
    open_trusted,
    replacing_whole,
)

T = TypeVar("T")

MAX_PLANS = 3
"""Plans of one model that stay in the cache, the newest included."""
KERNELS_SUFFIX = ".kernels"
"""Of the file with the kernels that TensorRT-RTX compiles at load time, beside their plan."""
_MAGIC = b"VKNETPLN"
_FORMAT = 1
_MAX_HEADER_BYTES = 1 << 16
_WAIT_S = 0.2
"""Between two checks whether another process has finished its build."""

_log = logging.getLogger(__name__)


class PlanError(Exception):
    """A plan cannot be used here; the message has the reason."""


@dataclass(frozen=True)
class PlanKey:
    """All that a plan depends on."""

    model: str
    """Name of the model."""
    onnx_sha256: str
    flavour: str
    version: str
    """Of the flavour."""
    gpu: str
    """Name of the GPU it was tuned on; empty for TensorRT-RTX, which finishes at load time."""
    targets: tuple[str, ...]
    """Compute capabilities it runs on, for example ("sm86", "sm89")."""
    precision: str
    shape: tuple[int, ...]
    """Of the image."""

    @property
    def family(self) -> str:
        """Starts the name of every file for this model, whatever its weights and the version."""
        shared = replace(self, onnx_sha256="", version="")
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", self.model)[:64].lstrip(".")
        return f"{name}-{self.flavour}-{_digest(shared)[:12]}"

    @property
    def file_name(self) -> str:
        """The file of the plan."""
        return f"{self.family}-{_digest(self)[:16]}.plan"

    def serves(self, other: PlanKey) -> bool:
        """Whether a plan of this key can be used for `other`: one for more targets can."""
        same = replace(self, targets=other.targets) == other
        return same and set(other.targets) <= set(self.targets)


class PlanCache:
    """The plans in one folder, by default `cache_folder()`."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder()
        self._warned = False

    def contains(self, key: PlanKey) -> bool:
        """Whether a complete plan for `key` is there, by its header and length alone."""
        path = self.find(key)
        if path is None:
            return False
        try:
            with open_trusted(path) as file:
                found, length, _ = _read_header(file)
                return found.serves(key) and file.tell() + length == path.stat().st_size
        except (PlanError, OSError):
            return False

    def find(self, key: PlanKey) -> Path | None:
        """The file that should hold a plan for `key`, or else one for more targets."""
        path = self.folder / key.file_name
        if path.is_file():
            return path
        others = (other for other, found in self._plans("*.plan") if found.serves(key))
        return next(others, None)

    def get_or_build(
        self,
        key: PlanKey,
        build: Callable[[], bytes],
        open_plan: Callable[[bytes, Path | None], T],
        waiting: Callable[[], object] = lambda: None,
    ) -> T:
        """Open the plan for `key`, built if it is not here or not usable.

        Args:
            key: of the plan.
            build: makes the plan.
            open_plan: deserializes the plan, given its file too, None if it could not be stored;
                PlanError if the plan is not usable here.
            waiting: called repeatedly while another process builds; may raise to stop waiting.

        Raises:
            PlanError: `open_plan` rejects the plan just built.
        """
        with contextlib.suppress(PlanError):
            return self._load(key, open_plan)
        with self._locked(key, waiting):
            try:  # again: another process may have built it while this one waited
                return self._load(key, open_plan)
            except PlanError as error:
                _log.info("building an engine for %s: %s", key.model, str(error))
            plan = build()
            path = self._store(key, plan)
        return open_plan(plan, path)

    def _load(self, key: PlanKey, open_plan: Callable[[bytes, Path | None], T]) -> T:
        """Open the cached plan; PlanError with the reason if there is none to use."""
        path = self.find(key)
        if path is None:
            raise PlanError(self._miss_reason(key))
        try:
            found, plan = read_plan(path)
            if not found.serves(key):
                raise PlanError(f"is another plan: {_differences(found, key)}")
            opened = open_plan(plan, path)
        except PlanError as error:
            raise PlanError(f"{path} {error}") from None
        with contextlib.suppress(OSError):
            os.utime(path)  # in use: the last to be evicted
        return opened

    def _miss_reason(self, key: PlanKey) -> str:
        for path, found in self._plans(f"{key.family}-*.plan"):
            return f"{path} is another plan: {_differences(found, key)}"
        return f"there is none in {self.folder}"

    def _plans(self, pattern: str) -> Iterator[tuple[Path, PlanKey]]:
        """Our files of that pattern, the last used first."""
        dated = []
        for path in self.folder.glob(pattern):
            with contextlib.suppress(OSError, PlanError), open_trusted(path) as file:
                dated.append((os.fstat(file.fileno()).st_mtime, path, _read_header(file)[0]))
        for _, path, key in sorted(dated, key=lambda entry: entry[0], reverse=True):
            yield path, key

    def _store(self, key: PlanKey, plan: bytes) -> Path | None:
        """Write the plan and evict old ones; None, with one warning, if it cannot be written."""
        path = self.folder / key.file_name
        try:
            make_cache_folder(self.folder)
            for partial in self.folder.glob(f".{key.family}-*.partial"):
                partial.unlink(missing_ok=True)  # of a process that died: the lock is ours
            write_plan(path, key, plan)
        except OSError as error:
            self._warn(f"the engine for {key.model} cannot be cached in {self.folder}: {error}")
            return None
        old = [path for path, _ in self._plans(f"{key.family}-*.plan")][MAX_PLANS:]
        for evicted in old:
            with contextlib.suppress(OSError):
                evicted.unlink(missing_ok=True)
                evicted.with_suffix(KERNELS_SUFFIX).unlink(missing_ok=True)
        if old:
            _log.info("evicted %d old plans of %s, %d stay", len(old), key.model, MAX_PLANS)
        return path

    @contextlib.contextmanager
    def _locked(self, key: PlanKey, waiting: Callable[[], object]) -> Iterator[None]:
        """Only one process builds for this model; without a lock where there is none."""
        with contextlib.ExitStack() as held:
            try:
                make_cache_folder(self.folder)
                path = self.folder / f"{key.family}.lock"
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                held.callback(os.close, descriptor)
                if not _try_lock(descriptor):
                    _log.info("another process builds the engine for %s: waiting", key.model)
                    while not _try_lock(descriptor):
                        waiting()
                        time.sleep(_WAIT_S)
            except OSError as error:
                self._warn(f"the engine cache {self.folder} cannot be locked: {error}")
            yield

    def _warn(self, message: str) -> None:
        if not self._warned:
            _log.warning("%s; it is rebuilt the next time", message)
        self._warned = True


def write_plan(path: Path, key: PlanKey, payload: bytes) -> None:
    """Write a file atomically, readable by the user alone; OSError if it cannot be."""
    facts = {"length": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
    header = json.dumps({"format": _FORMAT, "key": asdict(key), **facts}).encode()
    with replacing_whole(path) as file:
        file.write(_MAGIC + struct.pack("<I", len(header)) + header)
        file.write(payload)


def read_plan(path: Path) -> tuple[PlanKey, bytes]:
    """Key and content of a file; PlanError with what is wrong with it."""
    try:
        with open_trusted(path) as file:
            key, length, sha256 = _read_header(file)
            payload = file.read()
    except UntrustedError as error:
        raise PlanError(str(error)) from None
    except OSError as error:
        raise PlanError(f"cannot be read: {error.strerror}") from None
    if len(payload) != length:
        raise PlanError(f"is damaged: its plan has {len(payload)} bytes of {length}")
    if hashlib.sha256(payload).hexdigest() != sha256:
        raise PlanError("is damaged: its plan is not the one that was written")
    return key, payload


def _read_header(file: IO[bytes]) -> tuple[PlanKey, int, str]:
    """Key, length and SHA-256 of what follows; PlanError if it is not our header."""
    start = file.read(len(_MAGIC) + 4)
    if len(start) < len(_MAGIC) + 4 or not start.startswith(_MAGIC):
        raise PlanError("is damaged: it does not start as a plan of video_knet")
    (size,) = struct.unpack("<I", start[len(_MAGIC) :])
    if size > _MAX_HEADER_BYTES:
        raise PlanError(f"is damaged: its header is {size} bytes long")
    try:
        header = json.loads(file.read(size))
        if header["format"] != _FORMAT:
            raise PlanError(f"has another format: expected {_FORMAT}, got {header['format']}")
        key: dict[str, Any] = header["key"]
        tuples = {name: tuple(key[name]) for name in ("targets", "shape")}  # lists in JSON
        return PlanKey(**key | tuples), int(header["length"]), str(header["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise PlanError(f"is damaged: its header cannot be read ({error!r})") from None


def _differences(got: PlanKey, expected: PlanKey) -> str:
    """For a person: each field that differs."""
    pairs = [(f.name, getattr(expected, f.name), getattr(got, f.name)) for f in fields(PlanKey)]
    return ", ".join(f"expected {name} {a}, got {b}" for name, a, b in pairs if a != b)


def _digest(key: PlanKey) -> str:
    return hashlib.sha256(json.dumps(asdict(key), sort_keys=True).encode()).hexdigest()


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
