"""Reads the version from package.xml, its one place; everything else is in pyproject.toml."""

from glob import glob
from pathlib import Path
from xml.etree import ElementTree

from setuptools import setup

SHARED = ("config/models", "config/train", "models", "msg")

setup(
    version=ElementTree.parse(Path(__file__).with_name("package.xml")).findtext("version"),
    # where `shared_file` looks in an installed prefix, as colcon puts them too
    data_files=[
        (f"share/video_knet_ros/{folder}", sorted(glob(f"{folder}/*.*"))) for folder in SHARED
    ],
)
