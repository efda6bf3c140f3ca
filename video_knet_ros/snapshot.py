"""One frame on disk: what the camera saw and what the node made of it."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Header

from video_knet_core import visualize
from video_knet_core.messages.result_messages import nanoseconds
from video_knet_core.types import ClassTable, PanopticFrame


@dataclass(frozen=True)
class Snapshot:
    """A processed frame."""

    header: Header
    image: NDArray[np.uint8]
    """RGB [H, W, 3]."""
    frame: PanopticFrame

    def save(self, folder: Path, classes: ClassTable) -> Path:
        """Write image.png, labels.png (16 bit), overlay.png and table.json.

        Args:
            folder: where a new folder, named by the stamp, is made.
            classes: the class table of the model.

        Returns:
            The new folder. It is complete or not there at all.

        Raises:
            OSError: it cannot be written; the message names the file.
        """
        stamp = nanoseconds(self.header.stamp)
        folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".snapshot-", dir=folder))
        try:
            drawn = visualize.overlay(self.image, self.frame, classes)
            _write_png(partial / "image.png", self.image[..., ::-1])
            _write_png(partial / "labels.png", self.frame.labels)
            _write_png(partial / "overlay.png", drawn[..., ::-1])
            (partial / "table.json").write_text(json.dumps(self._table(classes), indent=1))
            partial.chmod(0o755)  # temporary folders are the owner's alone
            return _rename(partial, f"{stamp // 10**9}.{stamp % 10**9:09d}")
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)  # the disk may be gone; the error is raised
            raise

    def _table(self, classes: ClassTable) -> dict:
        return {
            "frame_id": self.header.frame_id,
            "stamp": nanoseconds(self.header.stamp),
            "epoch": self.frame.epoch,
            "tracks": self.frame.json_rows(classes),
        }


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
