"""Zstandard, from the standard library where it has it."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

zstd_decompress = zstd.decompress
zstd_compress = zstd.compress
open_zstd = zstd.open
