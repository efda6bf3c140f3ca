"""Video K-Net: online video panoptic segmentation with persistent track ids.

The core imports no ROS. Running an exported model needs numpy, OpenCV and an engine; only
`model`, `training` and `engine.export` need torch.
"""

import re
from pathlib import Path


def _version() -> str:
    """The version of package.xml: from the file in a source tree, else from what was installed."""
    package_xml = Path(__file__).parents[1] / "package.xml"
    if package_xml.is_file():
        found = re.search(r"<version>(.+?)</version>", package_xml.read_text(encoding="utf-8"))
        return found[1] if found else "unknown"
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    try:
        return version("video_knet_ros")
    except PackageNotFoundError:  # copied somewhere without its metadata
        return "unknown"


__version__ = _version()
