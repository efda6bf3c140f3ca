"""Numbers of tracker epochs, which with a track id name an object in any log.

Each reset counts one up, so that numbers of 48 bits stay exact in JSON, whose integers have 53.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BYTES = 6
SAMPLES, SAMPLE_BYTES = 64, 1024
"""What `sample_of` reads of a file."""


def new_epoch() -> int:
    """First epoch of a live stream: random, because nothing is known of earlier processes."""
    return int.from_bytes(os.urandom(BYTES), "big")


def epoch_of(image: NDArray[np.uint8], *facts: object) -> int:
    """First epoch of a recording: the same whenever the same is processed in the same way.

    Args:
        image: [H, W, 3] the first one.
        facts: all else that decides the results, with a `repr` that shows it.
    """
    digest = hashlib.sha256(repr((image.shape, facts)).encode())
    digest.update(np.ascontiguousarray(image).data)
    return int.from_bytes(digest.digest()[:BYTES], "big")


def facts_of(source: str) -> tuple[str, int]:
    """Name and bytes of a video, which distinguish it from others with the same first image.

    Args:
        source: a file or folder, or another source of frames, which has no bytes.
    """
    path = Path(source)
    files = path.iterdir() if path.is_dir() else [path]
    return path.name, sum(file.stat().st_size for file in files if file.is_file())


def sample_of(files: Iterable[Path]) -> str:
    """What distinguishes files from others of the same size, read at places all over them."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest.update(str(size).encode())
            for number in range(SAMPLES):
                file.seek(max(size - SAMPLE_BYTES, 0) * number // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
