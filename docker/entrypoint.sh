#!/bin/bash
# Runs a command with ROS 2 and the package on its paths.
set -e
# shellcheck disable=SC1091
source /opt/video_knet/overlay/setup.bash
exec "$@"
