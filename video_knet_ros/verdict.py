"""From the state of a node and its counts to the worst reason for which results do not come."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from diagnostic_msgs.msg import DiagnosticStatus

from .frame_counts import FrameCounts
from .reasons import Finding, Level, Reason

RESETS_S = 10.0
"""Time over which resets of the tracker are counted."""
MAX_RESETS = 3
"""More resets than this within `RESETS_S` are worth a warning: no id lives long enough to be used.
"""
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@dataclass(frozen=True)
class NodeStatus:
    """What a diagnostic message contains beside the counts."""

    name: str
    state: str
    model: str = ""
    task: str = ""
    """Of the model: it decides which outputs there are."""
    engine: str = ""
    """The backend that serves now."""
    engine_build: str = ""
    """How far a better one is, or what came of it; empty if none is built."""
    fault: str = ""
    """Why the last transition failed; empty if it did not."""
    subscription: str = ""
    """Topic and reliability; empty when there is no subscription."""
    obstacle: Finding | None = None
    """Why the images of a publisher cannot come; None if all can."""
    publishers: tuple[str, ...] = ()
    """Nodes that publish images on the topic; one with two publishers is there twice."""
    made: Mapping[str, int] = field(default_factory=dict)
    """Messages made for each output."""
    subscribers: int = 0
    """Of outputs that are published for each frame."""
    output_obstacle: str = ""
    """Why an output cannot reach one of its subscribers; empty if all can be reached."""
    simulated_time: float | None = None
    """Seconds on /clock, 0 before it begins; None = the node goes by the clock of the machine."""


@dataclass(frozen=True)
class Limits:
    """Parameters that decide what is reported."""

    warn: float
    """Seconds after which a stopped camera or a late result is a warning."""
    error: float
    """Seconds after which it is an error."""
    max_rate: float = 0.0
    """0 = no limit, as for the parameter."""
    max_age_ms: float = 0.0
    """0 = no limit, as for the parameter."""


class Moment(NamedTuple):
    """What a report has beside the status and the counts."""

    now: float
    failed: int
    """Frames that failed since the last report."""
    epoch_changes: int
    """Of the last `RESETS_S`."""
    clock_stopped: float
    """Seconds for which simulated time has stood still."""
    in_state: float
    """Seconds in the present state of the lifecycle."""


def verdict(
    status: NodeStatus, counts: FrameCounts, limits: Limits, moment: Moment
) -> tuple[bytes, str, str]:
    """Level, key and one-line message of the worst reason; the key is empty if there is none."""
    order = list(Reason)
    findings = [f for f in _findings(status, counts, limits, moment) if _due(f, limits)]
    if not findings:
        return OK, "", status.state
    worst = max(findings, key=lambda f: (_level(f, limits), -order.index(f.reason)))
    return _level(worst, limits), worst.reason.key, worst.message


def _due(finding: Finding, limits: Limits) -> bool:
    """Whether it has lasted long enough to be reported."""
    return finding.seconds is None or finding.seconds > limits.warn


def _level(finding: Finding, limits: Limits) -> bytes:
    if finding.reason.level is Level.RISING:
        return ERROR if (finding.seconds or 0.0) > limits.error else WARN
    return {Level.OK: OK, Level.WARN: WARN, Level.ERROR: ERROR}[finding.reason.level]


_STATES = {
    "unconfigured": Finding(Reason.UNCONFIGURED, "unconfigured"),
    "inactive": Finding(Reason.INACTIVE, "inactive"),
    "finalized": Finding(Reason.FINALIZED, "finalized"),
}


def _findings(
    status: NodeStatus, counts: FrameCounts, limits: Limits, moment: Moment
) -> Iterator[Finding]:
    if status.state == "configuring":
        words = f"the engine has been opening for {moment.in_state:.1f} s"
        at_once = math.nextafter(limits.warn, math.inf)
        yield Finding(Reason.CONFIGURING, words, max(moment.in_state, at_once))
    elif status.fault:
        yield Finding(Reason.TRANSITION_FAILED, status.fault)
    elif status.state in _STATES:
        yield _STATES[status.state]
    elif not status.subscription:
        yield Finding(Reason.DISABLED, "active, but disabled by the parameter enabled")
    else:
        yield from _stalls(status, counts, limits, moment)
        yield from _flaws(status, counts, limits, moment)


def _stalls(
    status: NodeStatus, counts: FrameCounts, limits: Limits, moment: Moment
) -> Iterator[Finding]:
    """Why there is no result."""
    silence = moment.now - max(counts.arrived or -math.inf, counts.watched_since)
    yield _no_images(status, silence, limits, moment)
    begun = counts.begun
    if begun is not None:
        stuck = moment.now - begun
        words = f"one image has been under way for {stuck:.1f} s"
        yield Finding(Reason.INFERENCE_STUCK, words, stuck)
    if (
        counts.since_result()[Reason.ALL_FRAMES_FAILED] > 1
        and counts.wait(moment.now) > limits.warn
    ):
        yield Finding(Reason.ALL_FRAMES_FAILED, f"all frames failed: {counts.last_failure}")
    yield from _without_result(counts, limits, moment)


def _no_images(status: NodeStatus, silence: float, limits: Limits, moment: Moment) -> Finding:
    """That the camera is silent, and why, as far as that is known."""
    words = f"no images on {status.subscription} for {silence:.1f} s"
    if status.obstacle is not None:
        reason, why, _ = status.obstacle
        return Finding(reason, f"{words}: {why}", silence)
    if not status.publishers:
        return Finding(Reason.NO_PUBLISHER, f"{words}: the topic has no publisher", silence)
    if silence > limits.warn and moment.clock_stopped > limits.warn:  # somebody has paused it
        return Finding(Reason.CLOCK_STOPPED, f"{words}: {_clock_stopped(moment)}")
    return Finding(Reason.NO_IMAGES, words, silence)


def _without_result(counts: FrameCounts, limits: Limits, moment: Moment) -> Iterator[Finding]:
    """What became of the images that came since the last result, if any did."""
    wait, age = counts.wait(moment.now), counts.expired_ms or 0.0
    why = {
        Reason.NO_CLOCK: "images have no stamp, and simulated time has not begun on /clock",
        Reason.IMAGES_TOO_OLD: f"images are older than max_age_ms = {limits.max_age_ms:g}, "
        f"the last one by {(age - limits.max_age_ms) / 1e3:.1f} s",
        Reason.IMAGES_LATE: "images have earlier stamps than one that was processed",
        Reason.SEVERAL_PUBLISHERS: "images of another camera on the topic are left out",
        Reason.RATE_LIMITED: f"images are left out to keep to max_rate = {limits.max_rate:g}",
        Reason.ENGINE_BUSY: "images wait for the inference thread",
    }
    reason = _cause(counts, wait, limits.max_rate)
    if reason is not None:
        yield Finding(reason, f"no result for {wait:.1f} s: {why[reason]}", wait)


def _cause(counts: FrameCounts, wait: float, max_rate: float) -> Reason | None:
    """For which reason the images since the last result gave none; None if no image came."""
    since = {reason: count for reason, count in counts.since_result().items() if count > 0}
    limited = since.pop(Reason.RATE_LIMITED, 0)
    if limited and max_rate > 0 and wait < 1.5 / max_rate:
        return Reason.RATE_LIMITED
    failed = since.pop(Reason.ALL_FRAMES_FAILED, 0)
    skipped = since.pop(Reason.ENGINE_BUSY, 0)  # others are, meanwhile, whatever the cause is
    if since:
        return max(since, key=lambda reason: since[reason])
    if failed > 1 or (failed and not skipped):  # it had its turn, and has a reason of its own
        return None
    if limited and not skipped:  # none waits for the thread long enough for another to come
        return Reason.RATE_LIMITED
    waits = (counts.arrived or -math.inf) > (counts.last_result or counts.watched_since)
    return Reason.ENGINE_BUSY if waits and counts.begun is None else None


def _flaws(
    status: NodeStatus, counts: FrameCounts, limits: Limits, moment: Moment
) -> Iterator[Finding]:
    """What is wrong although results may come."""
    if len(status.publishers) > 1:
        names = ", ".join(status.publishers)
        yield Finding(
            Reason.SEVERAL_PUBLISHERS,
            f"{len(status.publishers)} publishers on {status.subscription}, expected 1: {names}",
        )
    if moment.failed:
        yield Finding(Reason.FRAMES_FAILED, f"{moment.failed} frames failed: {counts.last_failure}")
    if moment.epoch_changes > MAX_RESETS:
        words = f"the epoch changed {moment.epoch_changes} times in {RESETS_S:g} s"
        yield Finding(Reason.REPEATED_RESETS, f"{words}: {counts.last_reset}")
    yield from _times(status, counts, limits, moment)
    if status.output_obstacle:
        yield Finding(Reason.OUTPUT_QOS_INCOMPATIBLE, status.output_obstacle)
    if not status.subscribers:
        yield Finding(Reason.NO_SUBSCRIBERS, "active, no output has a subscriber")


def _times(
    status: NodeStatus, counts: FrameCounts, limits: Limits, moment: Moment
) -> Iterator[Finding]:
    """What is wrong with stamps and clocks."""
    late = counts.latency_ms / 1e3  # NaN is neither late nor early
    yield Finding(Reason.RESULTS_LATE, f"results are {late:.1f} s late", late)
    words = f"stamps are {-late:.1f} s in the future of the node's clock"
    yield Finding(Reason.STAMPS_IN_FUTURE, words, -late)
    if status.simulated_time == 0:
        words = "simulated time has not begun: no message on /clock"
        watched = moment.now - counts.watched_since
        yield Finding(Reason.NO_CLOCK, words, min(watched, limits.error))  # results may come
    yield Finding(Reason.CLOCK_STOPPED, _clock_stopped(moment), moment.clock_stopped)


def _clock_stopped(moment: Moment) -> str:
    return f"simulated time has stood still for {moment.clock_stopped:.1f} s"
