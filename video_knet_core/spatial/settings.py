"""Settings of the outputs in metres, as node parameters and options of a replay."""

from __future__ import annotations

from typing import Literal

from ..config_io import described_as, expect, number, settings_class
from ..types import ClassTable, plain_name

GROUND = "road,sidewalk,crosswalk,lane marking,terrain,ground,floor"


@settings_class
class SpatialSettings:
    """Of the outputs in metres."""

    target_frame: str = described_as(
        "", "Frame of positions and velocities, such as odom or map; empty = that of the camera."
    )
    depth_tolerance_ms: float = number(
        20.0,
        0,
        1000,
        "Maximum difference between the stamps of an image and its depth image, in ms.",
    )
    cloud_tolerance_ms: float = number(
        60.0,
        0,
        1000,
        "Maximum difference between the stamps of an image and its point cloud, in ms.",
    )
    min_range_m: float = number(0.2, 0, 1000, "Minimum depth that is used, in metres.")
    max_range_m: float = number(
        80.0, 0.1, 1000, "Maximum depth and range that are used, in metres."
    )
    rectified: bool = described_as(
        False, "The images are rectified: use P of the camera info, not K and distortion."
    )
    camera_height_m: float = number(
        0.0,
        0,
        100,
        "Height of the camera above flat ground, for ranges without depth; 0 = unknown.",
    )
    camera_pitch_deg: float = number(
        0.0, -90, 90, "Angle by which the camera looks down, in degrees, for ranges without depth."
    )
    ground_frame: str = described_as(
        "",
        "Frame whose plane z = 0 is the ground, such as base_footprint; replaces height and pitch.",
    )
    ground_classes: str = described_as(
        GROUND, "Comma-separated classes of drivable ground: free space, not obstacles."
    )
    point_stride: int = number(
        0, 0, 64, "Use every n-th row and column of a depth image; 0 = about 80,000 points."
    )
    obstacle_voxel_m: float = number(
        0.1, 0.01, 10, "Voxel size of obstacles and free space in metres: one point per voxel."
    )
    semantic_size: Literal["image", "cloud"] = described_as(
        "image", "Size of class and confidence image: that of the image, or of ~/points or ~/cloud."
    )
    mask_classes: str = described_as(
        "", "Comma-separated classes whose masks are published on ~/mask/CLASS/image."
    )
    follow_track: int = number(
        0, 0, 10**9, "Id of the track whose pose is published on ~/followed/pose; 0 = none."
    )

    def __post_init__(self) -> None:
        expect(
            self.min_range_m < self.max_range_m,
            "max_range_m",
            f"more than min_range_m = {self.min_range_m:g}",
            self.max_range_m,
        )


def class_ids(classes: ClassTable, names: str) -> list[int]:
    """Ids of the classes named in a list with commas; names that are no class are left out."""
    chosen = {plain_name(name) for name in names.split(",")} - {""}
    return [info.id for info in classes if plain_name(info.name) in chosen]
