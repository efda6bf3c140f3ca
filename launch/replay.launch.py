"""Play a bag to the camera node, live: the time is that of the bag, and the rate can be chosen.

ros2 launch video_knet_ros replay.launch.py bag:=drive image:=/front/image_raw
ros2 launch video_knet_ros replay.launch.py bag:=drive loop:=true rate:=0.5

When a looping bag begins again its stamps go back, which resets the tracker. What the node cannot
take in time is skipped; `video-knet replay` processes every image.
"""

from __future__ import annotations

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import ExecuteProcess, OpaqueFunction

from video_knet_ros import launching
from video_knet_ros.process import expand

ARGUMENTS: tuple[launching.Argument, ...] = (
    ("bag", None, "Folder or file that `ros2 bag play` can play", None),
    ("image", "camera/image_raw", "Image topic; with compressed, IMAGE/compressed is used", None),
    *launching.ENGINE_ARGUMENTS,
    ("rate", "1.0", "Speed of the bag, 1.0 = as recorded", None),
    ("loop", "false", "Begin the bag again when it ends", launching.BOOL),
    ("delay", "5.0", "Seconds before the bag begins, in which the model is loaded", None),
    *(a for a in launching.COMMON_ARGUMENTS if a[0] != "use_sim_time"),
)


def generate_launch_description() -> LaunchDescription:
    """All arguments, then the processes."""
    return LaunchDescription([*launching.declare(ARGUMENTS), OpaqueFunction(function=_processes)])


def _processes(context: LaunchContext) -> list[Action]:
    launching.warn_of_unknown(context.launch_configurations, ARGUMENTS)
    args = {**context.launch_configurations, "use_sim_time": "true"}
    return [launching.camera_node(args), _player(args)]


def _player(args: dict[str, str]) -> ExecuteProcess:
    rate, delay = launching.number(args, "rate", 0.01), launching.number(args, "delay", 0)
    command = ["ros2", "bag", "play", expand(args["bag"]), "--clock"]
    command += ["--rate", rate, "--delay", delay]
    if args["loop"] == "true":
        command.append("--loop")
    environment = launching.large_image_transport()
    return ExecuteProcess(cmd=command, additional_env=environment, output="screen")
