"""How the node fares: counts kept per frame, told once a second on /diagnostics."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

PERIOD_S = 1.0


@dataclass
class FrameCounts:
    """What became of the images since activation: each is processed, failed or dropped.

    The executor's thread writes `received`, `arrived`, `skipped` and `limited`, the inference
    thread all the rest: no number has two writers.
    """

    received: int = 0
    arrived: float = field(default_factory=time.monotonic)
    """When the last image came, or the counting began."""
    skipped: int = 0
    """Replaced by a newer image before inference began, or withdrawn."""
    limited: int = 0
    """Not taken, to keep to `max_rate`."""
    expired: int = 0
    """Older than `max_age_ms` when their turn came."""
    failed: int = 0
    last_failure: str = ""
    processed: int = 0
    """Published, as far as anybody listens."""
    numbered: int = 0
    """Frames that were given a sequence number; those that then cannot be published leave a gap."""
    begun: float = 0.0
    """When the image under way was begun; 0 = none is."""
    latency_ms: float = math.nan
    inference_ms: float = math.nan
    dropped_told: int = 0
    """The part of `dropped` that earlier frames have told of."""

    @property
    def dropped(self) -> int:
        """Images that nobody looked at."""
        return self.skipped + self.limited + self.expired

    def next_frame(self, dropped: int) -> tuple[int, int]:
        """Sequence number of a new frame and the images dropped since the last one.

        Args:
            dropped: value of `dropped` when the frame was begun.
        """
        sequence, self.numbered = self.numbered, self.numbered + 1
        told, self.dropped_told = self.dropped_told, dropped
        return sequence, dropped - told


@dataclass(frozen=True)
class NodeStatus:
    """What a diagnostic message says beside the counts."""

    name: str
    state: str
    model: str
    task: str
    """Of the model: it decides which outputs there are."""
    engine: str
    """The backend that serves now."""
    engine_build: str
    """How far a better one is, or what came of it; empty if none is built."""
    fault: str
    """Why the last transition failed; empty if it did not."""
    subscription: str
    """Topic and reliability; empty when there is no subscription."""
    incompatible: str
    """Why a publisher's images cannot come; empty if all can."""
    made: Mapping[str, int]
    """Messages made for each output."""


@dataclass(frozen=True)
class Limits:
    """When a stopped camera or a late result is worth a word, in seconds."""

    warn: float
    error: float


@dataclass
class Reporter:
    """Turns counts into messages; remembers the last ones, for rates over the time between."""

    _received: int = 0
    _processed: int = 0
    _failed: int = 0
    _time: float = field(default_factory=time.monotonic)

    def report(
        self, stamp: Time, status: NodeStatus, counts: FrameCounts, limits: Limits
    ) -> DiagnosticArray:
        """The message for now; rates cover the time since the last call."""
        now = time.monotonic()
        elapsed = max(now - self._time, 1e-3)
        received = max(counts.received - self._received, 0)  # counts restart with an activation
        processed = max(counts.processed - self._processed, 0)
        failed = max(counts.failed - self._failed, 0)
        self._received, self._processed = counts.received, counts.processed
        self._failed, self._time = counts.failed, now
        level, message = _verdict(status, now, failed, counts, limits)
        rates = {"fps_in": f"{received / elapsed:.1f}", "fps_out": f"{processed / elapsed:.1f}"}
        values = _values(status, counts, rates)
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


def _values(
    status: NodeStatus, counts: FrameCounts, rates: Mapping[str, str]
) -> dict[str, str | int]:
    """What is told, by name."""
    return {
        "state": status.state,
        "model": status.model,
        "task": status.task,
        "engine": status.engine,
        "engine_build": status.engine_build,
        "subscription": status.subscription,
        **rates,
        "received": counts.received,
        "processed": counts.processed,
        "skipped": counts.skipped,
        "limited": counts.limited,
        "expired": counts.expired,
        "failed": counts.failed,
        "last_failure": counts.last_failure,
        "latency_ms": f"{counts.latency_ms:.1f}",
        "inference_ms": f"{counts.inference_ms:.1f}",
        **{f"published {topic}": count for topic, count in status.made.items()},
    }


def _verdict(
    status: NodeStatus, now: float, failed: int, counts: FrameCounts, limits: Limits
) -> tuple[bytes, str]:
    """Level and one-line message: the worst of what is wrong."""
    if status.fault:
        return DiagnosticStatus.ERROR, status.fault
    idle = status.state == "active" and not status.subscription
    found = [(DiagnosticStatus.OK, "active, but disabled" if idle else status.state)]
    if failed:
        found.append((DiagnosticStatus.WARN, f"{failed} frames failed: {counts.last_failure}"))
    if status.subscription:
        found += [
            (DiagnosticStatus.ERROR if seconds > limits.error else DiagnosticStatus.WARN, words)
            for seconds, words in _delays(status, now, counts)
            if seconds > limits.warn
        ]
    return max(found, key=lambda entry: entry[0])


def _delays(status: NodeStatus, now: float, counts: FrameCounts) -> list[tuple[float, str]]:
    """Seconds, and what takes them: the camera, the engine, or the way from the camera to here."""
    silence = now - counts.arrived
    reason = f": {status.incompatible}" if status.incompatible else ""
    stuck = now - counts.begun if counts.begun else 0.0
    late = 0.0 if math.isnan(counts.latency_ms) else counts.latency_ms / 1e3
    return [
        (stuck, f"one image has been under way for {stuck:.1f} s"),
        (silence, f"no images on {status.subscription} for {silence:.1f} s{reason}"),
        (late, f"results are {late:.1f} s late"),
    ]
