"""The example for Nav2's lifecycle manager in docs/launch.md, against the camera node.

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

PAGE = Path(__file__).parents[2] / "docs" / "launch.md"
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


class Manager:
    """What Nav2's manager does of a command, with the parameters of the example."""

    def __init__(self, world, parameters: dict) -> None:
        self._world, self._parameters = world, parameters

    def run(self, command: str) -> bool:
        return all(
            self._change(name, transition)
            for transition in COMMANDS[command]
            for name in self._parameters["node_names"]
        )

    def _change(self, name: str, transition: int) -> bool:
        request = ChangeState.Request()
        request.transition.id = transition
        begun = time.monotonic()
        if not self._world.call(ChangeState, f"/{name}/change_state", request).success:
            return False
        assert time.monotonic() - begun < self._parameters["service_timeout"]
        state = self._world.call(GetState, f"/{name}/get_state", GetState.Request()).current_state
        if state.id != STATE_AFTER[transition]:
            return False
        return transition != ACTIVATE or self._has_bond()

    def _has_bond(self) -> bool:
        timeout = self._parameters["bond_timeout"]
        return timeout <= 0 or self._world.tester.count_publishers("/bond") > 0


@pytest.fixture
def example() -> dict:
    (block,) = re.findall(r"```yaml\n(lifecycle_manager.*?)```", PAGE.read_text(), re.DOTALL)
    (section,) = yaml.safe_load(block).values()
    return section["ros__parameters"]


@pytest.mark.parametrize(
    "commands",
    [("startup", "pause", "resume", "shutdown"), ("startup", "reset", "startup", "shutdown")],
)
def test_the_node_follows_the_manager_of_the_example(world, example, commands):
    world.camera_node(start=False)
    manager = Manager(world, example)
    for command in commands:
        assert manager.run(command), command
    world.report(lambda v: v["state"] == "finalized")


def test_the_bond_of_the_default_would_end_the_bringup(world, example):
    world.camera_node(start=False)
    assert not Manager(world, {**example, "bond_timeout": 4.0}).run("startup")


def test_the_types_of_the_example_are_those_of_the_manager(example):
    assert example["bond_timeout"] == 0.0 and isinstance(example["bond_timeout"], float)
    assert isinstance(example["service_timeout"], float) and example["service_timeout"] > 5.0
    assert example["node_names"] == ["video_knet"] and example["autostart"] is True
