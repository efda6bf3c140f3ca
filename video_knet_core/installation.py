"""Where the files lie that come with the package but are no Python."""

from __future__ import annotations

import os
import site
import sysconfig
from pathlib import Path


def shared_file(name: str) -> Path:
    """A file beside the sources, else in the share folder of a ROS or Python prefix.

    Args:
        name: its path from the root of the sources, for example "models/street_lite0.onnx".

    Raises:
        FileNotFoundError: it is in none of them; the message lists the places.
    """
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    prefixes += [sysconfig.get_path("data"), site.getuserbase()]
    folders = [Path(__file__).resolve().parents[1]]
    folders += [Path(p) / "share/video_knet_ros" for p in dict.fromkeys(prefixes)]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    places = ", ".join(str(folder) for folder in folders)
    raise FileNotFoundError(f"the shipped file {name} is in none of: {places}")
