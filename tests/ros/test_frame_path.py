"""The files that one frame crosses, as docs/explanation/how_it_works.md lists them."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from harness import image_message, street

from video_knet_core.engine.selector import open_runtime

REPO = Path(__file__).parents[2]
MOST_FILES = 15
PACKAGES = ("video_knet_core/", "video_knet_ros/")


def test_one_frame_crosses_few_files_from_the_callback_to_the_message(world):
    files: set[str] = set()

    def note(frame, event, argument):
        files.add(frame.f_code.co_filename)

    threading.setprofile(note)  # of the threads that start from here on: the engine's
    try:
        camera = world.camera_node(
            open_runtime=open_runtime, model="", backend="onnxruntime-cpu", max_rate=100.0
        )
    finally:
        threading.setprofile(None)
    tables = world.tables()
    world.send(world.publisher(), tables, street(0, scale=4))
    world.wait(lambda: camera.counts.processed, "the end of the first frame")
    files.clear()
    sys.setprofile(note)
    try:
        camera._on_image(image_message(street(1, scale=4), 101.0))
    finally:
        sys.setprofile(None)
    world.wait(lambda: camera.counts.processed == 2 and len(tables) == 2, "the second frame")
    names = [name.partition(f"{REPO}/")[2] or name.partition("site-packages/")[2] for name in files]
    crossed = sorted(n for n in names if n.startswith(PACKAGES) and "/msg/" not in n)
    assert len(crossed) <= MOST_FILES, crossed
    page = (REPO / "docs" / "explanation" / "how_it_works.md").read_text()
    assert [name for name in crossed if name.rpartition("/")[2] not in page] == []
