"""Start one process that serves several cameras with one engine.

ros2 launch video_knet_ros multi_camera.launch.py cameras:=front,rear
ros2 launch video_knet_ros multi_camera.launch.py cameras:=front,rear image:=/CAMERA/image_color
ros2 launch video_knet_ros multi_camera.launch.py video:=front.mp4,rear.mp4   # without cameras

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
    (
        "video",
        "",
        f"Also play this as the cameras: {launching.SOURCES}; "
        "one for all, or one for each with commas between; empty = no",
        None,
    ),
    *launching.VIDEO_ARGUMENTS,
    *launching.COMMON_ARGUMENTS,
)


def generate_launch_description() -> LaunchDescription:
    """All arguments, then the processes they ask for."""
    return LaunchDescription([*launching.declare(ARGUMENTS), OpaqueFunction(function=_processes)])


def _processes(context: LaunchContext) -> list[Node]:
    args = context.launch_configurations
    launching.warn_of_unknown(args, ARGUMENTS)
    topics = {
        name: args["image"].replace(CAMERA, name)
        for name in launching.camera_names(args["cameras"])
    }
    return [_cameras_node(args, topics), *_video_sources(args, topics)]


def _cameras_node(args: dict[str, str], topics: dict[str, str]) -> Node:
    """One process for all cameras; `topics` are their image topics, by name."""
    remappings = []
    for name, topic in topics.items():
        remappings += [
            (f"{name}:~/image", topic),
            (f"{name}:~/image/compressed", f"{topic}/compressed"),
        ]
    return launching.node(
        args,
        executable="cameras_node",
        arguments=list(topics),
        parameters=launching.camera_parameters(args),
        remappings=remappings,
    )


def _video_sources(args: dict[str, str], topics: dict[str, str]) -> list[Node]:
    if not args["video"]:
        return []
    sources = launching.video_for_each(args["video"], list(topics))
    return [
        launching.video_source(args, source, topic, f"{name}_video_source", name)
        for source, (name, topic) in zip(sources, topics.items(), strict=True)
    ]
