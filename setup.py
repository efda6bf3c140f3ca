"""Reads the version from package.xml, its one place; everything else is in pyproject.toml."""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import setup

setup(
    version=ElementTree.parse(Path(__file__).with_name("package.xml")).findtext("version"),
    # where `default_model_path` looks in an installed prefix, as colcon puts it too
    data_files=[("share/video_knet_ros/models", ["models/street_lite0.onnx"])],
)
