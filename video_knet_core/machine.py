"""The machine of a measurement: its parts, memory of this process, and meters of its energy."""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Callable
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import psutil

_PACKAGES = (
    *("numpy", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu", "openvino", "torch"),
    *("tensorrt", "tensorrt-rtx-cu13-bindings", "tensorrt_rtx_bindings", "cuda-bindings", "pycuda"),
)
"""Those whose version may matter to a measurement."""


def machine_facts(root: Path = Path("/")) -> dict[str, Any]:
    """Processor, GPU, versions and date, as plain values for JSON; `root` holds /proc."""
    process, versions = psutil.Process(), {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "board": _text(root / "proc/device-tree/model").strip("\0\n ") or None,
        "cpu": _cpu(root),
        "cores": len(process.cpu_affinity()) if psutil.LINUX else psutil.cpu_count(),
        "gpu": _gpus(),
        "versions": versions,
    }


def resident_bytes() -> int:
    """Memory of this process that is in RAM now."""
    resident: int = psutil.Process().memory_info().rss
    return resident


def peak_resident_bytes() -> int:
    """The most memory that this process has had in RAM."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class MeterUnavailableError(Exception):
    """No energy meter is available here; the message has the reason."""


class EnergyMeter(Protocol):
    """Counts joules of the whole machine, not of this process, from an arbitrary zero."""

    name: str

    def joules(self) -> float:
        """Energy so far."""
        ...


def open_meter(
    root: Path = Path("/sys"), clock: Callable[[], float] = time.monotonic
) -> tuple[EnergyMeter | None, str]:
    """The first meter that works here; or None, and why there is none."""
    reasons = []
    openers: tuple[Callable[[], EnergyMeter], ...] = (
        lambda: _JetsonMeter(root, clock),
        _NvidiaMeter,
        lambda: _ProcessorMeter(root),
    )
    for opener in openers:
        try:
            return opener(), ""
        except MeterUnavailableError as reason:
            reasons.append(str(reason))
    return None, f"energy meter unavailable: {'; '.join(reasons)}"


class _ProcessorMeter:
    """RAPL of Intel's and AMD's processors: the packages, without the GPU."""

    name = "processor package (RAPL)"

    def __init__(self, root: Path) -> None:
        folders = sorted((root / "class/powercap").glob("intel-rapl:[0-9]*"))
        # intel-rapl:0:1 is a part of intel-rapl:0
        self._folders = [path for path in folders if path.name.count(":") == 1]
        if not self._folders:
            raise MeterUnavailableError("no RAPL in /sys/class/powercap")
        try:
            self._last = self._read()
            self._ranges = [_number(path / "max_energy_range_uj") for path in self._folders]
        except OSError as error:
            raise MeterUnavailableError(f"RAPL cannot be read ({error}); root may") from None
        self._microjoules = 0

    def joules(self) -> float:
        """Energy since the meter was opened."""
        now = self._read()
        for new, old, limit in zip(now, self._last, self._ranges, strict=True):
            self._microjoules += (new - old) % limit  # it wraps around
        self._last = now
        return self._microjoules * 1e-6

    def _read(self) -> list[int]:
        return [_number(path / "energy_uj") for path in self._folders]


class _JetsonMeter:
    """The supplies of a Jetson's module (INA3221).

    They measure power: between two readings the later one is taken to have held.
    """

    name = "module (INA3221)"

    def __init__(self, root: Path, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._channels = _supplies(root)
        if not self._channels:
            raise MeterUnavailableError("no INA3221 in /sys/class/hwmon")
        self._joules = 0.0
        self._last = clock()

    def joules(self) -> float:
        """Energy since the meter was opened."""
        now = self._clock()
        watts = sum(
            _number(folder / f"in{channel}_input") * _number(folder / f"curr{channel}_input") * 1e-6
            for folder, channel in self._channels
        )
        self._joules += watts * (now - self._last)
        self._last = now
        return self._joules


class _NvidiaMeter:
    """The GPUs, by NVML."""

    name = "GPU (NVML)"

    def __init__(self) -> None:
        self._nvml, self._devices = nvml_devices()
        try:
            self.joules()
        except self._nvml.NVMLError as error:
            raise MeterUnavailableError(f"NVML: {error}") from None

    def joules(self) -> float:
        read = self._nvml.nvmlDeviceGetTotalEnergyConsumption
        return sum(read(device) for device in self._devices) * 1e-3


def nvml_devices() -> tuple[Any, list[Any]]:
    """The module pynvml and a handle of each GPU; MeterUnavailableError without NVML."""
    try:
        import pynvml
    except ImportError:
        raise MeterUnavailableError("no NVML: pip install nvidia-ml-py") from None
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        return pynvml, [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
    except pynvml.NVMLError as error:
        raise MeterUnavailableError(f"NVML: {error}") from None


def _gpus() -> list[str]:
    """Names of the NVIDIA GPUs."""
    try:
        nvml, devices = nvml_devices()
    except MeterUnavailableError:
        return []
    return [nvml.nvmlDeviceGetName(device) for device in devices]


def _cpu(root: Path) -> str:
    """Model name, or the architecture where the system has none (as on ARM)."""
    rows = (line.partition(":") for line in _text(root / "proc/cpuinfo").splitlines())
    names = (value.strip() for name, _, value in rows if name.strip() == "model name")
    return next(names, platform.machine())


def _supplies(root: Path) -> list[tuple[Path, str]]:
    """Folder and channel of the supply of everything, or of all the parts if there is none."""
    channels = {}
    for name in sorted(root.glob("class/hwmon/hwmon*/name")):
        if name.read_text().strip() != "ina3221":
            continue
        for label in sorted(name.parent.glob("in*_label")):
            channel = label.name.removeprefix("in").removesuffix("_label")
            if (name.parent / f"curr{channel}_input").exists():  # not a sum of voltages
                channels[label.read_text().strip()] = name.parent, channel
    return [channels["VDD_IN"]] if "VDD_IN" in channels else list(channels.values())


def _number(path: Path) -> int:
    return int(path.read_text())


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
