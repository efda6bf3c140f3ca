"""Range and velocity of tracks on synthetic streets, whose depth and motion are known exactly.

The truth of a range is the visible surface: what `find_surfaces` finds with the true mask and the
exact depth. So an error is one of the segmentation, of the depth and of the filter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthetic_street import SyntheticStreet
from synthetic_street.street import StreetObject

from ..bags.definitions import conversions
from ..data.street_frame import StreetFrame
from ..engine.base import Runtime
from ..geometry import LabelMap
from ..messages import view_messages
from ..predictor import VideoPredictor
from ..progress import progress_bar
from ..spatial.locator import ObjectLocator
from ..spatial.objects import RangeSource
from ..spatial.settings import SpatialSettings
from ..spatial.surfaces import RegionMap, find_surfaces, samples_of_depth
from ..tracking import TrackerSettings
from ..types import PanopticFrame, TrackState
from .scores import Scores

MIN_OVERLAP = 0.5
"""Intersection over union of a track's mask with that of the true object it is compared with."""
STEREO_NOISE = 0.002
"""Standard deviation of depth over its square [1/m], of a stereo camera."""
PARKED = 0.1
"""Speed in m/s up to which a true object is at rest."""
SETTLED_S = 1.0
"""Seconds after the first range of a track from which its velocity counts."""
DISTANCES = ((0, 10), (10, 20), (20, 30), (0, 30), (30, 50))
"""Ranges in metres by which the figures are given."""
ODOM, CAMERA = view_messages.ODOM_FRAME, "camera"
SOURCES = ("depth", "stereo", "ground")
"""Exact depth, depth with `STEREO_NOISE`, and no depth."""


@dataclass(frozen=True)
class _Truth:
    """An object in one frame."""

    position: NDArray[np.float64]
    """[3] of its visible surface, in the frame of the camera [m]."""
    object: StreetObject
    """Where and how large the whole of it is."""


_ROW = np.dtype(
    [
        *(("range", "f8"), ("error", "f8"), ("sigma", "f8"), ("has_range", "?")),
        ("off_box", "f8"),
        *(("speed", "f8"), ("velocity_error", "f8"), ("velocity_sigmas", "f8"), ("settled", "?")),
    ]
)
"""A confirmed track in one frame: true range, error of the range along the line of sight and its
stated standard deviation, distance from the box of the true object; true speed and length of the
error of the velocity."""


def evaluate_metres(
    runtime: Runtime, streets: Iterable[int], frames: int, tracking: TrackerSettings | None = None
) -> Scores:
    """Errors of a model's tracks in metres, by source of the range and distance.

    Args:
        streets: seeds.
        frames: of each street.
        tracking: settings of the tracker.

    Returns:
        A row for each source and distance: confirmed tracks seen, the fraction of them with a
        range; medians of the relative error of the range, of that in metres, and of the distance
        from the box of the true object; how many errors are
        within one and two of the stated standard deviations, of ranges and of velocities along the
        line of sight; medians of the length of the error of the velocity, of objects at rest and
        of moving ones.
    """
    rows: dict[str, list[NDArray[np.void]]] = {source: [] for source in SOURCES}
    for seed in streets:
        street = SyntheticStreet(seed, depth=True)
        for source, found in _street(runtime, street, frames, tracking).items():
            rows[source].extend(found)
    table, figures = {}, {}
    for source, found in rows.items():
        merged = np.concatenate(found) if found else np.zeros(0, _ROW)
        for low, high in DISTANCES:
            within = merged[(merged["range"] >= low) & (merged["range"] < high)]
            name = f"{source} {low}-{high} m"
            figures[name] = _figures(within)
            table[name] = list(figures[name].values())
    columns = [name for name in next(iter(figures.values()))]
    return Scores({"": columns}, table, figures, "range from, at")


def _figures(rows: NDArray[np.void]) -> dict[str, float]:
    ranged = rows[rows["has_range"]]
    error = np.abs(ranged["error"])
    moving = ranged[ranged["settled"] & (ranged["speed"] > PARKED)]["velocity_error"]
    parked = ranged[ranged["settled"] & (ranged["speed"] <= PARKED)]["velocity_error"]
    return {
        "tracks": len(rows),
        "ranged": len(ranged) / len(rows) if len(rows) else np.nan,
        "error": _median(error / ranged["range"]),
        "metres": _median(error),
        "off box": _median(ranged["off_box"]),
        "1 sigma": _mean(error <= ranged["sigma"]),
        "2 sigma": _mean(error <= 2 * ranged["sigma"]),
        "v 1 sigma": _mean(ranged[ranged["settled"]]["velocity_sigmas"] <= 1),
        "v 2 sigma": _mean(ranged[ranged["settled"]]["velocity_sigmas"] <= 2),
        "parked m/s": _median(parked),
        "moving m/s": _median(moving),
    }


def _median(values: NDArray) -> float:
    return float(np.median(values)) if len(values) else np.nan


def _mean(values: NDArray) -> float:
    return float(np.mean(values)) if len(values) else np.nan


