"""What the launch files share. It needs launch and launch_ros, so only they import it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_prefix, get_package_share_directory
from launch.actions import DeclareLaunchArgument
from launch.logging import get_logger
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from .process import expand

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
SOURCES = "video file, image folder, webcam index, synthetic or synthetic:SEED"
VIDEO_ARGUMENTS: tuple[Argument, ...] = (
    ("rate", "0.0", "Images per second of the video; 0 = each frame at its own time", None),
    ("loop", "true", "Begin the video again when it ends", BOOL),
)
"""For `video_source`."""
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
    """Parameter sources of a camera node for `ENGINE_ARGUMENTS`, the last one counts most.

    Raises:
        ValueError: there is no such parameter file; launch itself would leave it out.
    """
    params_file = expand(args["params_file"])
    if not os.path.isfile(params_file):
        raise ValueError(f"params_file must be a file, got {args['params_file']!r}")
    overrides: dict[str, object] = {n: text(args[n]) for n in ("model", "backend") if args[n]}
    if args["compressed"]:
        overrides["compressed"] = args["compressed"] == "true"
    return [params_file, overrides]


def warn_of_unknown(args: dict[str, str], arguments: Sequence[Argument]) -> None:
    """Log arguments that are not of this launch file, but almost: launch ignores them."""
    names = [name for name, *_ in arguments]
    for name in args.keys() - set(names):
        for close in get_close_matches(name, names, n=1, cutoff=0.75):
            logger = get_logger("launch.user")
            logger.warning(f"no argument {name!r} of this launch file: is {close!r} meant?")


def number(args: dict[str, str], name: str, minimum: float) -> str:
    """The value of an argument that is a number; ValueError unless it is, and not too small."""
    with suppress(ValueError):
        if minimum <= float(args[name]) < math.inf:
            return args[name]
    raise ValueError(f"{name} must be a number, {minimum:g} or more, got {args[name]!r}")


def camera_names(value: str) -> list[str]:
    """The names of the argument `cameras`; ValueError unless they differ and can name nodes."""
    names = [name.strip() for name in value.split(",")]
    valid = all(re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) for name in names)
    if not valid or len(set(names)) < len(names):
        raise ValueError(
            "cameras must be different names of letters, digits and _, with commas between, "
            f"got {value!r}"
        )
    return names


def video_for_each(value: str, cameras: Sequence[str]) -> list[str]:
    """The sources of the argument `video`, one for each camera; ValueError if they are too few."""
    sources = [source.strip() for source in value.split(",")]
    if len(sources) == 1:
        sources *= len(cameras)
    if len(sources) != len(cameras):
        raise ValueError(
            f"video must be one source for all cameras, or one for each of {', '.join(cameras)} "
            f"with commas between, got {value!r}"
        )
    return sources


def video_source(args: dict[str, str], source: str, topic: str, name: str, frame_id: str) -> Node:
    """A process that plays `source` as the camera on `topic`; ValueError for an unusable rate."""
    parameters = {
        "source": text(source),
        "rate": float(number(args, "rate", 0)),
        "loop": args["loop"] == "true",
        "frame_id": text(frame_id),
    }
    return node(
        args,
        executable="video_source",
        name=name,
        parameters=[parameters],
        remappings=[("camera/image_raw", topic)],
    )


def camera_node(args: dict[str, str]) -> Node:
    """The camera node on the topic of argument `image`."""
    return node(
        args,
        executable="camera_node",
        name="video_knet",
        parameters=camera_parameters(args),
        remappings=[
            ("~/image", args["image"]),
            ("~/image/compressed", f"{args['image']}/compressed"),
        ],
    )


def node(args: dict[str, str], **options: Any) -> Node:
    """A node with what all of them share; PackageNotFoundError if its package is not installed."""
    package = options.pop("package", PACKAGE)
    get_package_prefix(package)  # launch finds out later, when other processes run, and leaves them
    parameters = [*options.pop("parameters", []), {"use_sim_time": args["use_sim_time"] == "true"}]
    arguments = [*options.pop("arguments", []), "--ros-args", "--log-level", args["log_level"]]
    return Node(
        package=package,
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
