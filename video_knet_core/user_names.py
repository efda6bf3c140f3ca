"""Paths and topics as a user writes them.

Launch files import this with the system's Python, which may lack what the node needs: it imports
the standard library alone.
"""

from __future__ import annotations

import os


def expand(path: str) -> str:
    """A path with `~` and environment variables replaced.

    Unknown ones stay, so that the path is named when it is opened.
    """
    return os.path.expanduser(os.path.expandvars(path))


def camera_topics(image: str) -> tuple[str, str]:
    """Topics of depth and CameraInfo beside an image topic.

    Those of NAME/image_raw are NAME/depth/image_raw and NAME/camera_info.
    """
    base = image[: image.rfind("/") + 1]
    return f"{base}depth/image_raw", f"{base}camera_info"
