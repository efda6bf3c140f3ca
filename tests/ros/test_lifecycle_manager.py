"""The example for Nav2's lifecycle manager in docs/how-to/launch.md, against the camera node.

The manager is played here: it is not among the wheels of ROS 2. It changes the state of each node
by the numbers of the transitions, requests the state after that, and after activate waits for a
bond unless `bond_timeout` is 0.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import yaml
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "launch.md"
CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE
SHUTDOWN = Transition.TRANSITION_UNCONFIGURED_SHUTDOWN
STATE_AFTER = {
    CONFIGURE: State.PRIMARY_STATE_INACTIVE,
    ACTIVATE: State.PRIMARY_STATE_ACTIVE,
    DEACTIVATE: State.PRIMARY_STATE_INACTIVE,
    CLEANUP: State.PRIMARY_STATE_UNCONFIGURED,
    SHUTDOWN: State.PRIMARY_STATE_FINALIZED,
}
COMMANDS = {
    "startup": (CONFIGURE, ACTIVATE),
    "pause": (DEACTIVATE,),
    "resume": (ACTIVATE,),
    "reset": (DEACTIVATE, CLEANUP),
    "shutdown": (DEACTIVATE, CLEANUP, SHUTDOWN),
}


@pytest.fixture
def example() -> dict:
    (block,) = re.findall(r"```yaml\n(lifecycle_manager.*?)```", PAGE.read_text(), re.DOTALL)
    (section,) = yaml.safe_load(block).values()
    return section["ros__parameters"]


def change(world, parameters: dict, transition: int) -> bool:
    """Change the state of all nodes, as the manager with these parameters does."""
    for name in parameters["node_names"]:
        request = ChangeState.Request(transition=Transition(id=transition))
        begun = time.monotonic()
        if not world.call(ChangeState, f"/{name}/change_state", request).success:
            return False
        assert time.monotonic() - begun < parameters["service_timeout"]
        state = world.call(GetState, f"/{name}/get_state", GetState.Request()).current_state
        assert state.id == STATE_AFTER[transition]
        needs_bond = transition == ACTIVATE and parameters["bond_timeout"] > 0
        if needs_bond and not world.tester.count_publishers("/bond"):
            return False
    return True


@pytest.mark.parametrize(
    "commands",
    [("startup", "pause", "resume", "shutdown"), ("startup", "reset", "startup", "shutdown")],
)
def test_the_node_follows_the_manager_of_the_example(world, example, commands):
    assert example["node_names"] == ["video_knet"] and example["autostart"] is True
    world.camera_node(start=False)
    for command in commands:
        assert all(change(world, example, transition) for transition in COMMANDS[command]), command
    world.report(lambda v: v["state"] == "finalized")


def test_the_bond_of_the_default_would_end_the_bringup(world, example):
    assert all(isinstance(example[name], float) for name in ("bond_timeout", "service_timeout"))
    world.camera_node(start=False)
    assert change(world, example, CONFIGURE)
    assert not change(world, {**example, "bond_timeout": 4.0}, ACTIVATE)
