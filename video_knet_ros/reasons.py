"""Every reason for which results do not come, with its key and level in /diagnostics."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Level(Enum):
    """Level of a reason, as the documentation has it."""

    OK = "OK"
    WARN = "WARN"
    ERROR = "ERROR"
    RISING = "WARN, then ERROR"
    """By the time that it has lasted; see `Limits`."""


class Reason(Enum):
    """Every reason for which images come and nothing is published, or nothing comes, or what is
    published cannot be relied on: value `reason` of /diagnostics, and its level.

    The table in docs/topics.md has the same rows, in the same order. Of several reasons of the
    same level the one that stands first is reported.
    """

    TRANSITION_FAILED = "transition_failed", Level.ERROR
    CONFIGURING = "configuring", Level.RISING
    UNCONFIGURED = "unconfigured", Level.WARN
    INACTIVE = "inactive", Level.WARN
    FINALIZED = "finalized", Level.WARN
    DISABLED = "disabled", Level.WARN
    FRAMES_FAILED = "frames_failed", Level.WARN
    INFERENCE_STUCK = "inference_stuck", Level.RISING
    WRONG_TYPE = "wrong_type", Level.RISING
    WRONG_TRANSPORT = "wrong_transport", Level.RISING
    QOS_INCOMPATIBLE = "qos_incompatible", Level.RISING
    NO_PUBLISHER = "no_publisher", Level.RISING
    NO_IMAGES = "no_images", Level.RISING
    ENGINE_BUSY = "engine_busy", Level.RISING
    ALL_FRAMES_FAILED = "all_frames_failed", Level.ERROR
    NO_CLOCK = "no_clock", Level.RISING
    IMAGES_TOO_OLD = "images_too_old", Level.RISING
    IMAGES_LATE = "images_late", Level.RISING
    RATE_LIMITED = "rate_limited", Level.WARN
    SEVERAL_PUBLISHERS = "several_publishers", Level.WARN
    REPEATED_RESETS = "repeated_resets", Level.WARN
    RESULTS_LATE = "results_late", Level.RISING
    STAMPS_IN_FUTURE = "stamps_in_future", Level.WARN
    CLOCK_STOPPED = "clock_stopped", Level.WARN
    OUTPUT_QOS_INCOMPATIBLE = "output_qos_incompatible", Level.WARN
    NO_SUBSCRIBERS = "no_subscribers", Level.OK

    @property
    def key(self) -> str:
        """What /diagnostics has."""
        return self.value[0]

    @property
    def level(self) -> Level:
        """How bad it is."""
        return self.value[1]


class Finding(NamedTuple):
    """A reason, in words."""

    reason: Reason
    message: str
    seconds: float | None = None
    """For how long, or by how much it is too late: it counts once this is over `Limits.warn`.
    None = it counts at once."""
