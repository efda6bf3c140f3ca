"""The ROS 2 side of Video K-Net: a camera node and a video source.

The generated messages live in the installed package of the same name; extending the path lets a
source tree and an overlay be used together.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
