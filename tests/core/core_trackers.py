"""The trackers of the core, without those that installed packages add."""

from __future__ import annotations

from video_knet_core.tracking import TRACKERS

CORE_TRACKERS = [
    name for name, tracker in TRACKERS.items() if tracker.__module__.startswith("video_knet_core.")
]
