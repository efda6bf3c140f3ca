"""Video K-Net: online video panoptic segmentation with ids that stay.

The core knows nothing of ROS. Running an exported model needs numpy, OpenCV and an engine; only
`model`, `training` and `engine.export` need torch.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("video_knet_ros")
except PackageNotFoundError:  # inside a colcon overlay, where package.xml holds the version
    __version__ = "unknown"
