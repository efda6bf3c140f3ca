"""What all checks share: the status of a line."""

from __future__ import annotations

from collections.abc import Iterator

OK, ABSENT, WARNING, FAULT = "ok", "absent", "warning", "fault"
"""The status of a line; what is absent is not needed."""
Lines = Iterator[tuple[str, ...]]
"""Status, text and perhaps remedy of the lines of one section."""
DOCS = "https://video-knet-ros.github.io/video_knet_ros"
