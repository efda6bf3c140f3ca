"""How the node fares: counts kept per frame, told once a second on /diagnostics."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

PERIOD_S = 1.0


@dataclass
class FrameCounts:
    """What became of the images since activation.

    The executor's thread writes `received` and `skipped`, the inference thread all the rest: no
    number has two writers.
    """

    received: int = 0
    skipped: int = 0
    """Replaced by a newer image before inference began."""
    failed: int = 0
    last_failure: str = ""
    processed: int = 0
    latency_ms: float = math.nan
    inference_ms: float = math.nan
    skipped_told: int = 0
    """The part of `skipped` that earlier frames have told of."""

    def next_frame(self, skipped: int) -> tuple[int, int]:
        """Sequence number of a new processed frame and the images skipped since the last one.

        Args:
            skipped: value of `skipped` when the frame was begun.
        """
        sequence, self.processed = self.processed, self.processed + 1
        told, self.skipped_told = self.skipped_told, skipped
        return sequence, skipped - told


@dataclass(frozen=True)
class NodeStatus:
    """What a diagnostic message says beside the counts."""

    name: str
    state: str
    model: str
    engine: str
    """The backend that serves now."""
    engine_build: str
    """How far a better one is, or what came of it; empty if none is built."""
    configure_error: str
    subscription: str
    """Topic and reliability; empty when there is no subscription."""


@dataclass
class Reporter:
    """Turns counts into messages; remembers the last ones, for rates over the time between."""

    _received: int = 0
    _processed: int = 0
    _failed: int = 0
    _time: float = field(default_factory=time.monotonic)

    def report(self, stamp: Time, status: NodeStatus, counts: FrameCounts) -> DiagnosticArray:
        """The message for now; rates cover the time since the last call."""
        now = time.monotonic()
        elapsed = max(now - self._time, 1e-3)
        received = max(counts.received - self._received, 0)  # counts restart with an activation
        processed = max(counts.processed - self._processed, 0)
        failed = max(counts.failed - self._failed, 0)
        self._received, self._processed = counts.received, counts.processed
        self._failed, self._time = counts.failed, now
        level, message = _verdict(status, received, failed, counts)
        values = {
            "state": status.state,
            "model": status.model,
            "engine": status.engine,
            "engine_build": status.engine_build,
            "subscription": status.subscription,
            "fps_in": f"{received / elapsed:.1f}",
            "fps_out": f"{processed / elapsed:.1f}",
            "received": counts.received,
            "processed": counts.processed,
            "skipped": counts.skipped,
            "failed": counts.failed,
            "last_failure": counts.last_failure,
            "latency_ms": f"{counts.latency_ms:.1f}",
            "inference_ms": f"{counts.inference_ms:.1f}",
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


def _verdict(
    status: NodeStatus, received: int, failed: int, counts: FrameCounts
) -> tuple[bytes, str]:
    """Level and one-line message."""
    if status.configure_error:
        return DiagnosticStatus.ERROR, f"not configured: {status.configure_error}"
    if failed:
        return DiagnosticStatus.WARN, f"{failed} frames failed: {counts.last_failure}"
    if status.subscription and not received:
        return DiagnosticStatus.WARN, f"no images on {status.subscription}"
    return DiagnosticStatus.OK, status.state
