"""Play a bag to the camera node, live: the time is that of the bag, and the rate can be chosen.

ros2 launch video_knet_ros replay.launch.py bag:=drive image:=/front/image_raw
ros2 launch video_knet_ros replay.launch.py bag:=drive loop:=true rate:=0.5

When a looping bag begins again its stamps go back, which resets the tracker. Images that the node
cannot process in time are skipped; `video-knet replay` processes every image.
"""

from __future__ import annotations

from launch import Action, LaunchDescription
from launch.actions import ExecuteProcess

from video_knet_core.user_names import expand
from video_knet_ros import launching

ARGUMENTS = (
    launching.argument("bag", None, "Folder or file that `ros2 bag play` can play"),
    launching.IMAGE,
    *launching.ENGINE_ARGUMENTS,
    *launching.SPATIAL_ARGUMENTS,
    launching.argument("rate", "1.0", "Speed of the bag, 1.0 = as recorded"),
    launching.argument("loop", "false", "Begin the bag again when it ends", launching.BOOL),
    launching.argument("delay", "5.0", "Seconds before the bag begins, for the model to load"),
    *launching.COMMON_ARGUMENTS,
)


def generate_launch_description() -> LaunchDescription:
    """The camera node and `ros2 bag play`."""
    return launching.describe(ARGUMENTS, _processes)


def _processes(args: dict[str, str]) -> list[Action]:
    rate, delay = launching.number(args, "rate", 0.01), launching.number(args, "delay", 0)
    command = ["ros2", "bag", "play", expand(args["bag"]), "--clock"]
    command += ["--rate", rate]
    if float(delay) > 0:  # `ros2 bag play` rejects 0
        command += ["--delay", delay]
    if args["loop"] == "true":
        command.append("--loop")
    environment = launching.large_image_transport()
    player = ExecuteProcess(cmd=command, additional_env=environment, output="screen")
    return [launching.camera_node({**args, "use_sim_time": "true"}), player]
