"""One frame on disk: what the camera saw and what the node made of it."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from video_knet_core import visualize
from video_knet_core.messages.result_messages import FrameToPublish, nanoseconds


def save_snapshot(result: FrameToPublish, folder: Path) -> Path:
    """Write image.png, labels.png (16 bit), overlay.png and table.json.

    Args:
        result: a processed frame.
        folder: where a new folder, named by the stamp, is made.

    Returns:
        The new folder. It is complete or not there at all.

    Raises:
        OSError: it cannot be written; the message names the file.
    """
    image, frame, classes = result.image, result.frame, result.classes
    stamp = nanoseconds(result.header.stamp)
    table = {
        "frame_id": result.header.frame_id,
        "stamp": stamp,
        "epoch": frame.epoch,
        "tracks": frame.json_rows(classes),
    }
    folder.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".snapshot-", dir=folder))
    try:
        _write_png(partial / "image.png", image[..., ::-1])
        _write_png(partial / "labels.png", frame.labels)
        overlay = visualize.overlay(image, frame, classes, result.opacity)
        _write_png(partial / "overlay.png", overlay[..., ::-1])
        (partial / "table.json").write_text(json.dumps(table, indent=1))
        partial.chmod(0o755)  # temporary folders are the owner's alone
        return _rename(partial, f"{stamp // 10**9}.{stamp % 10**9:09d}")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # the disk may be gone; the error is raised
        raise


def _write_png(path: Path, pixels: NDArray) -> None:
    encoded, data = cv2.imencode(".png", np.ascontiguousarray(pixels))
    if not encoded:
        raise OSError(f"{path.name} cannot be encoded: {pixels.dtype} {pixels.shape}")
    path.write_bytes(data.tobytes())


def _rename(folder: Path, name: str) -> Path:
    """Give a folder its name, with a number if there is one of that name: stamps may come again,
    and other cameras may save into the same place at the same time."""
    path, number = folder.with_name(name), 1
    while True:
        try:
            return folder.rename(path)
        except OSError:
            if not path.exists():
                raise
        number += 1
        path = folder.with_name(f"{name}-{number}")
