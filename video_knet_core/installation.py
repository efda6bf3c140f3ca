"""Where the files lie that come with the package but are no Python."""

from __future__ import annotations

import os
import site
import sysconfig
from collections.abc import Iterator
from importlib.metadata import EntryPoint, distributions
from importlib.util import find_spec
from pathlib import Path

SHARE = Path("share/video_knet_ros")
"""Below the prefix of an installation, by pip as by colcon."""


def shared_file(name: str) -> Path:
    """The file `name`, such as "models/street.onnx", beside the sources or as installed.

    The prefixes of the environment, in which another version may be, come after that of this
    installation. A FileNotFoundError lists the places.
    """
    folders = shared_folders()
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    places = ", ".join(str(folder) for folder in folders)
    raise FileNotFoundError(f"the shipped file {name} is in none of: {places}")


def config_file(path: Path, kind: str) -> Path:
    """The file `path` if there is one, else the shipped configuration of that name.

    That is "street_lite0" or "config/train/street_lite0.yaml" for `kind` "train", else "models". A
    FileNotFoundError lists the shipped names.
    """
    if path.exists():
        return path
    folder = Path("config", kind)
    found = (sorted((shared / folder).glob("*.yaml")) for shared in shared_folders())
    shipped = next((files for files in found if files), [])
    if path.parent in (Path(), folder):
        for file in shipped:
            if path.name in (file.name, file.stem):
                return file
    names = ", ".join(file.stem for file in shipped)
    raise FileNotFoundError(f"no configuration {path}: expected a file or one of {names}")


def shared_folders() -> list[Path]:
    """Where shared files may be, those of this version first."""
    return list(dict.fromkeys(_folders()))


def plugins(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group, by name, of all installed packages.

    `importlib.metadata.entry_points` leaves out those of a distribution that precedes another one
    of the same name. colcon installs such metadata, without entry points, with the messages.
    """
    found = [point for each in distributions() for point in each.entry_points.select(group=group)]
    return {point.name: point for point in reversed(found)}  # what precedes wins


def has_messages_for_numpy_1() -> bool:
    """Whether ROS 2 comes from apt, of a distribution for Ubuntu 22.04 or 24.04."""
    found = find_spec("rclpy")
    places = [f"/opt/ros/{distro}/" for distro in ("humble", "jazzy", "kilted")]
    return found is not None and str(found.origin).startswith(tuple(places))


def pip_install(requirement: str) -> str:
    """The command that installs a requirement, and leaves the NumPy of ROS 2 as it is."""
    limit = "'numpy<2' " if has_messages_for_numpy_1() and "numpy" not in requirement else ""
    return f"pip install {limit}{requirement}"


def _folders() -> Iterator[Path]:
    sources = Path(__file__).resolve().parents[1]
    if (sources / "package.xml").is_file():
        yield sources
    prefixes = [prefix for prefix in (sources, *sources.parents) if (prefix / SHARE).is_dir()]
    prefixes += [Path(sysconfig.get_path("data")), Path(site.getuserbase())]
    ament = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    prefixes += [Path(prefix) for prefix in ament if prefix]
    yield from (prefix / SHARE for prefix in prefixes)
