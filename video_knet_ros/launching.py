"""What the launch files share. It needs launch and launch_ros, so only they import it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

PACKAGE = "video_knet_ros"
SHARE = Path(get_package_share_directory(PACKAGE))
BOOL = ["true", "false"]

Argument = tuple[str, str | None, str, list[str] | None]
"""Name, default (None = must be given), description and choices."""

ENGINE_ARGUMENTS: tuple[Argument, ...] = (
    ("params_file", str(SHARE / "config" / "camera.yaml"), "Parameters of the camera node", None),
    ("model", "", "Exported model file; empty = as in params_file", None),
    ("backend", "", "Engine to run the model with; empty = as in params_file", None),
    ("compressed", "", "Use compressed images; empty = as in params_file", ["", *BOOL]),
)
"""For the parameters of camera nodes; see `camera_parameters`."""
COMMON_ARGUMENTS: tuple[Argument, ...] = (
    ("namespace", "", "Namespace of all nodes and relative topics", None),
    (
        "log_level",
        "info",
        "Least severity that is logged",
        ["debug", "info", "warn", "error", "fatal"],
    ),
    ("use_sim_time", "false", "Take the time from /clock", BOOL),
)
"""For `node`."""


def declare(arguments: Sequence[Argument]) -> list[DeclareLaunchArgument]:
    """The arguments as `ros2 launch --show-args` lists them."""
    return [
        DeclareLaunchArgument(name, default_value=default, description=words, choices=choices)
        for name, default, words, choices in arguments
    ]


def camera_parameters(args: dict[str, str]) -> list[Any]:
    """Parameter sources of a camera node for `ENGINE_ARGUMENTS`, the last one counts most."""
    overrides: dict[str, object] = {n: text(args[n]) for n in ("model", "backend") if args[n]}
    if args["compressed"]:
        overrides["compressed"] = args["compressed"] == "true"
    return [args["params_file"], overrides]


def node(args: dict[str, str], **options: Any) -> Node:
    """A node with what all of them share."""
    parameters = [*options.pop("parameters", []), {"use_sim_time": args["use_sim_time"] == "true"}]
    arguments = [*options.pop("arguments", []), "--ros-args", "--log-level", args["log_level"]]
    return Node(
        package=options.pop("package", PACKAGE),
        namespace=args["namespace"],
        parameters=parameters,
        arguments=arguments,
        additional_env=large_image_transport(),
        output="screen",
        **options,
    )


def text(value: str) -> ParameterValue:
    """A string as it is: launch would read "0" as a number."""
    return ParameterValue(value, value_type=str)


def large_image_transport() -> dict[str, str]:
    """Fast DDS's shared memory is smaller than an image unless a profile says otherwise.

    The user's own profile, and any other middleware, are left alone.
    """
    fast_dds = os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp").startswith("rmw_fastrtps")
    variables = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    if not fast_dds or any(name in os.environ for name in variables):
        return {}
    return {variables[0]: str(SHARE / "config" / "fastdds_large_images.xml")}
