"""Start one process that serves several cameras with one engine.

ros2 launch video_knet_ros multi_camera.launch.py cameras:=front,rear
ros2 launch video_knet_ros multi_camera.launch.py cameras:=front,rear image:=/CAMERA/image_color

Each camera is a node of its own, called by its name: /front/instances, /front/panoptic/image, ...
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch_ros.actions import Node

from video_knet_ros import launching

CAMERA = "CAMERA"
ARGUMENTS: tuple[launching.Argument, ...] = (
    ("cameras", "front,rear", "Names of the cameras, with commas between", None),
    ("image", f"{CAMERA}/image_raw", f"Image topic of each camera; {CAMERA} = its name", None),
    *launching.ENGINE_ARGUMENTS,
    *launching.COMMON_ARGUMENTS,
)


def generate_launch_description() -> LaunchDescription:
    """All arguments, then the process."""
    return LaunchDescription([*launching.declare(ARGUMENTS), OpaqueFunction(function=_processes)])


def _processes(context: LaunchContext) -> list[Node]:
    args = context.launch_configurations
    cameras = [name.strip() for name in args["cameras"].split(",")]
    remappings = []
    for name in cameras:
        topic = args["image"].replace(CAMERA, name)
        remappings += [
            (f"{name}:~/image", topic),
            (f"{name}:~/image/compressed", f"{topic}/compressed"),
        ]
    return [
        launching.node(
            args,
            executable="cameras_node",
            arguments=cameras,
            parameters=launching.camera_parameters(args),
            remappings=remappings,
        )
    ]
