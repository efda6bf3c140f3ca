#!/bin/bash
# Runs a command with ROS 2 and the package on its paths.
set -e
# shellcheck disable=SC1091
source /opt/video_knet/overlay/setup.bash
profile=/opt/video_knet/overlay/share/video_knet_ros/config/fastdds_large_images.xml
if [ -d "/opt/ros/$ROS_DISTRO/share/fastdds" ]; then # Fast DDS 3, since Kilted
  export FASTDDS_DEFAULT_PROFILES_FILE="${FASTDDS_DEFAULT_PROFILES_FILE:-$profile}"
else
  export FASTRTPS_DEFAULT_PROFILES_FILE="${FASTRTPS_DEFAULT_PROFILES_FILE:-$profile}"
fi
exec "$@"
