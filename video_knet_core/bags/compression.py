"""Zstandard (from the standard library where it has it), LZ4 and bzip2, also of data cut short."""

from __future__ import annotations

import bz2
import sys
from collections.abc import Callable
from typing import Any

from lz4.frame import LZ4FrameDecompressor

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""First bytes of a Zstandard frame; no message of ROS 2 begins like that."""
LARGEST, LARGEST_MESSAGE = 1 << 30, 1 << 28
"""Bytes that a chunk, and a message by itself, may have afterwards: a few kB can declare more than
the memory holds, and of messages several are held at a time."""
ZstdError = zstd.ZstdError
open_zstd = zstd.open
DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "zstd": zstd.ZstdDecompressor,
    "lz4": LZ4FrameDecompressor,
    "bz2": bz2.BZ2Decompressor,
}


def decompress(
    kind: str, data: bytes, size: int | None = None, cut: bool = False, largest: int | None = None
) -> bytes:
    """Decompress one frame of a `kind` of `DECOMPRESSORS`, or "" or "none".

    ValueError if it is damaged, has not `size` bytes afterwards or more than `largest` (by
    default `LARGEST`), or is of an
    unknown kind. Of one that is `cut` off, what there is of the data is returned.
    """
    largest = LARGEST if largest is None else largest
    if kind in ("", "none"):
        unpacked, complete = data, True
    elif kind not in DECOMPRESSORS:
        raise ValueError(f"expected a compression of {[*DECOMPRESSORS]}, got {kind!r}")
    else:
        decompressor = DECOMPRESSORS[kind]()
        try:
            limit = largest if size is None else min(size, largest)
            unpacked = decompressor.decompress(data, limit + 1)
        # The errors of zstd, lz4 and bz2 in this order; all is in memory, no file is read here.
        except (ZstdError, RuntimeError, OSError, EOFError, ValueError, OverflowError) as error:
            raise ValueError(f"{kind}: {error}") from None
        except MemoryError:  # the damaged size of a frame
            raise ValueError(f"{kind}: it needs more memory than there is") from None
        if len(unpacked) > largest:
            raise ValueError(f"{kind}: expected at most {largest} bytes, got more")
        complete = decompressor.eof
    if not cut:
        if size is not None and len(unpacked) != size:
            raise ValueError(f"expected {size} bytes, got {len(unpacked)}")
        if not complete:
            raise ValueError(f"{kind}: the end is missing")
    return unpacked
