"""Every parameter of the camera node, once: default, range, meaning and when it may change."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from video_knet_core.config import ASSOCIATIONS, TrackingConfig

from .outputs import OutputSettings
from .verdict import Limits


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
    change: Change
    description: str
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
            low, high = self.range
            out.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        return out

    def refusal(self, value: object, configured: bool) -> str | None:
        """Why `value` is refused, beyond what the descriptor says; None if it is accepted."""
        if self.change is Change.UNCONFIGURED and configured:
            return f"{self.name} is read by configure: deactivate and clean up the node first"
        if self.choices and value not in self.choices:
            return f"{self.name}: expected one of {', '.join(self.choices)}, got {value!r}"
        return None


_TRACKING = TrackingConfig()

PARAMETERS: tuple[ParameterSpec, ...] = (
    ParameterSpec(
        "autostart", True, Change.NEVER, "Configure and activate when the executable starts."
    ),
    ParameterSpec(
        "model",
        "",
        Change.UNCONFIGURED,
        "Exported model, or checkpoint; empty = the street model that comes with the package.",
    ),
    ParameterSpec(
        "backend",
        "auto",
        Change.UNCONFIGURED,
        "Engine to run the model with; auto = the fastest that works here, and while that is built "
        "(minutes, once) the next one.",
    ),
    ParameterSpec("threads", 2, Change.UNCONFIGURED, "CPU threads of the engine.", range=(1, 256)),
    ParameterSpec(
        "compressed",
        False,
        Change.UNCONFIGURED,
        "Subscribe to JPEG or PNG on ~/image/compressed instead of raw images on ~/image.",
    ),
    ParameterSpec(
        "reliability",
        "auto",
        Change.ANY_TIME,
        "QoS of the image subscription; auto = what the publishers offer.",
        choices=("auto", "reliable", "best_effort"),
    ),
    ParameterSpec(
        "enabled", True, Change.ANY_TIME, "Off = unsubscribe from the images but stay active."
    ),
    ParameterSpec(
        "max_rate",
        0.0,
        Change.ANY_TIME,
        "Images per second that are processed at most; 0 = as many as the engine can.",
        range=(0.0, 1000.0),
    ),
    ParameterSpec(
        "max_age_ms",
        0.0,
        Change.ANY_TIME,
        "Milliseconds from its stamp after which an image is too old to be processed; 0 = never.",
        range=(0.0, 3.6e6),
    ),
    ParameterSpec(
        "warn_after_s",
        1.0,
        Change.ANY_TIME,
        "Seconds without images, or of latency, after which diagnostics warn.",
        range=(0.0, 3600.0),
    ),
    ParameterSpec(
        "error_after_s",
        5.0,
        Change.ANY_TIME,
        "Seconds without images, or of latency, that diagnostics call an error.",
        range=(0.0, 3600.0),
    ),
    ParameterSpec(
        "rle",
        False,
        Change.ANY_TIME,
        "Also put the mask of each instance into its row, as run lengths.",
    ),
    ParameterSpec(
        "overlay_opacity",
        OutputSettings().opacity,
        Change.ANY_TIME,
        "Opacity of the colours in the overlay.",
        range=(0.0, 1.0),
    ),
    ParameterSpec(
        "snapshot_folder",
        "~/.ros/video_knet",
        Change.ANY_TIME,
        "Folder in which save_snapshot makes a folder for each snapshot.",
    ),
    ParameterSpec(
        "association",
        _TRACKING.association,
        Change.UNCONFIGURED,
        "Tracker: embedding, ours; quasi_dense, the authors', which the settings below do not "
        "touch; the others, to compare with, heed birth_score and max_coast_s. appearance needs "
        "torch.",
        choices=ASSOCIATIONS,
    ),
    ParameterSpec(
        "match_threshold",
        _TRACKING.match_threshold,
        Change.ANY_TIME,
        "Least cosine of embeddings that continues a track.",
        range=(0.0, 1.0),
    ),
    ParameterSpec(
        "birth_score",
        _TRACKING.birth_score,
        Change.ANY_TIME,
        "Least class score of a segment that starts a track.",
        range=(0.0, 1.0),
    ),
    ParameterSpec(
        "max_coast_s",
        _TRACKING.max_coast_s,
        Change.ANY_TIME,
        "Seconds for which a track without pixels is remembered.",
        range=(0.0, 3600.0),
    ),
)

TRACKING_PARAMETERS = ("association", "match_threshold", "birth_score", "max_coast_s")
"""Parameters that are fields of `TrackingConfig`, with the same names."""

_REFERENCE_HEAD = """# Parameters of the camera node

