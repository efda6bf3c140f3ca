"""Start the camera node, and with `video:=...` a source that plays a video as a camera.

ros2 launch video_knet_ros camera.launch.py image:=/front/image_raw
ros2 launch video_knet_ros camera.launch.py video:=street.mp4 rviz:=true
"""

from __future__ import annotations

from launch import LaunchDescription
from launch_ros.actions import Node

from video_knet_ros import launching

ARGUMENTS = (
    launching.IMAGE,
    *launching.ENGINE_ARGUMENTS,
    *launching.SPATIAL_ARGUMENTS,
    launching.argument("video", "", f"Also play this as a camera: {launching.SOURCES}; empty = no"),
    *launching.VIDEO_ARGUMENTS,
    *launching.COMMON_ARGUMENTS,
    launching.SIM_TIME,
    launching.argument("rviz", "false", "Start RViz with the outputs in view", launching.BOOL),
)
OUTPUTS_IN_RVIZ = (
    *("overlay/image", "panoptic/image", "semantic/image"),
    *("markers", "points", "obstacles"),
)


def generate_launch_description() -> LaunchDescription:
    """The camera node, and the source and RViz if requested."""
    return launching.describe(ARGUMENTS, _processes)


def _processes(args: dict[str, str]) -> list[Node]:
    processes = [launching.camera_node(args)]
    if video := args["video"]:
        processes.append(launching.video_source(args, video, "video_source", "camera", "odometry"))
    if args["rviz"] == "true":
        # its configuration has absolute topics, which are moved to the namespace
        outputs = [f"video_knet/{name}" for name in OUTPUTS_IN_RVIZ]
        rviz = launching.node(
            args,
            "rviz2",
            package="rviz2",
            name="rviz",
            arguments=["-d", str(launching.SHARE / "rviz" / "video_knet.rviz")],
            remappings=[("/camera/image_raw", args["image"]), *((f"/{o}", o) for o in outputs)],
        )
        processes.append(rviz)
    return processes
