"""Keeps what TensorRT builds, which takes minutes: plans in files, found by what made them.

A file is a header (magic, length, JSON with the `PlanKey` and the length and SHA-256 of the rest)
and the plan. It appears whole or not at all. Processes that want the same plan at once build it
once: the others wait. Whatever is wrong with a file, the plan is built anew and a line says why.

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
import secrets
import stat
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import IO, TypeVar

from ...output_files import expanded

T = TypeVar("T")

MAGIC = b"VKNETPLN"
FORMAT = 1
KEPT_PLANS = 3
"""Plans of one model that stay when a new one is stored, that one included."""
LONGEST_HEADER = 1 << 16
WAIT_S = 0.2
"""Between two looks at whether another process has finished its build."""

_log = logging.getLogger(__name__)


class PlanError(Exception):
    """A plan cannot be used here; the message says why."""


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
        alike = replace(self, onnx_sha256="", version="")
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", self.model)[:64].lstrip(".")
        return f"{name}-{self.flavour}-{_digest(alike)[:12]}"

    @property
    def file_name(self) -> str:
        """Where the plan is kept."""
        return f"{self.family}-{_digest(self)[:16]}.plan"

    def serves(self, wanted: PlanKey) -> bool:
        """Whether a plan of this key is as good: one for more targets is."""
        return replace(self, targets=wanted.targets) == wanted and set(wanted.targets) <= set(
            self.targets
        )


def default_folder() -> Path:
    """$VIDEO_KNET_CACHE, else video_knet in $XDG_CACHE_HOME, else in ~/.cache."""
    if named := os.environ.get("VIDEO_KNET_CACHE"):
        return expanded(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "video_knet"


class EngineCache:
    """The plans in one folder, the user's if none is named."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()
        self._warned = False

    def holds(self, key: PlanKey) -> bool:
        """Whether a whole plan for `key` is there, by its header and length alone."""
        path = self.find(key)
        if path is None:
            return False
        try:
            with _open_trusted(path) as file:
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

    def obtain(
        self,
        key: PlanKey,
        build: Callable[[], bytes],
        open_plan: Callable[[bytes], T],
        waiting: Callable[[], None] = lambda: None,
    ) -> tuple[T, Path | None]:
        """Open the plan for `key`, built if it is not here or not usable.

        Args:
            key: what is wanted.
            build: makes the plan.
            open_plan: makes of the plan what is wanted; PlanError if it is not usable here.
            waiting: called now and then while another process builds; may raise to give up.

        Returns:
            What `open_plan` gave, and the plan's file; None if it could not be stored.

        Raises:
            PlanError: `open_plan` refuses the plan just built.
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
        return open_plan(plan), path

    def _load(self, key: PlanKey, open_plan: Callable[[bytes], T]) -> tuple[T, Path]:
        """PlanError says why there is no plan to be had."""
        path = self.find(key)
        if path is None:
            raise PlanError(self._why_none(key))
        try:
            found, plan = read_plan(path)
            if not found.serves(key):
                raise PlanError(f"is of {_differences(found, key)}")
            opened = open_plan(plan)
        except PlanError as error:
            raise PlanError(f"{path} {error}") from None
        with contextlib.suppress(OSError):
            os.utime(path)  # in use: the last to be cleared away
        return opened, path

    def _why_none(self, key: PlanKey) -> str:
        newest = next(self._plans(f"{key.family}-*.plan"), None)
        if newest is None:
            return f"there is none in {self.folder}"
        path, found = newest
        return f"{path} is of {_differences(found, key)}"

    def _plans(self, pattern: str) -> Iterator[tuple[Path, PlanKey]]:
        """Our files of that pattern, the last used first."""
        dated = []
        for path in self.folder.glob(pattern):
            with contextlib.suppress(OSError, PlanError), _open_trusted(path) as file:
                dated.append((os.fstat(file.fileno()).st_mtime, path, _read_header(file)[0]))
        for _, path, key in sorted(dated, key=lambda entry: entry[0], reverse=True):
            yield path, key

    def _store(self, key: PlanKey, plan: bytes) -> Path | None:
        """Write the plan and clear old ones away; a failure is told once, and there is no file."""
        path = self.folder / key.file_name
        try:
            self._make_folder()
            for partial in self.folder.glob(f".{key.family}-*.partial"):
                partial.unlink(missing_ok=True)  # of a process that died: the lock is ours
            write_plan(path, key, plan)
        except OSError as error:
            self._warn(f"the engine for {key.model} cannot be kept in {self.folder}: {error}")
            return None
        self._clear_old(key)
        return path

    def _clear_old(self, key: PlanKey) -> None:
        """Of the model's plans keep the ones last used."""
        old = [path for path, _ in self._plans(f"{key.family}-*.plan")][KEPT_PLANS:]
        for path in old:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
                kernels_file(path).unlink(missing_ok=True)
        if old:
            _log.info("cleared %d old plans of %s away, kept %d", len(old), key.model, KEPT_PLANS)

    @contextlib.contextmanager
    def _locked(self, key: PlanKey, waiting: Callable[[], None]) -> Iterator[None]:
        """Alone in building for this model; without a lock where none can be had."""
        with contextlib.ExitStack() as held:
            try:
                self._make_folder()
                descriptor = os.open(
                    self.folder / f"{key.family}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
                )
                held.callback(os.close, descriptor)
                if not _try_lock(descriptor):
                    _log.info("another process builds the engine for %s: waiting", key.model)
                    while not _try_lock(descriptor):
                        waiting()
                        time.sleep(WAIT_S)
            except OSError as error:
                self._warn(f"the engine cache {self.folder} cannot be locked: {error}")
            yield

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _warn(self, message: str) -> None:
        if not self._warned:
            _log.warning("%s; it is built anew the next time", message)
        self._warned = True


