"""Start one process that serves several cameras with one engine.

ros2 launch video_knet_ros multi_camera.launch.py cameras:=front,rear
ros2 launch video_knet_ros multi_camera.launch.py cameras:=front,rear image:=/CAMERA/image_color
ros2 launch video_knet_ros multi_camera.launch.py depth:=/CAMERA/aligned_depth/image_raw
ros2 launch video_knet_ros multi_camera.launch.py video:=front.mp4,rear.mp4   # without cameras

CAMERA in the name of a topic is the name of each camera in turn. Each camera is a node of its own,
called by its name: /front/instances, /front/panoptic/image, ...
"""

from __future__ import annotations

from launch import LaunchDescription
from launch_ros.actions import Node

from video_knet_ros import launching

CAMERA = "CAMERA"
ARGUMENTS = (
    launching.argument("cameras", "front,rear", "Names of the cameras, separated by commas"),
    launching.argument(
        "image", f"{CAMERA}/image_raw", f"Image topic of each camera; {CAMERA} = its name"
    ),
    *launching.ENGINE_ARGUMENTS,
    *launching.SPATIAL_ARGUMENTS,
    launching.argument(
        "video",
        "",
        f"Also play this as the cameras: {launching.SOURCES}; "
        "one for all, or one for each, separated by commas; empty = no",
    ),
    *launching.VIDEO_ARGUMENTS,
    *launching.COMMON_ARGUMENTS,
    launching.SIM_TIME,
)


def generate_launch_description() -> LaunchDescription:
    """One process for all cameras, and a source for each if requested."""
    return launching.describe(ARGUMENTS, _processes)


def _of_camera(args: dict[str, str], name: str) -> dict[str, str]:
    """The arguments with the name of a camera in place of `CAMERA`."""
    return {argument: value.replace(CAMERA, name) for argument, value in args.items()}


def _processes(args: dict[str, str]) -> list[Node]:
    cameras = launching.camera_names(args["cameras"])
    of_cameras = {name: _of_camera(args, name) for name in cameras}
    remappings = [
        launching.input_topics(f"{name}:", own, f"{name}/odometry")
        for name, own in of_cameras.items()
    ]
    node = launching.node(
        args,
        "cameras_node",
        arguments=cameras,
        parameters=launching.camera_parameters(args),
        remappings=sum(remappings, []),
    )
    sources = launching.video_for_each(args["video"], cameras) if args["video"] else []
    return [
        node,
        *(
            launching.video_source(own, source, f"{name}_video_source", name, f"{name}/odometry")
            for source, (name, own) in zip(sources, of_cameras.items(), strict=False)
        ),
    ]
