"""Every parameter of the camera node, once: default, range, meaning and when it may change.

`python -m video_knet_ros.parameters` writes docs/reference/parameters.md and config/camera.yaml.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from video_knet_core.config_io import ConfigError, described
from video_knet_core.spatial.settings import SpatialSettings
from video_knet_core.tracking import (
    DEFAULT_TRACKER,
    TRACKERS,
    TrackerSettings,
    all_settings,
    tracker_settings,
)
from video_knet_core.visualize import OPACITY


class Change(Enum):
    """When a parameter may change; the text ends up in its description."""

    NEVER = "set at start only"
    UNCONFIGURED = "set before configuring"
    ANY_TIME = "may change while running"


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter; its type is that of its default."""

    name: str
    default: bool | int | float | str
    description: str
    change: Change = Change.ANY_TIME
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()

    def descriptor(self) -> ParameterDescriptor:
        """What `ros2 param describe` shows; rclpy enforces type, range and read-only by it."""
        out = ParameterDescriptor(
            name=self.name,
            description=f"{self.description} ({self.change.value})",
            additional_constraints=f"one of {', '.join(self.choices)}" if self.choices else "",
            read_only=self.change is Change.NEVER,
        )
        if self.range and isinstance(self.default, int):
            first, last = (int(limit) for limit in self.range)
            out.integer_range = [IntegerRange(from_value=first, to_value=last, step=0)]
        elif self.range:
            low, high = map(float, self.range)  # rclpy sends the bits of an int
            out.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        return out


TRACKING = "tracking."
"""What the names of the tracker's parameters begin with."""

_NODE_PARAMETERS = (
    ParameterSpec(
        "autostart", True, "Configure and activate when the executable starts.", Change.NEVER
    ),
    ParameterSpec(
        "model",
        "",
        "Name of a model (`video-knet models list`), or its file: exported, or a checkpoint; empty "
        "= the street model of the package.",
        Change.UNCONFIGURED,
    ),
    ParameterSpec(
        "backend",
        "auto",
        "Backend that runs the model; auto = the fastest one that works on this machine. While its "
        "engine is built (once, minutes), the next fastest is used.",
        Change.UNCONFIGURED,
    ),
    ParameterSpec("threads", 2, "CPU threads of the engine.", Change.UNCONFIGURED, (1, 256)),
    ParameterSpec(
        "compressed",
        False,
        "Subscribe to JPEG or PNG on ~/image/compressed instead of raw images on ~/image.",
        Change.UNCONFIGURED,
    ),
    ParameterSpec(
        "reliability",
        "auto",
        "Reliability of the image subscription; auto = that of the publishers.",
        choices=("auto", "reliable", "best_effort"),
    ),
    ParameterSpec("enabled", True, "False = unsubscribe from the images, but stay active."),
    ParameterSpec(
        "max_rate",
        0.0,
        "Maximum number of images processed per second; 0 = no limit.",
        range=(0.0, 1000.0),
    ),
    ParameterSpec(
        "max_age_ms",
        0.0,
        "Maximum age of an image by its stamp, in ms; older images are dropped. 0 = no limit.",
        range=(0.0, 3.6e6),
    ),
    ParameterSpec(
        "warn_after_s",
        1.0,
        "Diagnostics report a warning after this many seconds without images, or of latency.",
        range=(0.0, 3600.0),
    ),
    ParameterSpec(
        "error_after_s",
        5.0,
        "Diagnostics report an error after this many seconds without images, or of latency.",
        range=(0.0, 3600.0),
    ),
    ParameterSpec("rle", False, "Add the mask of each thing to its table row, as run lengths."),
    ParameterSpec(
        "overlay_opacity", OPACITY, "Opacity of the colours in the overlay image.", range=(0.0, 1.0)
    ),
    ParameterSpec(
        "snapshot_folder",
        "~/.ros/video_knet",
        "Folder in which ~/save_snapshot creates a folder for each snapshot.",
    ),
)


def _tracking_parameters() -> Iterator[ParameterSpec]:
    """The choice of the tracker, and the settings of all trackers."""
    yield ParameterSpec(
        f"{TRACKING}tracker",
        DEFAULT_TRACKER,
        "Tracker. masktrack, motion_offsets, stitching and unitrack need the package baselines "
        "(docs/explanation/baselines.md).",
        Change.UNCONFIGURED,
        choices=tuple(TRACKERS),
    )
    for name, setting in all_settings().items():
        common = len(setting.trackers) == len(TRACKERS)
        users = "" if common else f" Used by {', '.join(setting.trackers)}."
        yield ParameterSpec(
            TRACKING + name, setting.default, setting.description + users, range=setting.range
        )


_AT_CONFIGURE = ("mask_classes",)
"""Settings of `SpatialSettings` that decide which topics there are."""