Written by `python -m video_knet_ros.parameters`; `ros2 param describe /video_knet NAME` says the
same. Defaults are in `config/camera.yaml`. What is out of range, or may not change now, is refused
with a reason; a value at start for a name that is not here is ignored, with a warning.
"""

_SPECS = {spec.name: spec for spec in PARAMETERS}


def declare(node: Node) -> None:
    """Declare all parameters on `node`; rclpy's parameter exceptions name an unusable override."""
    for spec in PARAMETERS:
        node.declare_parameter(spec.name, spec.default, spec.descriptor())
    for name in unknown_overrides(node):
        near = get_close_matches(name, _SPECS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        node.get_logger().warning(f"there is no parameter {name}: its value is ignored{hint}")


def unknown_overrides(node: Node) -> list[str]:
    """Parameters given at start that `node` does not have, which rclpy ignores in silence."""
    of_rclpy = ("qos_overrides.", "start_type_description_service", "use_sim_time")
    given = node._parameter_overrides
    return [n for n in given if not (node.has_parameter(n) or n.startswith(of_rclpy))]


def validate(node: Node, changes: Iterable[Parameter], configured: bool) -> SetParametersResult:
    """Accept or reject a set of changes as a whole; parameters that are not ours pass.

    A parameter may be set to the value that it has at any time.
    """
    for change in changes:
        spec = None if _has(node, change) else _SPECS.get(change.name)
        reason = spec.refusal(change.value, configured) if spec else None
        if reason:
            return SetParametersResult(successful=False, reason=reason)
    return SetParametersResult(successful=True)


def _has(node: Node, change: Parameter) -> bool:
    """Whether a parameter has this value already."""
    if not node.has_parameter(change.name):
        return False
    present = node.get_parameter(change.name)
    return (change.type_, change.value) == (present.type_, present.value)


def tracking_config(node: Node) -> TrackingConfig:
    """The tracker's settings as the node's parameters have them now."""
    return TrackingConfig(**{name: node.get_parameter(name).value for name in TRACKING_PARAMETERS})


def output_settings(node: Node) -> OutputSettings:
    """What of the outputs follows the parameters."""
    return OutputSettings(
        rle=node.get_parameter("rle").value, opacity=node.get_parameter("overlay_opacity").value
    )


def limits(node: Node) -> Limits:
    """What decides when diagnostics warn, and when they report an error."""
    names = ("warn_after_s", "error_after_s", "max_rate", "max_age_ms")
    return Limits(*(node.get_parameter(name).value for name in names))


def reference() -> str:
    """docs/parameters.md."""
    rows = ["| name | default | values | may change | meaning |", "|---|---|---|---|---|"]
    for spec in PARAMETERS:
        values = "{:.9g} to {:.9g}".format(*spec.range) if spec.range else ", ".join(spec.choices)
        default = f"`{json.dumps(spec.default)}`"
        cells = (f"`{spec.name}`", default, values, spec.change.value, spec.description)
        rows.append(f"| {' | '.join(cells)} |")
    return f"""{_REFERENCE_HEAD}
{chr(10).join(rows)}
"""


if __name__ == "__main__":
    print(reference(), end="")