def _street(
    runtime: Runtime, street: SyntheticStreet, frames: int, tracking: TrackerSettings | None
) -> dict[str, list[NDArray[np.void]]]:
    predictor = VideoPredictor(runtime, tracking)
    settings = SpatialSettings(target_frame=ODOM)
    # the pitch is that of the mount: the camera looks along the road, and its vibration is unknown
    mount = replace(settings, camera_height_m=street.style.camera_height)
    locators = {
        source: ObjectLocator(predictor.classes, mount if source == "ground" else settings)
        for source in SOURCES
    }
    found: dict[str, list[NDArray[np.void]]] = {source: [] for source in SOURCES}
    since: dict[str, dict[int, int]] = {source: {} for source in SOURCES}
    rng = np.random.default_rng([street.seed, 8])
    for t in progress_bar(range(frames), f"street {street.seed}", leave=False):
        truth, stamp = street.frame(t), round(t * 1e9 / street.fps)
        assert truth.depth is not None
        frame, objects = predictor.step(truth.image, stamp), _true_objects(street, truth, t)
        noise = rng.standard_normal(truth.depth.shape, dtype=np.float32)
        depths = {
            "depth": truth.depth,
            "stereo": truth.depth + STEREO_NOISE * truth.depth**2 * noise,
        }
        for source, locator in locators.items():
            _add_messages(locator, street, t, stamp, depths.get(source))
            spatial = locator.locate(frame, truth.image, CAMERA, stamp)
            table = spatial.objects
            assert table is not None, locator.inputs.reasons
            rows = {int(row["track_id"]): row for row in table.rows}
            for track, row in rows.items():
                if row["source"] != RangeSource.NONE:
                    since[source].setdefault(track, stamp)
            found[source].append(
                _compare(frame, truth, objects, rows, spatial.to_target, since[source], stamp)
            )
    return found


def _add_messages(
    locator: ObjectLocator,
    street: SyntheticStreet,
    t: int,
    stamp: int,
    depth: NDArray[np.float32] | None,
) -> None:
    """The messages that a robot would send."""
    convert, inputs = conversions(), locator.inputs
    header = convert.find("std_msgs/msg/Header")
    time = convert.time_message(stamp)
    of_camera = header(stamp=time, frame_id=CAMERA)
    size = street.height, street.width
    inputs.add_camera_info(view_messages.camera_info(convert, of_camera, street.intrinsics, size))
    of_odom = header(stamp=time, frame_id=ODOM)
    pose = street.pose(t)
    inputs.add_odometry(view_messages.odometry(convert, of_odom, CAMERA, pose, np.zeros(6)))
    if depth is not None:
        inputs.add_depth(view_messages.depth_image(convert, of_camera, depth))


def _true_objects(street: SyntheticStreet, truth: StreetFrame, t: int) -> dict[int, _Truth]:
    """The visible objects by their true id."""
    ids = np.unique(truth.instance[truth.instance > 0]).astype(np.int64)
    if not len(ids) or truth.depth is None:
        return {}
    known = {o.track_id: o for o in street.objects(t)}
    regions = RegionMap.of(LabelMap.of(truth.instance), ids)
    rays = _rays(street)
    surfaces = find_surfaces(samples_of_depth(regions, truth.depth, rays, (0.1, 200.0)), len(ids))
    return {
        int(number): _Truth(surfaces.position[row], known[int(number)])
        for row, number in enumerate(ids)
        if surfaces.points[row] and int(number) in known
    }


def _rays(street: SyntheticStreet) -> NDArray[np.float32]:
    v, u = np.mgrid[: street.height, : street.width]
    camera = street.intrinsics
    rays = [(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy]
    return np.stack(rays, axis=-1).astype(np.float32)


def _compare(
    frame: PanopticFrame,
    truth: StreetFrame,
    objects: Mapping[int, _Truth],
    rows: Mapping[int, Any],
    to_target: NDArray[np.float64],
    since: Mapping[int, int],
    stamp: int,
) -> NDArray[np.void]:
    """The confirmed tracks of a frame that are true objects."""
    matches = _matches(frame, truth.instance, sorted(objects))
    out = np.zeros(len(matches), _ROW)
    for row, (track, number) in zip(out, matches, strict=True):
        true, measured = objects[number], rows.get(track)
        distance = float(np.linalg.norm(true.position))
        row["range"], row["speed"] = distance, np.linalg.norm(true.object.velocity)
        if measured is None:
            continue
        sight = to_target[:3, :3] @ (true.position / distance)
        place = to_target[:3, :3] @ true.position + to_target[:3, 3]
        row["has_range"] = True
        row["error"] = (measured["position"] - place) @ sight
        row["sigma"] = np.sqrt(sight @ measured["position_covariance"] @ sight)
        row["off_box"] = _distance_to_box(measured["position"], true.object)
        wrong = measured["velocity"] - true.object.velocity
        row["velocity_error"] = np.linalg.norm(wrong)
        along = sight @ measured["velocity_covariance"] @ sight
        row["velocity_sigmas"] = abs(wrong @ sight) / np.sqrt(along)
        row["settled"] = stamp - since[track] >= SETTLED_S * 1e9 and not np.isnan(
            row["velocity_error"]
        )
    return out


def _distance_to_box(position: NDArray[np.float64], target: StreetObject) -> float:
    """Metres from a position in the fixed frame to the box of an object; 0 inside."""
    cos, sin = np.cos(target.yaw), np.sin(target.yaw)
    x, y, z = position - target.position
    local = np.abs([cos * x + sin * y, cos * y - sin * x, z]) - target.size / 2
    return float(np.linalg.norm(np.maximum(local, 0)))


def _matches(
    frame: PanopticFrame, instance: NDArray[np.uint16], numbers: Sequence[int]
) -> list[tuple[int, int]]:
    """Confirmed track and true object whose masks overlap enough."""
    found = []
    for track in frame.tracks:
        if not track.label or not track.track_id or track.state != TrackState.CONFIRMED:
            continue
        mask = frame.mask(track)
        under, counts = np.unique(instance[mask], return_counts=True)
        best = int(under[counts.argmax()])
        shared = int(counts.max())
        union = int(mask.sum()) + int((instance == best).sum()) - shared
        if best in numbers and shared >= MIN_OVERLAP * union:
            found.append((track.track_id, best))
    return found