def kernels_file(plan: Path) -> Path:
    """Where the kernels that TensorRT-RTX compiles at load time are kept, beside their plan."""
    return plan.with_suffix(".kernels")


def write_plan(path: Path, key: PlanKey, payload: bytes) -> None:
    """Write a file whole or not at all, readable by the user alone; OSError if it cannot be."""
    facts = {"length": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
    header = json.dumps({"format": FORMAT, "key": asdict(key), **facts}).encode()
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(MAGIC + struct.pack("<I", len(header)) + header)
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def read_plan(path: Path) -> tuple[PlanKey, bytes]:
    """Key and content of a file; PlanError says what is wrong with it."""
    try:
        with _open_trusted(path) as file:
            key, length, sha256 = _read_header(file)
            payload = file.read()
    except OSError as error:
        raise PlanError(f"cannot be read: {error.strerror}") from None
    if len(payload) != length:
        raise PlanError(f"is damaged: its plan has {len(payload)} bytes of {length}")
    if hashlib.sha256(payload).hexdigest() != sha256:
        raise PlanError("is damaged: its plan is not the one that was written")
    return key, payload


def _open_trusted(path: Path) -> IO[bytes]:
    """Open a file that only this user or root can have written; PlanError if others could."""
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(path.open("rb"))
        status = os.fstat(file.fileno())
        writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if status.st_uid in (os.geteuid(), 0) and not writable:
            opened.pop_all()
            return file
    mode = stat.S_IMODE(status.st_mode)
    raise PlanError(
        f"is not trusted: owner {status.st_uid} and mode {mode:o}, wanted yours or root's, and no "
        "write permission for others"
    )


def _read_header(file: IO[bytes]) -> tuple[PlanKey, int, str]:
    """Key, length and SHA-256 of what follows; PlanError if it is not our header."""
    start = file.read(len(MAGIC) + 4)
    if len(start) < len(MAGIC) + 4 or not start.startswith(MAGIC):
        raise PlanError("is damaged: it does not start as a plan of video_knet")
    (size,) = struct.unpack("<I", start[len(MAGIC) :])
    if size > LONGEST_HEADER:
        raise PlanError(f"is damaged: its header claims {size} bytes")
    try:
        header = json.loads(file.read(size))
        if header["format"] != FORMAT:
            raise PlanError(f"has format {header['format']}, this version reads format {FORMAT}")
        return _key_of(header["key"]), int(header["length"]), str(header["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise PlanError(f"is damaged: its header cannot be read ({error!r})") from None


def _key_of(values: dict[str, object]) -> PlanKey:
    """JSON has lists where the key has tuples."""
    fit = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return PlanKey(**fit)  # type: ignore[arg-type]


def _differences(found: PlanKey, wanted: PlanKey) -> str:
    """For a person: what another plan has and what is wanted."""
    pairs = [(f.name, getattr(found, f.name), getattr(wanted, f.name)) for f in fields(PlanKey)]
    return ", ".join(f"{name} {a}, wanted {b}" for name, a, b in pairs if a != b)


def _digest(key: PlanKey) -> str:
    return hashlib.sha256(json.dumps(asdict(key), sort_keys=True).encode()).hexdigest()


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