def _spatial_parameters() -> Iterator[ParameterSpec]:
    """The settings of the outputs in metres."""
    for name, setting in described(SpatialSettings).items():
        change = Change.UNCONFIGURED if name in _AT_CONFIGURE else Change.ANY_TIME
        yield ParameterSpec(
            name, setting.default, setting.description, change, setting.range, setting.choices
        )


PARAMETERS = (*_NODE_PARAMETERS, *_spatial_parameters(), *_tracking_parameters())
SPATIAL = frozenset(described(SpatialSettings))
"""Names of the parameters of the outputs in metres."""
_SPECS = {spec.name: spec for spec in PARAMETERS}


def declare(node: Node) -> None:
    """Declare all parameters on `node`; rclpy's parameter exceptions name an unusable override.

    A value at start for a name that `node` does not have is logged: rclpy ignores it in silence.
    """
    for spec in PARAMETERS:
        node.declare_parameter(spec.name, spec.default, spec.descriptor())
    of_rclpy = ("qos_overrides.", "start_type_description_service", "use_sim_time")
    for name in node._parameter_overrides:
        if not node.has_parameter(name) and not name.startswith(of_rclpy):
            near = get_close_matches(name, _SPECS, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            node.get_logger().warning(f"there is no parameter {name}: its value is ignored{hint}")


def validate(node: Node, changes: Iterable[Parameter], configured: bool) -> SetParametersResult:
    """Accept or reject a set of changes as a whole; parameters that are not ours pass.

    A parameter may be set to the value that it has at any time.
    """
    for change in changes:
        if node.has_parameter(change.name):
            present = node.get_parameter(change.name)
            if (change.type_, change.value) == (present.type_, present.value):
                continue
        spec, reason = _SPECS.get(change.name), ""
        if spec and spec.change is Change.UNCONFIGURED and configured:
            reason = f"{spec.name} is read by configure: deactivate and clean up the node first"
        elif spec and spec.choices and change.value not in spec.choices:
            expected = ", ".join(spec.choices)
            reason = f"{spec.name}: expected one of {expected}, got {change.value!r}"
        if reason:
            return SetParametersResult(successful=False, reason=reason)
    values = {change.name: change.value for change in changes if change.name in SPATIAL}
    if values and all(map(node.has_parameter, SPATIAL)):
        try:
            SpatialSettings(**{name: values.get(name, _value(node, name)) for name in SPATIAL})
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
    return SetParametersResult(successful=True)


def tracking(node: Node) -> TrackerSettings:
    """The settings of the chosen tracker, as the node's parameters have them now."""
    tracker = node.get_parameter(f"{TRACKING}tracker").value
    names = [name for name, s in all_settings().items() if tracker in s.trackers]
    return tracker_settings(
        tracker, **{name: node.get_parameter(TRACKING + name).value for name in names}
    )


def spatial(node: Node) -> SpatialSettings:
    """The settings of the outputs in metres, as the node's parameters have them now."""
    return SpatialSettings(**{name: _value(node, name) for name in SPATIAL})


def _value(node: Node, name: str) -> Any:
    return node.get_parameter(name).value


def files() -> dict[str, str]:
    """The files of the repository that are written from the table.

    RuntimeError if another package has added trackers to it.
    """
    ours = ("video_knet_core", "baselines")
    others = [n for n, tracker in TRACKERS.items() if not tracker.__module__.startswith(ours)]
    if others:
        raise RuntimeError(f"uninstall the packages of these trackers first: {', '.join(others)}")
    rows = ["| name | default | values | may change | meaning |", "|---|---|---|---|---|"]
    lines = ["/**:", "  ros__parameters:"]
    for spec in PARAMETERS:
        values = "{:.9g} to {:.9g}".format(*spec.range) if spec.range else ", ".join(spec.choices)
        default = json.dumps(spec.default)
        cells = (f"`{spec.name}`", f"`{default}`", values, spec.change.value, spec.description)
        rows.append(f"| {' | '.join(cells)} |")
        lines.append(f"    {spec.name}: {default}")
    return {
        "docs/reference/parameters.md": "\n".join([_PAGE_HEAD, *rows, ""]),
        "config/camera.yaml": "\n".join([_YAML_HEAD, *lines, ""]),
    }


_PAGE_HEAD = """# Parameters of the camera node

All parameters, with their defaults, values, and when they may change.
`ros2 param describe /video_knet NAME` shows the same for the running node. `config/camera.yaml` has
all defaults. A value out of range, or a change at the wrong time, is rejected with a reason. An
unknown name at start is ignored, with a warning.

This page and `config/camera.yaml` are generated by `python -m video_knet_ros.parameters`.
"""
_YAML_HEAD = """# Parameters of the camera node, with their defaults. Meaning, range and when each
# may change: docs/reference/parameters.md, or `ros2 param describe /video_knet NAME`."""

if __name__ == "__main__":
    for name, content in files().items():
        (Path(__file__).parents[1] / name).write_text(content)
