"""Parts of all launch files. Only they import it, because it needs launch and launch_ros."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_prefix, get_package_share_directory
from launch.action import Action
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.launch_context import LaunchContext
from launch.launch_description import LaunchDescription
from launch.logging import get_logger
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from video_knet_core.user_names import camera_topics, expand

from .ros_compat import PROFILES_VARIABLE, PROFILES_VARIABLES

PACKAGE = "video_knet_ros"
SHARE = Path(get_package_share_directory(PACKAGE))
BOOL = ["true", "false"]


def argument(
    name: str, default: str | None, description: str, choices: list[str] | None = None
) -> DeclareLaunchArgument:
    """An argument as `ros2 launch --show-args` lists it; without a default it is required."""
    return DeclareLaunchArgument(
        name, default_value=default, description=description, choices=choices
    )


IMAGE = argument("image", "camera/image_raw", "Image topic; with compressed, IMAGE/compressed")
ENGINE_ARGUMENTS = (
    argument("params_file", str(SHARE / "config" / "camera.yaml"), "Parameters of the camera node"),
    argument("model", "", "Name of a model, or its file; empty = as in params_file"),
    argument("backend", "", "Engine to run the model with; empty = as in params_file"),
    argument("compressed", "", "Use compressed images; empty = as in params_file", ["", *BOOL]),
)
"""For `camera_parameters`."""
SPATIAL_ARGUMENTS = (
    argument("depth", "", "Topic of depth images; empty = depth/image_raw beside the images"),
    argument("cloud", "", "Topic of point clouds; empty = none"),
    argument("camera_info", "", "Topic of the CameraInfo; empty = camera_info beside the images"),
    argument(
        "odometry", "", "Topic of the odometry; empty = odometry, or CAMERA/odometry of several"
    ),
    argument("target_frame", "", "Frame of positions, such as odom; empty = as in params_file"),
)
"""Inputs of the outputs in metres, for `input_topics`."""
SOURCES = "video file, image folder, webcam index, synthetic or synthetic:SEED"
VIDEO_ARGUMENTS = (
    argument("rate", "0.0", "Images per second of the video; 0 = each frame at its own time"),
    argument("loop", "true", "Begin the video again when it ends", BOOL),
)
"""For `video_source`."""
LEVELS = ["debug", "info", "warn", "error", "fatal"]
COMMON_ARGUMENTS = (
    argument("namespace", "", "Namespace of all nodes and relative topics"),
    argument("log_level", "info", "Minimum severity that is logged", LEVELS),
)
SIM_TIME = argument("use_sim_time", "false", "Take the time from /clock", BOOL)
"""For `node`, with `COMMON_ARGUMENTS`."""


def describe(
    arguments: Sequence[DeclareLaunchArgument], create: Callable[[dict[str, str]], Sequence[Action]]
) -> LaunchDescription:
    """All arguments, then the processes that `create` returns for their values.

    Names that are almost an argument are logged, because launch ignores them.
    """

    def processes(context: LaunchContext) -> Sequence[Action]:
        values, names = context.launch_configurations, [a.name for a in arguments]
        for name in values.keys() - set(names):
            for close in get_close_matches(name, names, n=1, cutoff=0.75):
                words = f"no argument {name!r} of this launch file; did you mean {close!r}?"
                get_logger("launch.user").warning(words)
        return create(values)

    return LaunchDescription([*arguments, OpaqueFunction(function=processes)])


def camera_parameters(args: dict[str, str]) -> list[Any]:
    """Parameter sources of a camera node for `ENGINE_ARGUMENTS`; the last one has precedence.

    Raises:
        ValueError: there is no such parameter file; launch itself would ignore it.
    """
    params_file = expand(args["params_file"])
    if not os.path.isfile(params_file):
        raise ValueError(f"params_file: expected a file, got {args['params_file']!r}")
    texts = ("model", "backend", "target_frame")
    overrides: dict[str, object] = {name: text(args[name]) for name in texts if args[name]}
    if args["compressed"]:
        overrides["compressed"] = args["compressed"] == "true"
    return [params_file, overrides]


def number(args: dict[str, str], name: str, minimum: float) -> str:
    """The value of an argument that is a number; ValueError unless it is, and not too small."""
    with suppress(ValueError):
        if minimum <= float(args[name]) < math.inf:
            return args[name]
    raise ValueError(f"{name}: expected a number, {minimum:g} or more, got {args[name]!r}")


def camera_names(value: str) -> list[str]:
    """The names of the argument `cameras`; ValueError unless they differ and can name nodes."""
    names = [name.strip() for name in value.split(",")]
    valid = all(re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) for name in names)
    if not valid or len(set(names)) < len(names):
        raise ValueError(
            "cameras: expected different names of letters, digits and _, separated by commas, "
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
            f"video: expected one source for all cameras, or one for each of {', '.join(cameras)}, "
            f"separated by commas, got {value!r}"
        )
    return sources


def video_source(
    args: dict[str, str], source: str, name: str, frame_id: str, odometry: str
) -> Node:
    """A process that plays `source` on the inputs of a camera node; ValueError for an unusable
    rate.

    Args:
        args: with the topics of this camera.
        odometry: as in `input_topics`.
    """
    parameters = {
        "source": text(source),
        "rate": float(number(args, "rate", 0)),
        "loop": args["loop"] == "true",
        "frame_id": text(frame_id),
    }
    depth, camera_info, odometry = _spatial_topics(args, odometry)
    remappings = [
        ("camera/image_raw", args["image"]),
        ("camera/depth/image_raw", depth),
        ("camera/camera_info", camera_info),
        ("odometry", odometry),
    ]
    return node(args, "video_source", name=name, parameters=[parameters], remappings=remappings)


def camera_node(args: dict[str, str]) -> Node:
    """The camera node on the topic of argument `image`."""
    return node(
        args,
        "camera_node",
        name="video_knet",
        parameters=camera_parameters(args),
        remappings=input_topics("", args, "odometry"),
    )


def input_topics(prefix: str, args: dict[str, str], odometry: str) -> list[tuple[str, str]]:
    """Remappings of the inputs of a camera node.

    Args:
        prefix: `NAME:` where a process has several nodes.
        args: with the topics of this camera: `image`, and those of `SPATIAL_ARGUMENTS`, of which
            empty ones are beside the images.
        odometry: topic of the odometry, if it is not in `args`.
    """
    image = args["image"]
    depth, camera_info, odometry = _spatial_topics(args, odometry)
    inputs = {
        "image": image,
        "image/compressed": f"{image}/compressed",
        "depth": depth,
        "depth/compressed": f"{depth}/compressedDepth",
        "depth/camera_info": camera_topics(depth)[1],
        "camera_info": camera_info,
        "odometry": odometry,
    }
    if args["cloud"]:
        inputs["cloud"] = args["cloud"]
    return [(f"{prefix}~/{name}", topic) for name, topic in inputs.items()]


def _spatial_topics(args: dict[str, str], odometry: str) -> tuple[str, str, str]:
    """Topics of depth, CameraInfo and odometry of one camera."""
    depth, camera_info = camera_topics(args["image"])
    return args["depth"] or depth, args["camera_info"] or camera_info, args["odometry"] or odometry


def node(args: dict[str, str], executable: str, package: str = PACKAGE, **options: Any) -> Node:
    """A node with the common arguments; PackageNotFoundError if its package is not installed."""
    get_package_prefix(package)  # launch itself finds out when other processes run already
    parameters = [*options.pop("parameters", []), {"use_sim_time": args["use_sim_time"] == "true"}]
    arguments = [*options.pop("arguments", []), "--ros-args", "--log-level", args["log_level"]]
    return Node(
        package=package,
        executable=executable,
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
    """Environment with a profile for Fast DDS, whose default shared memory is below one image.

    Empty with a profile of the user's own, or another middleware.
    """
    fast_dds = os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp").startswith("rmw_fastrtps")
    if not fast_dds or any(name in os.environ for name in PROFILES_VARIABLES):
        return {}
    return {PROFILES_VARIABLE: str(SHARE / "config" / "fastdds_large_images.xml")}
