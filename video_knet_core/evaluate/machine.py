"""What a measurement was made on, and how much memory this process has."""

from __future__ import annotations

import os
import platform
import resource
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    *("numpy", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu", "openvino", "torch"),
    *("tensorrt", "tensorrt-rtx-cu13-bindings", "tensorrt_rtx_bindings", "cuda-bindings", "pycuda"),
)
"""Those whose version may matter to a measurement."""


def machine_facts(root: Path = Path("/")) -> dict[str, Any]:
    """Processor, GPU, versions and date, as plain values for JSON; `root` holds /proc."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "board": _board(root),
        "cpu": _cpu(root),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "gpu": _gpus(root),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def resident_bytes(root: Path = Path("/")) -> int | None:
    """Memory of this process that is in RAM now; None where `root` has no /proc/self/statm."""
    try:
        pages = int((root / "proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * resource.getpagesize()


def peak_resident_bytes() -> int:
    """The most memory that this process has had in RAM."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _cpu(root: Path) -> str:
    """Model name, or the architecture where the system does not tell (as on ARM)."""
    return _field(root / "proc/cpuinfo", "model name") or platform.machine()


def _board(root: Path) -> str | None:
    """What a single-board computer, such as a Jetson, calls itself."""
    try:
        return (root / "proc/device-tree/model").read_text().strip("\0\n ") or None
    except OSError:
        return None


def _gpus(root: Path) -> list[str]:
    """Names of the NVIDIA GPUs that the driver shows."""
    files = sorted(root.glob("proc/driver/nvidia/gpus/*/information"))
    return [name for name in (_field(path, "Model") for path in files) if name]


def _field(path: Path, key: str) -> str | None:
    """Value of the first line "key : value"."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return None
    rows = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in rows if name.strip() == key), None)


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
