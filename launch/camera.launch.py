"""Start the camera node, and with `video:=...` a source that plays a video as a camera.

ros2 launch video_knet_ros camera.launch.py image:=/front/image_raw
ros2 launch video_knet_ros camera.launch.py video:=street.mp4 rviz:=true
"""

from __future__ import annotations

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

PACKAGE = "video_knet_ros"
SHARE = Path(get_package_share_directory(PACKAGE))
BOOL = ["true", "false"]
LEVELS = ["debug", "info", "warn", "error", "fatal"]
SOURCES = "video file, image folder, webcam index, synthetic or synthetic:SEED"
ARGUMENTS: tuple[tuple[str, str, str, list[str] | None], ...] = (
    ("image", "camera/image_raw", "Image topic; with compressed, IMAGE/compressed is used", None),
    ("params_file", str(SHARE / "config" / "camera.yaml"), "Parameters of the camera node", None),
    ("model", "", "Exported model file; empty = as in params_file", None),
    ("backend", "", "Engine to run the model with; empty = as in params_file", None),
    ("compressed", "", "Use compressed images; empty = as in params_file", ["", *BOOL]),
    ("video", "", f"Also play this as a camera: {SOURCES}; empty = no", None),
    ("rate", "0.0", "Images per second of the video; 0 = its own", None),
    ("loop", "true", "Begin the video again when it ends", BOOL),
    ("namespace", "", "Namespace of all nodes and relative topics", None),
    ("log_level", "info", "Least severity that is logged", LEVELS),
    ("use_sim_time", "false", "Take the time from /clock", BOOL),
    ("rviz", "false", "Start RViz with the outputs in view", BOOL),
)
"""Name, default, description and choices of each argument."""
OUTPUT_IMAGES = ("overlay/image", "panoptic/image", "semantic/image")


def generate_launch_description() -> LaunchDescription:
    """All arguments, then the processes they ask for."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=choices)
        for name, default, text, choices in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_processes)])


def _processes(context: LaunchContext) -> list[Node]:
    args = context.launch_configurations
    processes = [_camera_node(args)]
    if args["video"]:
        processes.append(_video_source(args))
    if args["rviz"] == "true":
        processes.append(_rviz(args))
    return processes


def _camera_node(args: dict[str, str]) -> Node:
    overrides: dict[str, object] = {n: _text(args[n]) for n in ("model", "backend") if args[n]}
    if args["compressed"]:
        overrides["compressed"] = args["compressed"] == "true"
    return _node(
        args,
        executable="camera_node",
        name="video_knet",
        parameters=[args["params_file"], overrides],
        remappings=[
            ("~/image", args["image"]),
            ("~/image/compressed", f"{args['image']}/compressed"),
        ],
    )


def _video_source(args: dict[str, str]) -> Node:
    parameters = {
        "source": _text(args["video"]),
        "rate": float(args["rate"]),
        "loop": args["loop"] == "true",
    }
    return _node(
        args,
        executable="video_source",
        name="video_source",
        parameters=[parameters],
        remappings=[("camera/image_raw", args["image"])],
    )


def _rviz(args: dict[str, str]) -> Node:
    """RViz; its configuration has absolute topics, which are moved to the namespace."""
    outputs = [f"video_knet/{name}" for name in OUTPUT_IMAGES]
    return _node(
        args,
        package="rviz2",
        executable="rviz2",
        name="rviz",
        arguments=["-d", str(SHARE / "rviz" / "video_knet.rviz")],
        remappings=[("/camera/image_raw", args["image"]), *((f"/{o}", o) for o in outputs)],
    )


def _node(args: dict[str, str], **options) -> Node:
    """A node with what all of them share."""
    parameters = [*options.pop("parameters", []), {"use_sim_time": args["use_sim_time"] == "true"}]
    arguments = [*options.pop("arguments", []), "--ros-args", "--log-level", args["log_level"]]
    return Node(
        package=options.pop("package", PACKAGE),
        namespace=args["namespace"],
        parameters=parameters,
        arguments=arguments,
        additional_env=_large_image_transport(),
        output="screen",
        **options,
    )


def _text(value: str) -> ParameterValue:
    """A string as it is: launch would read "0" as a number."""
    return ParameterValue(value, value_type=str)


def _large_image_transport() -> dict[str, str]:
    """Fast DDS's shared memory is smaller than an image unless a profile says otherwise.

    The user's own profile, and any other middleware, are left alone.
    """
    fast_dds = os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp").startswith("rmw_fastrtps")
    variables = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    if not fast_dds or any(name in os.environ for name in variables):
        return {}
    return {variables[0]: str(SHARE / "config" / "fastdds_large_images.xml")}
