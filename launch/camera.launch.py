"""Start the camera node, and with `video:=...` a source that plays a video as a camera.

ros2 launch video_knet_ros camera.launch.py image:=/front/image_raw
ros2 launch video_knet_ros camera.launch.py video:=street.mp4 rviz:=true
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch_ros.actions import Node

from video_knet_ros import launching

ARGUMENTS: tuple[launching.Argument, ...] = (
    ("image", "camera/image_raw", "Image topic; with compressed, IMAGE/compressed is used", None),
    *launching.ENGINE_ARGUMENTS,
    ("video", "", f"Also play this as a camera: {launching.SOURCES}; empty = no", None),
    *launching.VIDEO_ARGUMENTS,
    *launching.COMMON_ARGUMENTS,
    ("rviz", "false", "Start RViz with the outputs in view", launching.BOOL),
)
OUTPUT_IMAGES = ("overlay/image", "panoptic/image", "semantic/image")


def generate_launch_description() -> LaunchDescription:
    """All arguments, then the processes they ask for."""
    return LaunchDescription([*launching.declare(ARGUMENTS), OpaqueFunction(function=_processes)])


def _processes(context: LaunchContext) -> list[Node]:
    args = context.launch_configurations
    launching.warn_of_unknown(args, ARGUMENTS)
    processes = [launching.camera_node(args)]
    if args["video"]:
        processes.append(
            launching.video_source(args, args["video"], args["image"], "video_source", "camera")
        )
    if args["rviz"] == "true":
        processes.append(_rviz(args))
    return processes


def _rviz(args: dict[str, str]) -> Node:
    """RViz; its configuration has absolute topics, which are moved to the namespace."""
    outputs = [f"video_knet/{name}" for name in OUTPUT_IMAGES]
    return launching.node(
        args,
        package="rviz2",
        executable="rviz2",
        name="rviz",
        arguments=["-d", str(launching.SHARE / "rviz" / "video_knet.rviz")],
        remappings=[("/camera/image_raw", args["image"]), *((f"/{o}", o) for o in outputs)],
    )
