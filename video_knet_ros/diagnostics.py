"""The state of a node as a message of /diagnostics, once a second."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from .frame_counts import FrameCounts as FrameCounts
from .verdict import RESETS_S, Limits, Moment, verdict
from .verdict import NodeStatus as NodeStatus

PERIOD_S = 1.0


@dataclass
class Reporter:
    """Turns counts into messages; keeps the last ones, for rates over the time between."""

    _received: int = 0
    _processed: int = 0
    _failed: int = 0
    _time: float = field(default_factory=time.monotonic)
    _changes: deque[tuple[float, int]] = field(default_factory=deque)
    _clock: tuple[float | None, float] = (None, 0.0)
    _state: tuple[str, float] = ("", 0.0)

    def report(
        self, stamp: Time, status: NodeStatus, counts: FrameCounts, limits: Limits
    ) -> DiagnosticArray:
        """The message for now; rates cover the time since the last call."""
        now = time.monotonic()
        elapsed = max(now - self._time, 1e-3)
        received = max(counts.received - self._received, 0)  # counts restart with an activation
        processed = max(counts.processed - self._processed, 0)
        moment = Moment(
            now=now,
            failed=max(counts.failed - self._failed, 0),
            epoch_changes=self._recent_changes(now, counts.epoch_changes),
            clock_stopped=self._clock_stopped(now, status.simulated_time),
            in_state=self._in_state(now, status.state),
        )
        self._received, self._processed = counts.received, counts.processed
        self._failed, self._time = counts.failed, now
        level, reason, message = verdict(status, counts, limits, moment)
        rates = {"fps_in": f"{received / elapsed:.1f}", "fps_out": f"{processed / elapsed:.1f}"}
        values = _values(status, counts, reason, rates)
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

    def _recent_changes(self, now: float, changes: int) -> int:
        """Changes of the epoch within the last `RESETS_S`."""
        if not self._changes or changes < self._changes[-1][1]:
            self._changes = deque([(now, 0)])  # counts restart with an activation
        self._changes.append((now, changes))
        while self._changes[0][0] < now - RESETS_S:
            self._changes.popleft()
        return changes - self._changes[0][1]

    def _in_state(self, now: float, state: str) -> float:
        """Seconds since the first report of this state, which has followed another one."""
        if state != self._state[0]:
            self._state = (state, now)
        return now - self._state[1]

    def _clock_stopped(self, now: float, simulated_time: float | None) -> float:
        """Seconds for which simulated time has stood still."""
        if simulated_time != self._clock[0]:
            self._clock = (simulated_time, now)
        return now - self._clock[1] if simulated_time else 0.0


def _values(
    status: NodeStatus, counts: FrameCounts, reason: str, rates: Mapping[str, str]
) -> dict[str, object]:
    """The values of the message, by name."""
    return {
        "state": status.state,
        "reason": reason,
        "model": status.model,
        "task": status.task,
        "engine": status.engine,
        "engine_build": status.engine_build,
        "subscription": status.subscription,
        "publishers": ", ".join(status.publishers),
        **rates,
        "received": counts.received,
        "processed": counts.processed,
        "skipped": counts.skipped,
        "limited": counts.limited,
        "expired": counts.expired,
        "late": counts.late,
        "interleaved": counts.interleaved,
        "undated": counts.undated,
        "failed": counts.failed,
        "last_failure": counts.last_failure,
        "tracker_epoch": "" if counts.epoch is None else counts.epoch,
        "resets": counts.resets,
        "last_reset": counts.last_reset,
        "latency_ms": f"{counts.latency_ms:.1f}",
        "inference_ms": f"{counts.inference_ms:.1f}",
        **{f"published {topic}": count for topic, count in status.made.items()},
    }
