"""The executable `camera_node` with a painted engine that hangs or fails as $FAULT has it."""

from __future__ import annotations

import os
import threading
from typing import Any

from harness import PaintedRuntime

from video_knet_ros import lifecycle, node, process
from video_knet_ros.engines import EnginePool

FAULT = os.environ["FAULT"]


def hang_at(place: str) -> None:
    if place == FAULT:
        threading.Event().wait()


class FaultyRuntime(PaintedRuntime):
    def step(self, image: Any, state: Any) -> Any:
        print("in a step", flush=True)
        hang_at("step")
        return super().step(image, state)

    def close(self) -> None:
        hang_at("close")
        if FAULT == "close raises":
            raise RuntimeError("the GPU is gone")


def open_faulty(path: Any, **options: Any) -> FaultyRuntime:
    print("opening", flush=True)
    hang_at("open")
    return FaultyRuntime()


def main() -> int:
    lifecycle.CLOSE_WAIT_S = 0.5
    return process.run(lambda: [node.CameraNode(EnginePool(open_faulty))], None)
