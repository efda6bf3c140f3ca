"""Versions, machine and cache."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from .. import __version__
from ..installation import has_messages_for_numpy_1, pip_install, shared_file
from .lines import ABSENT, FAULT, OK, WARNING, Lines

MIN_FREE_GB = 0.5
"""Of disks and of memory."""
PROBE_BYTES = 1 << 16
_MODULES = {"opencv-python-headless": "cv2", "pyyaml": "yaml", "nvidia-ml-py": "pynvml"}
"""Module of a distribution whose name is another one. Debian's packages have no metadata of pip."""


def versions() -> Lines:
    yield OK, f"video_knet {__version__} in {Path(__file__).parents[1]}"
    yield OK, f"Python {sys.version.split()[0]}, {sys.executable}"
    if not (requirements := _requirements()):
        yield WARNING, "minimum versions are unknown: there is no metadata of this package"
    lists: dict[str, list[str]] = {"required": [], "optional": []}
    for name, (minimum, limit, optional) in requirements.items():
        if name == "numpy" and has_messages_for_numpy_1():
            limit = "2"
        version, expected = _version_of(name), f">={minimum}" + (f",<{limit}" if limit else "")
        remedy = pip_install(f"'{name}{expected}'")
        if version is None:
            if not optional:
                yield FAULT, f"{name} is missing", remedy
        elif version and not _fits(version, minimum, limit):
            status = WARNING if optional else FAULT
            yield status, f"{name}: expected {expected}, got {version}", remedy
        else:
            kind = "optional" if optional else "required"
            lists[kind].append(f"{name} {version or '(version unknown)'}")
    for kind, found in lists.items():
        if found:
            yield OK, f"{kind}: {', '.join(found)}"


def _requirements() -> dict[str, tuple[str, str, bool]]:
    """Minimum, limit (or ""), and whether only an extra needs it, of each dependency by its name.

    From the metadata that pip installs; what colcon installs has none, but pyproject.toml.
    """
    found = [each.requires for each in metadata.distributions(name="video_knet_ros")]
    texts = next((requires for requires in found if requires), None)
    if texts is None:
        try:
            project = shared_file("pyproject.toml").read_text()
        except FileNotFoundError:
            return {}
        block = re.search(r"^dependencies = \[(.*?)^\]", project, re.MULTILINE | re.DOTALL)
        texts = re.findall(r'"(.+?)"', block[1]) if block else []
    requirements: dict[str, tuple[str, str, bool]] = {}
    for text in texts:
        spec, _, marker = text.partition(";")
        name = re.split(r"[^\w.-]", spec, maxsplit=1)[0]
        bounds = dict(re.findall(r"(>=|<)\s*([\w.]+)", spec))
        if ">=" in bounds and not re.search(r"extra == .(test|dev|docs)", marker):
            row = bounds[">="], bounds.get("<", ""), "extra" in marker
            requirements.setdefault(name, row)
    return requirements


def _version_of(name: str) -> str | None:
    """Of a distribution; "" if its module is there without metadata, None if it is missing."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        module = _MODULES.get(name, name)
        return "" if "." not in module and find_spec(module) else None


def _fits(version: str, minimum: str, limit: str) -> bool:
    """Whether `minimum` <= `version` < `limit`, by their numbers; an empty limit is none."""

    def numbers(text: str) -> tuple[int, ...]:
        match = re.match(r"\d+(\.\d+)*", text)
        parts = [int(part) for part in match[0].split(".")] if match else []
        return tuple(parts + [0] * (5 - len(parts)))

    return numbers(minimum) <= numbers(version) and (not limit or numbers(version) < numbers(limit))


# --- the machine ---------------------------------------------------------------------------------


def machine() -> Lines:
    from ..engine.cache_files import cache_folder
    from ..machine import machine_facts

    facts = machine_facts()
    board = f"{facts['board']}, " if facts["board"] else ""
    yield OK, f"{facts['system']}, {board}{facts['cpu']}, {facts['cores']} cores for this process"
    yield _memory()
    for what, folder in (("the cache", cache_folder()), ("the current folder", Path())):
        yield _free_disk(what, folder)
    gpus, reason = gpu_facts()
    for gpu in gpus:
        yield OK, f"GPU: {gpu}"
    if not gpus:
        yield ABSENT, f"NVIDIA GPU: {reason}"


def gpu_facts() -> tuple[list[str], str]:
    """Name, memory and driver of each NVIDIA GPU; or an empty list, and why there is none."""
    from ..machine import MeterUnavailableError, nvml_devices

    try:
        nvml, devices = nvml_devices()
    except MeterUnavailableError as error:
        return [], str(error)
    facts = [nvml.nvmlDeviceGetName(device) for device in devices]
    with suppress(nvml.NVMLError):  # a Jetson does not report its memory
        driver = nvml.nvmlSystemGetDriverVersion()
        memory = [nvml.nvmlDeviceGetMemoryInfo(device).total / 1e9 for device in devices]
        rows = zip(facts, memory, strict=True)
        facts = [f"{name}, {size:.0f} GB, driver {driver}" for name, size in rows]
    return facts, "" if facts else "NVML: no GPU"


def _memory() -> tuple[str, ...]:
    import psutil

    memory = psutil.virtual_memory()
    text = f"memory: {memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB available"
    if memory.available < MIN_FREE_GB * 1e9:
        return WARNING, text, "end other programs, or take a smaller model"
    return OK, text


def _free_disk(what: str, folder: Path) -> tuple[str, ...]:
    """Of the file system that holds a folder, which need not exist yet."""
    import shutil

    try:
        free = shutil.disk_usage(_existing(folder)).free
    except OSError as error:
        return WARNING, f"disk of {what}: {error}"
    text = f"disk of {what} ({folder.absolute()}): {free / 1e9:.1f} GB free"
    if free < MIN_FREE_GB * 1e9:
        return WARNING, text, "free some space: results and engines are written there"
    return OK, text


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    above = (folder.absolute(), *folder.absolute().parents)
    return next(path for path in above if path.exists())


# --- the cache -----------------------------------------------------------------------------------


def cache() -> Lines:
    from ..engine.cache_files import cache_folder

    folder = cache_folder()
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        text = (
            f"{folder} cannot be written: {error.strerror or error}; engines are measured, and "
            "built, again at every start"
        )
        yield WARNING, text, "free some space or set VIDEO_KNET_CACHE to another folder"
    else:
        yield OK, f"{folder} can be written"
