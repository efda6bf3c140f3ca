"""Registers the trackers of this package; imported by an entry point, without torch."""

from __future__ import annotations

from . import masktrack as masktrack
from . import motion_offsets as motion_offsets
from . import stitching as stitching
from . import unitrack as unitrack
