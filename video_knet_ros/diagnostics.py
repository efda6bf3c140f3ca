"""The diagnostics message of a node: its counts, and the most severe reason for missing results."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from .input_images import DROPPED, FrameCounts

PERIOD_S = 1.0
RESETS_S = 10.0
"""Time over which resets of the tracker are counted."""
MAX_RESETS = 3
"""More resets than this within `RESETS_S` are a warning: no id lives long enough to be used."""
LOG_AGAIN_S = 10.0
"""Time within which the log does not repeat a reason."""
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class Level(Enum):
    """Level of a reason, as the documentation has it."""

    OK = "OK"
    WARN = "WARN"
    ERROR = "ERROR"
    RISING = "WARN, then ERROR"
    """By the time that it has lasted; see `Limits`."""


class Reason(Enum):
    """Every reason for which nothing is published, or what is published cannot be relied on: the
    value `reason` of /diagnostics, and its level.

    docs/reference/topics.md has the same rows, in the same order. Of several reasons of the
    same level the first one is reported.
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
    NO_METRES = "no_metres", Level.WARN
    NO_SUBSCRIBERS = "no_subscribers", Level.OK

    def __init__(self, key: str, level: Level) -> None:
        self.key, self.level = key, level


class Finding(NamedTuple):
    """A reason, in words."""

    reason: Reason
    message: str
    seconds: float | None = None
    """For how long, or by how much it is too late: reported once this is over `Limits.warn`.
    None = reported at once."""


@dataclass
class NodeStatus:
    """What a diagnostics message contains beside the counts."""

    name: str
    state: str = "unconfigured"
    model: str = ""
    task: str = ""
    engine: str = ""
    """The backend in use."""
    engine_build: str = ""
    """Progress or result of building a better one; empty if none is built."""
    fault: str = ""
    """Why the last transition failed, or what it left behind; empty if all is well."""
    subscription: str = ""
    """Topic and reliability; empty without a subscription."""
    obstacle: Finding | None = None
    """Why the images of a publisher cannot arrive; None if all can."""
    publishers: tuple[str, ...] = ()
    """Nodes that publish images on the topic; one with two publishers is there twice."""
    published: Mapping[str, int] = field(default_factory=dict)
    """Messages published on each output."""
    subscribers: int = 0
    """Of the outputs that are published for each frame."""
    output_obstacle: str = ""
    """Why an output cannot reach one of its subscribers; empty if all can be reached."""
    spatial: Mapping[str, int] = field(default_factory=dict)
    """Inputs of the outputs in metres, used, missing or faulty; empty while none is needed."""
    spatial_reasons: Mapping[str, str] = field(default_factory=dict)
    """Why such an input could not be used recently."""
    simulated_time: float | None = None
    """Seconds on /clock, 0 before it begins; None = the node uses the clock of the machine."""


class Limits(NamedTuple):
    """Parameters that decide what is reported."""

    warn: float
    """Seconds after which a stopped camera or a late result is a warning."""
    error: float
    """Seconds after which it is an error."""
    max_rate: float = 0.0
    max_age_ms: float = 0.0


