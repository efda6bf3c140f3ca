"""Energy that the machine says it has used: everything on it, not this program alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol


class NoMeter(Exception):
    """This machine does not tell; the message says why."""


class EnergyMeter(Protocol):
    """Counts joules from an arbitrary zero."""

    name: str

    def joules(self) -> float:
        """Energy so far."""
        ...


def open_meter(root: Path = Path("/sys")) -> EnergyMeter:
    """The first meter that works here; NoMeter with the reasons if there is none."""
    reasons = []
    openers: tuple[Callable[[], EnergyMeter], ...] = (
        lambda: JetsonMeter(root),
        NvidiaMeter,
        lambda: ProcessorMeter(root),
    )
    for opener in openers:
        try:
            return opener()
        except NoMeter as reason:
            reasons.append(str(reason))
    raise NoMeter("; ".join(reasons))


class ProcessorMeter:
    """RAPL of Intel's and AMD's processors: the packages, without the GPU."""

    name = "processor package (RAPL)"

    def __init__(self, root: Path = Path("/sys")) -> None:
        folders = sorted((root / "class/powercap").glob("intel-rapl:[0-9]*"))
        # intel-rapl:0:1 is a part of intel-rapl:0
        self._folders = [path for path in folders if path.name.count(":") == 1]
        if not self._folders:
            raise NoMeter("no RAPL in /sys/class/powercap")
        try:
            self._last = self._read()
            self._ranges = [_number(path / "max_energy_range_uj") for path in self._folders]
        except OSError as error:
            raise NoMeter(f"RAPL cannot be read ({error}); root may") from None
        self._microjoules = 0

    def joules(self) -> float:
        """Energy since the meter was opened."""
        now = self._read()
        for new, old, limit in zip(now, self._last, self._ranges, strict=True):
            self._microjoules += new - old if new >= old else new - old + limit  # it starts anew
        self._last = now
        return self._microjoules * 1e-6

    def _read(self) -> list[int]:
        return [_number(path / "energy_uj") for path in self._folders]


class NvidiaMeter:
    """The GPUs, by NVML."""

    name = "GPU (NVML)"

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError:
            raise NoMeter("no NVML: pip install nvidia-ml-py") from None
        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
            self._devices = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
            self.joules()
        except pynvml.NVMLError as error:
            raise NoMeter(f"NVML: {error}") from None

    def joules(self) -> float:
        """Energy since the driver was loaded."""
        read = self._nvml.nvmlDeviceGetTotalEnergyConsumption
        return sum(read(device) for device in self._devices) * 1e-3


class JetsonMeter:
    """The supplies of a Jetson's module (INA3221). They tell power: between two readings the later
    one is taken to have held."""

    name = "module (INA3221)"

    def __init__(self, root: Path = Path("/sys"), clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._channels = _supplies(root)
        if not self._channels:
            raise NoMeter("no INA3221 in /sys/class/hwmon")
        self._joules = 0.0
        self._last = clock()

    def joules(self) -> float:
        """Energy since the meter was opened."""
        now = self._clock()
        self._joules += self._watts() * (now - self._last)
        self._last = now
        return self._joules

    def _watts(self) -> float:
        return sum(
            _number(folder / f"in{channel}_input") * _number(folder / f"curr{channel}_input") * 1e-6
            for folder, channel in self._channels
        )


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
