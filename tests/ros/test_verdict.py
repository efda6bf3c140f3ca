"""From counts to the worst reason, without a node."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from video_knet_ros import verdict
from video_knet_ros.frame_counts import FrameCounts
from video_knet_ros.reasons import Reason
from video_knet_ros.verdict import Limits

WARN, ERROR = DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def verdict_of_2_s(counts: dict[str, int], limits: Limits) -> tuple[bytes, str]:
    """Level and key for what became of the images of 2 s without a result."""
    status = verdict.NodeStatus("camera", "active", subscription="image", publishers=("driver",))
    since = FrameCounts(arrived=11.9, last_result=10.0, watched_since=0.0, **counts)
    moment = verdict.Moment(now=12.0, failed=0, epoch_changes=0, clock_stopped=0.0, in_state=12.0)
    return verdict.verdict(status, since, limits, moment)[:2]


@pytest.mark.parametrize(
    ("counts", "reason", "early"),
    [
        ({"late": 3}, Reason.IMAGES_LATE, WARN),
        ({"failed": 3}, Reason.ALL_FRAMES_FAILED, ERROR),
        ({"failed": 3, "skipped": 9}, Reason.ALL_FRAMES_FAILED, ERROR),
        ({"failed": 3, "limited": 9}, Reason.ALL_FRAMES_FAILED, ERROR),
        ({"failed": 1, "skipped": 9}, Reason.ENGINE_BUSY, WARN),
        ({"skipped": 9}, Reason.ENGINE_BUSY, WARN),
        ({"skipped": 9, "limited": 9}, Reason.ENGINE_BUSY, WARN),
    ],
)
def test_what_became_of_images_without_a_result_is_a_reason_and_an_error_in_time(
    counts, reason, early
):
    assert verdict_of_2_s(counts, Limits(1.0, 5.0, max_rate=10.0)) == (early, reason.key)
    assert verdict_of_2_s(counts, Limits(1.0, 1.5, max_rate=10.0)) == (ERROR, reason.key)