class Reporter:
    """Turns counts into messages; keeps the last ones, for rates over the time between."""

    def __init__(self) -> None:
        self._time = time.monotonic()
        self._last: dict[str, int] = {}
        self._epoch_changes: deque[tuple[float, int]] = deque()
        self._since: dict[str, tuple[object, float]] = {}
        self._logged: dict[str, bytes] = {}
        """Reasons that the log has as lasting, and their level."""
        self._logged_at: dict[tuple[str, bytes], float] = {}
        self.log_lines: list[tuple[bytes, str]] = []
        """Level and words that the log should have after the last report."""

    def report(
        self, stamp: Time, status: NodeStatus, counts: FrameCounts, limits: Limits
    ) -> DiagnosticArray:
        """The message for now; rates cover the time since the last call."""
        now = time.monotonic()
        elapsed = max(now - self._time, 1e-3)
        totals = {name: getattr(counts, name) for name in ("received", "processed", "failed")}
        # counts restart with an activation
        new = {name: max(count - self._last.get(name, 0), 0) for name, count in totals.items()}
        self._time, self._last = now, totals
        clock_stopped = self._unchanged_s("clock", status.simulated_time, now)
        found = Diagnosis(
            status,
            counts,
            limits,
            now,
            new["failed"],
            self._recent_epoch_changes(counts.epoch_changes, now),
            clock_stopped if status.simulated_time else 0.0,
            self._unchanged_s("state", status.state, now),
        ).found()
        level, reason, message = found[0] if found else (OK, "", status.state)
        if status.state == "active":
            self.log_lines = list(self._new_lines(found, now))
        else:  # a transition has its own lines
            self._logged, self.log_lines = {}, []
        values = {
            "state": status.state,
            "reason": reason,
            **_attributes(status, "model", "task", "engine", "engine_build", "subscription"),
            "publishers": ", ".join(status.publishers),
            "fps_in": f"{new['received'] / elapsed:.1f}",
            "fps_out": f"{new['processed'] / elapsed:.1f}",
            **_attributes(counts, "received", "processed", *DROPPED, "failed", "last_failure"),
            "tracker_epoch": "" if counts.epoch is None else counts.epoch,
            **_attributes(counts, "resets", "last_reset"),
            "latency_ms": f"{counts.latency_ms:.1f}",
            "inference_ms": f"{counts.inference_ms:.1f}",
            **{f"published {topic}": count for topic, count in status.published.items()},
            **{f"metres: {what}": count for what, count in status.spatial.items()},
        }
        entry = DiagnosticStatus(
            level=level,
            name=f"{status.name}: frames",
            message=message,
            hardware_id=status.model,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        out = DiagnosticArray(status=[entry])
        out.header.stamp = stamp
        return out

    def _new_lines(
        self, found: list[tuple[bytes, str, str]], now: float
    ) -> Iterator[tuple[bytes, str]]:
        """`log_lines`: reasons that begin or become more severe, and those that end."""
        for level, reason, message in found:
            if level == OK or reason == Reason.FRAMES_FAILED.key:  # each such frame is logged
                continue
            recent = now - self._logged_at.get((reason, level), -math.inf) < LOG_AGAIN_S
            if level > self._logged.get(reason, OK) and not recent:
                self._logged[reason] = level
                self._logged_at[reason, level] = now
                yield level, f"{reason}: {message}"
        for reason in self._logged.keys() - {reason for _, reason, _ in found}:
            del self._logged[reason]
            yield OK, f"{reason} has ended"

    def _recent_epoch_changes(self, changes: int, now: float) -> int:
        """Changes of the epoch within the last `RESETS_S`."""
        history = self._epoch_changes
        if not history or changes < history[-1][1]:
            history.clear()
            history.append((now, 0))
        history.append((now, changes))
        while history[0][0] < now - RESETS_S:
            history.popleft()
        return changes - history[0][1]

    def _unchanged_s(self, name: str, value: object, now: float) -> float:
        """Seconds since the first report with this value."""
        if name not in self._since or self._since[name][0] != value:
            self._since[name] = value, now
        return now - self._since[name][1]


def _attributes(source: object, *names: str) -> dict[str, object]:
    return {name: getattr(source, name) for name in names}


@dataclass(frozen=True)
class Diagnosis:
    """Finds the reasons for missing or unreliable results."""

    status: NodeStatus
    counts: FrameCounts
    limits: Limits
    now: float
    """Value of `time.monotonic`."""
    failed: int = 0
    """Frames that failed since the last report."""
    epoch_changes: int = 0
    """Of the last `RESETS_S`."""
    clock_stopped_s: float = 0.0
    """Seconds for which simulated time has not advanced."""
    in_state_s: float = 0.0
    """Seconds in the present state of the lifecycle."""

    def found(self) -> list[tuple[bytes, str, str]]:
        """Level, key and one-line message of each reason, the most severe first."""
        order = list(Reason)
        findings = [
            f for f in self._findings() if f.seconds is None or f.seconds > self.limits.warn
        ]
        findings.sort(key=lambda f: (self._level(f), -order.index(f.reason)), reverse=True)
        return [(self._level(f), f.reason.key, f.message) for f in findings]

    def _level(self, finding: Finding) -> bytes:
        if finding.reason.level is Level.RISING:
            return ERROR if (finding.seconds or 0.0) > self.limits.error else WARN
        return {Level.OK: OK, Level.WARN: WARN, Level.ERROR: ERROR}[finding.reason.level]

    def _findings(self) -> Iterator[Finding]:
        status = self.status
        if status.state == "configuring":
            words = f"the engine has been opening for {self.in_state_s:.1f} s"
            at_once = math.nextafter(self.limits.warn, math.inf)
            yield Finding(Reason.CONFIGURING, words, max(self.in_state_s, at_once))
        elif status.fault:
            yield Finding(Reason.TRANSITION_FAILED, status.fault)
        elif status.state in ("unconfigured", "inactive", "finalized"):
            yield Finding(Reason[status.state.upper()], status.state)
        elif not status.subscription:
            yield Finding(Reason.DISABLED, "active, but disabled by the parameter enabled")
        else:
            yield from self._without_result()
            yield from self._with_results()

    def _without_result(self) -> Iterator[Finding]:
        """Why there is no result."""
        counts, wait = self.counts, self.counts.without_result_s(self.now)
        yield self._no_images()
        if (begun := counts.begun) is not None:
            running = self.now - begun
            words = f"inference on one image has been running for {running:.1f} s"
            yield Finding(Reason.INFERENCE_STUCK, words, running)
        if counts.since_result()["failed"] > 1 and wait > self.limits.warn:
            yield Finding(Reason.ALL_FRAMES_FAILED, f"all frames failed: {counts.last_failure}")
        fate = self._fate_of_images(wait)
        if fate is not None:
            reason, words = self._fates()[fate]
            yield Finding(reason, f"no result for {wait:.1f} s: {words}", wait)

    def _no_images(self) -> Finding:
        """That no images arrive, and why, as far as that is known."""
        status, counts = self.status, self.counts
        silence = self.now - max(counts.arrived or -math.inf, counts.watched_since)
        words = f"no images on {status.subscription} for {silence:.1f} s"
        if status.obstacle is not None:
            reason, why, _ = status.obstacle
            return Finding(reason, f"{words}: {why}", silence)
        if not status.publishers:
            return Finding(Reason.NO_PUBLISHER, f"{words}: the topic has no publisher", silence)
        if min(silence, self.clock_stopped_s) > self.limits.warn:  # the simulation is paused
            return Finding(Reason.CLOCK_STOPPED, f"{words}: {self._clock_stopped()}")
        return Finding(Reason.NO_IMAGES, words, silence)

    def _fates(self) -> dict[str, tuple[Reason, str]]:
        """What it means that images were dropped, by the name of their count."""
        max_age, max_rate = self.limits.max_age_ms, self.limits.max_rate
        too_old = f"images are older than max_age_ms = {max_age:g}, the last one by"
        excess = (self.counts.expired_ms - max_age) / 1e3
        no_clock = "images have no stamp, and simulated time has not begun on /clock"
        late = "images have earlier stamps than one that was processed"
        limited = f"images are dropped because of max_rate = {max_rate:g}"
        return {
            "undated": (Reason.NO_CLOCK, no_clock),
            "expired": (Reason.IMAGES_TOO_OLD, f"{too_old} {excess:.1f} s"),
            "late": (Reason.IMAGES_LATE, late),
            "interleaved": (
                Reason.SEVERAL_PUBLISHERS,
                "images of another camera on the topic are dropped",
            ),
            "limited": (Reason.RATE_LIMITED, limited),
            "skipped": (Reason.ENGINE_BUSY, "images wait for the inference thread"),
        }

    def _fate_of_images(self, wait: float) -> str | None:
        """The count that explains why there was no result for `wait` seconds; None if none does."""
        counts, max_rate = self.counts, self.limits.max_rate
        since = {name: count for name, count in counts.since_result().items() if count > 0}
        limited = since.pop("limited", 0)
        if limited and max_rate > 0 and wait < 1.5 / max_rate:
            return "limited"
        failed = since.pop("failed", 0)
        skipped = since.pop("skipped", 0)  # whatever the cause is, others are skipped, too
        if since:
            return max(since, key=lambda name: since[name])
        if failed > 1 or (failed and not skipped):  # reported as failed frames
            return None
        if limited and not skipped:  # none waits for the thread long enough for another to arrive
            return "limited"
        waits = (counts.arrived or -math.inf) > (counts.last_result or counts.watched_since)
        return "skipped" if waits and counts.begun is None else None

    def _with_results(self) -> Iterator[Finding]:
        """What is wrong although there may be results."""
        status, counts, count = self.status, self.counts, len(self.status.publishers)
        if count > 1:
            names = ", ".join(status.publishers)
            words = f"{count} publishers on {status.subscription}, expected 1: {names}"
            yield Finding(Reason.SEVERAL_PUBLISHERS, words)
        if self.failed:
            words = f"{self.failed} frames failed: {counts.last_failure}"
            yield Finding(Reason.FRAMES_FAILED, words)
        if self.epoch_changes > MAX_RESETS:
            words = f"the epoch changed {self.epoch_changes} times in {RESETS_S:g} s"
            yield Finding(Reason.REPEATED_RESETS, f"{words}: {counts.last_reset}")
        yield from self._times()
        if status.output_obstacle:
            yield Finding(Reason.OUTPUT_QOS_INCOMPATIBLE, status.output_obstacle)
        if status.spatial_reasons:
            words = "; ".join(f"{name}: {why}" for name, why in status.spatial_reasons.items())
            yield Finding(Reason.NO_METRES, f"results in the image only: {words}")
        if not status.subscribers:
            yield Finding(Reason.NO_SUBSCRIBERS, "active, no output has a subscriber")

    def _times(self) -> Iterator[Finding]:
        """What is wrong with stamps and clocks."""
        late = self.counts.latency_ms / 1e3  # NaN is neither late nor early
        yield Finding(Reason.RESULTS_LATE, f"results are {late:.1f} s late", late)
        words = f"stamps are {-late:.1f} s in the future of the node's clock"
        yield Finding(Reason.STAMPS_IN_FUTURE, words, -late)
        if self.status.simulated_time == 0:
            words = "simulated time has not begun: no message on /clock"
            watched = self.now - self.counts.watched_since  # there may be results: no error
            yield Finding(Reason.NO_CLOCK, words, min(watched, self.limits.error))
        yield Finding(Reason.CLOCK_STOPPED, self._clock_stopped(), self.clock_stopped_s)

    def _clock_stopped(self) -> str:
        return f"simulated time has not advanced for {self.clock_stopped_s:.1f} s"
