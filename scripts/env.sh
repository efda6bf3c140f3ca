# Enters the environment that `make setup` has built: source it from bash, at any place. With
# ROS=kilted, that of `make setup ROS=kilted`.
#
# Variables that are set already are respected: FASTRTPS_DEFAULT_PROFILES_FILE,
# FASTDDS_DEFAULT_PROFILES_FILE, ROS_DOMAIN_ID, ROS_AUTOMATIC_DISCOVERY_RANGE, ROS_LOCALHOST_ONLY.

_repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
_venv="$_repo/.venv" _overlay="$_repo/install"
# As scripts/setup_env.py decides: an image of ROS 2 has the variable ROS_DISTRO before anything is sourced.
if [ "${ROS:-jazzy}" != jazzy ] && { [ -z "${ROS_DISTRO:-}" ] || [ -z "${AMENT_PREFIX_PATH:-}" ]; }; then
  _venv="$_repo/.venv-$ROS" _overlay="$_venv/overlay/install"
fi

if [ ! -x "$_venv/bin/python" ] || [ ! -f "$_overlay/setup.bash" ]; then
  echo "The environment is not set up: run 'make setup${ROS:+ ROS=$ROS}' in $_repo first." >&2
  return 1
fi

export VIRTUAL_ENV="$_venv"
export PATH="$_venv/bin:$PATH"
export PYTHONNOUSERSITE=1 # a NumPy of the user's own would hide that of ROS
if [ -f "$_venv/share/rclpy/package.xml" ]; then # ROS 2 from wheels lives in the virtual environment
  export AMENT_PREFIX_PATH="$_venv"
  # The wheels set LD_LIBRARY_PATH when Python starts, unless this is set by a parent that has done so;
  # a parent of another environment has set the wrong one.
  unset _ROS_WHEELS_BOOTSTRAP_COMPLETE
fi
# shellcheck disable=SC1091
source "$_overlay/setup.bash"

# Images do not fit Fast DDS's default shared memory; the publisher needs a larger segment.
if [ -z "${FASTRTPS_DEFAULT_PROFILES_FILE:-}${FASTDDS_DEFAULT_PROFILES_FILE:-}" ]; then
  _variable=FASTRTPS_DEFAULT_PROFILES_FILE
  IFS=: read -ra _prefixes <<< "$AMENT_PREFIX_PATH"
  for _prefix in "${_prefixes[@]}"; do
    if [ -d "$_prefix/share/fastdds" ]; then # Fast DDS 3, since Kilted; before, that folder was fastrtps
      _variable=FASTDDS_DEFAULT_PROFILES_FILE
    fi
  done
  export "$_variable=$_repo/config/fastdds_large_images.xml"
fi
# Other robots and other test runs on the network are none of our business.
export ROS_AUTOMATIC_DISCOVERY_RANGE="${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}"
if [ "${ROS_DISTRO:-}" = humble ]; then # which does not have that variable
  export ROS_LOCALHOST_ONLY="${ROS_LOCALHOST_ONLY:-1}"
fi

unset _repo _venv _overlay _variable _prefix _prefixes
