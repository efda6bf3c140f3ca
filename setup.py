"""Reads the version from package.xml, its one place; everything else is in pyproject.toml."""

import re
from glob import glob
from pathlib import Path
from xml.etree import ElementTree

from setuptools import setup

HERE = Path(__file__).parent
SHARED = ("config/models", "config/train", "models", "msg")
PROJECT = "https://github.com/video-knet-ros/video_knet_ros"

version = ElementTree.parse(HERE / "package.xml").findtext("version")


def absolute_link(link: re.Match) -> str:
    """A relative link of the README, which leads nowhere on PyPI, as one into the repository."""
    kind = "raw" if link[1].endswith(".webp") else "blob"
    return f"]({PROJECT}/{kind}/v{version}/{link[1]})"


setup(
    version=version,
    long_description=re.sub(
        r"\]\((?!https?://|#)([^)\s]+)\)",
        absolute_link,
        (HERE / "README.md").read_text(encoding="utf-8"),
    ),
    long_description_content_type="text/markdown",
    # where `shared_file` looks in an installed prefix, as colcon puts them too
    data_files=[
        (f"share/video_knet_ros/{folder}", sorted(glob(f"{folder}/*.*"))) for folder in SHARED
    ],
)
