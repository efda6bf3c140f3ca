"""Between messages and numpy: the only file that knows both."""

from __future__ import annotations

import math
from array import array

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from video_knet_core.types import ClassTable, PanopticFrame, Track

from .msg import ClassInfo, ClassMap, TrackedInstance, TrackedInstanceArray

NANOSECONDS = 1_000_000_000

_KEEP = -1
"""In place of an OpenCV conversion code: the pixels are RGB already."""

_ENCODINGS: dict[str, tuple[int, int]] = {
    "rgb8": (3, _KEEP),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "8UC1": (1, cv2.COLOR_GRAY2RGB),
    "mono16": (2, cv2.COLOR_GRAY2RGB),
    "bayer_rggb8": (1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGRBG2RGB),
    "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuyv": (2, cv2.COLOR_YUV2RGB_YUYV),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUYV),
}
"""Encoding -> bytes per pixel and OpenCV conversion to RGB."""

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG", b"IEND"


class ImageError(ValueError):
    """An image message that cannot be used; the message names what was found and what is wanted."""


def to_rgb(message: Image | CompressedImage) -> NDArray[np.uint8]:
    """Pixels of a raw or compressed image as RGB uint8 [H, W, 3]; ImageError if it is unusable.

    An rgb8 image without row padding is not copied: the result shares the message's memory.
    """
    if isinstance(message, CompressedImage):
        return _decode(message)
    bytes_per_pixel, code = _lookup(message.encoding)
    pixels = _pixels(message, bytes_per_pixel)
    if message.encoding == "mono16":
        pixels = pixels[..., :1] if message.is_bigendian else pixels[..., 1:]  # the high byte
    if code == _KEEP:
        return np.ascontiguousarray(pixels)
    try:
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), code), np.uint8)
    except cv2.error as error:
        raise ImageError(
            f"{message.width} x {message.height} pixels cannot be {message.encoding}: {error.err}"
        ) from None


def _lookup(encoding: str) -> tuple[int, int]:
    try:
        return _ENCODINGS[encoding]
    except KeyError:
        raise ImageError(
            f"unknown encoding {encoding!r}; wanted one of {', '.join(_ENCODINGS)}"
        ) from None


def _pixels(message: Image, bytes_per_pixel: int) -> NDArray[np.uint8]:
    """View the data as [H, W, bytes_per_pixel], checked against height, width and step."""
    height, width, step = message.height, message.width, message.step
    if not height or not width:
        raise ImageError(f"empty image: {width} x {height} pixels")
    if step < width * bytes_per_pixel:
        raise ImageError(
            f"wrong step: {step} bytes, wanted at least {width * bytes_per_pixel} "
            f"for {width} {message.encoding} pixels"
        )
    if len(message.data) != height * step:
        raise ImageError(
            f"wrong amount of data: {len(message.data)} bytes, wanted {height * step} "
            f"for {height} rows of {step} bytes"
        )
    return np.ndarray(
        (height, width, bytes_per_pixel),
        np.uint8,
        buffer=message.data,
        strides=(step, bytes_per_pixel, 1),
    )


def _decode(message: CompressedImage) -> NDArray[np.uint8]:
    data = bytes(message.data)
    found = f"{len(data)} bytes of format {message.format!r}"
    if not data.startswith((_JPEG_START, _PNG_START)):
        raise ImageError(f"not an image: {found}, wanted JPEG or PNG")
    end = _JPEG_END if data.startswith(_JPEG_START) else _PNG_END
    if end not in data:  # OpenCV would make up the missing rows
        raise ImageError(f"truncated image: {found}, without the mark that ends the file")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION  # labels must lie on the sent pixels
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if bgr is None:
        raise ImageError(f"corrupt image: {found} cannot be decoded")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def image_message(header: Header, encoding: str, pixels: NDArray) -> Image:
    """Image message of `pixels` [H, W] or [H, W, C]; 16-bit values are sent little-endian."""
    if pixels.dtype == np.uint16:
        pixels = pixels.astype("<u2", copy=False)
    data = array("B")  # rclpy takes an array as it is; an ndarray it would check byte by byte
    data.frombytes(np.ascontiguousarray(pixels).view(np.uint8).data)
    height, width = pixels.shape[:2]
    return Image(
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=len(data) // height,
        data=data,
    )


def panoptic_image(header: Header, frame: PanopticFrame) -> Image:
    """Label image, 16UC1 (mono16 would be rescaled by image tools)."""
    return image_message(header, "16UC1", frame.labels)


def semantic_image(header: Header, frame: PanopticFrame) -> Image:
    """Class image, mono8; 255 where there is no segment."""
    return image_message(header, "mono8", frame.semantic_map())


def instance_array(
    header: Header,
    frame: PanopticFrame,
    classes: ClassTable,
    sequence: int,
    skipped: int,
    rle: bool = False,
) -> TrackedInstanceArray:
    """Table of a frame, one row per track; `latency_ms` is left unknown until it is published."""
    height, width = frame.labels.shape
    return TrackedInstanceArray(
        header=header,
        tracker_epoch=frame.epoch,
        sequence=sequence,
        skipped=skipped,
        height=height,
        width=width,
        instances=[_instance(track, classes) for track in frame.tracks],
        born=array("Q", frame.born),
        ended=array("Q", frame.ended),
        latency_ms=math.nan,
        inference_ms=float(frame.inference_ms),
    )


def _instance(track: Track, classes: ClassTable) -> TrackedInstance:
    x, y, width, height = (int(v) for v in track.box)
    return TrackedInstance(
        label=int(track.label),
        track_id=int(track.track_id),
        class_id=int(track.class_id),
        class_name=classes[track.class_id].name,
        is_thing=bool(track.is_thing),
        state=int(track.state),
        score=float(track.score),
        track_score=float(track.track_score),
        age=int(track.age),
        first_seen=time_message(track.first_seen),
        last_seen=time_message(track.last_seen),
        roi=RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height),
        centroid_x=float(track.centroid[0]),
        centroid_y=float(track.centroid[1]),
        velocity_x=float(track.velocity[0]),
        velocity_y=float(track.velocity[1]),
        area=int(track.area),
        truncated=bool(track.truncated),
    )


def class_map(classes: ClassTable) -> ClassMap:
    """The class table as a message, in id order."""
    rows = []
    for info in classes:
        r, g, b = info.color
        rows.append(ClassInfo(id=info.id, name=info.name, is_thing=info.is_thing, r=r, g=g, b=b))
    return ClassMap(classes=rows)


def nanoseconds(stamp: Time) -> int:
    """Integer nanoseconds of a stamp."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def time_message(stamp: int) -> Time:
    """Stamp message of integer nanoseconds."""
    sec, nanosec = divmod(int(stamp), NANOSECONDS)
    return Time(sec=sec, nanosec=nanosec)


def latency_ms(stamp: int, now: int) -> float:
    """Milliseconds from `stamp` to `now` (ns); NaN if the image or the clock has no time yet."""
    return (now - stamp) / 1e6 if stamp and now else math.nan
