"""Stuff labels by a network of one's own, where custom data has none and the network is sure.

Self-training (Zoph et al., "Rethinking Pre-training and Self-training", NeurIPS 2020): labels stay,
and the pixels without one get the class that the network gives a high probability.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from ..config import STRIDE
from ..config_io import ConfigError
from ..data.custom import CLASSES_FILE, TRACKS_FILE, label_encoder
from ..data.datasets import open_dataset
from ..data.label_png import write_png
from ..geometry import nearest_aspect
from ..model.checkpoint import load_model
from ..model.video_knet import VideoKNet
from ..output_files import new_folder
from ..predictor import resize
from ..progress import progress_bar
from ..types import NO_CLASS, ClassTable, plain_name
from .sources import open_labelled


@dataclass
class LabelCounts:
    """Pixels of all frames of a data set: all, and those of each of K classes."""

    frames: int
    pixels: int
    kept: NDArray[np.int64]
    """[K] labelled before."""
    added: NDArray[np.int64]
    """[K] labelled by the network, or by colour."""


def self_label(
    root: Path,
    split: str,
    checkpoint: Path,
    out: Path,
    confidence: float = 0.9,
    things_only: bool = False,
    by_colour: bool = False,
    max_frames: int | None = None,
) -> LabelCounts:
    """Write the custom data set `root` into the new folder `out`, with more stuff labels.

    Images are copied. `classes.yaml` is written last: no reader takes an interrupted result.

    Args:
        confidence: probability 0..1 from which on the network labels a pixel.
        things_only: keep the labels of things alone; those of stuff are made again.
        by_colour: pixels without a label are sky or vegetation where `colour_cues` says so; the
            network is asked about the others.
        max_frames: at most so many frames, from the first on.

    Raises:
        DatasetError: the data set is missing or faulty.
        CheckpointError: `checkpoint` is none.
        ConfigError: the network has other classes, or no stuff; or no stuff called sky or
            vegetation where they are to be found `by_colour`.
        OutputError: `out` has anything in it.
    """
    model = load_model(checkpoint)
    dataset = open_labelled("custom", root, split, model.config, str(checkpoint))
    if not model.config.classes.stuff:
        raise ConfigError(f"{checkpoint}: expected a network with classes of stuff, got none")
    if things_only:
        dataset = dataset.without_stuff()
    cues = _ids_of(model.config.classes, checkpoint) if by_colour else []
    encode, classes = label_encoder(root), len(model.config.classes)
    counts = LabelCounts(0, 0, *np.zeros((2, classes), np.int64))
    frames = [(video, index) for video in dataset for index in range(len(video))]
    with new_folder(out):
        for video, index in progress_bar(list(islice(frames, max_frames)), "frames"):
            frame, files = video[index], video.frames[index]
            made = _sure_stuff(model, frame.image, confidence)
            for class_id, pixels in zip(
                cues, colour_cues(frame.image) if cues else (), strict=True
            ):
                made[pixels] = class_id
            made[frame.semantic != NO_CLASS] = NO_CLASS
            counts.frames, counts.pixels = counts.frames + 1, counts.pixels + made.size
            counts.kept += np.bincount(frame.semantic.ravel(), minlength=256)[:classes]
            counts.added += np.bincount(made.ravel(), minlength=256)[:classes]
            place = Path(str(files.image)).relative_to(root / split / "images")
            semantic = np.where(made != NO_CLASS, made, frame.semantic)
            labels = (out / split / "panoptic" / place).with_suffix(".png")
            write_png(labels, encode(semantic, frame.instance))
            image = out / split / "images" / place
            image.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(files.image), image)
        for name in (TRACKS_FILE, CLASSES_FILE):
            if (root / name).is_file():
                shutil.copyfile(root / name, out / name)
        open_dataset("custom", out, split)
    return counts


def _sure_stuff(model: VideoKNet, image: NDArray[np.uint8], confidence: float) -> NDArray[np.uint8]:
    """[H, W] the stuff class of each pixel of an image [H, W, 3]; `NO_CLASS` where the network has
    a thing or is less sure than `confidence`."""
    classes = model.config.classes
    probability, best = class_logits(model, image).softmax(0).max(0)
    found = np.array(classes.logit_class_ids, np.uint8)[best.numpy()]
    sure = (probability.numpy() >= confidence) & np.isin(found, classes.stuff)
    return np.where(sure, found, np.uint8(NO_CLASS))


def _ids_of(classes: ClassTable, checkpoint: Path) -> list[int]:
    """Of what `colour_cues` finds, in its order."""
    stuff = {plain_name(classes[number].name): number for number in classes.stuff}
    try:
        return [stuff[name] for name in ("vegetation", "sky")]
    except KeyError as error:
        raise ConfigError(
            f"{checkpoint}: expected stuff called {error.args[0]}, got {', '.join(stuff)}"
        ) from None


def colour_cues(image: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where an image [H,W,3] RGB of a street by day shows vegetation, and where sky: [H,W] each.

    Vegetation is what is clearly green (excess green, Woebbecke et al., 1995), sky what is bright,
    smooth, not reddish, and joined to the upper edge of the image. They say nothing about grey
    twigs and dark clouds, and take a green shop for a hedge.
    """
    height = image.shape[0]
    smooth = cv2.GaussianBlur(image, (0, 0), max(height / 250, 0.6)).astype(np.float32)
    red, green, blue = cv2.split(smooth)
    total = red + green + blue + 1
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    wide = max(height / 150, 0.6)
    texture = cv2.GaussianBlur(np.abs(grey - cv2.GaussianBlur(grey, (0, 0), wide)), (0, 0), wide)
    bright = (total > 3 * 130) & (blue >= 0.97 * red) & (texture < 4)
    _, parts = cv2.connectedComponents(bright.astype(np.uint8), connectivity=4)
    sky = bright & np.isin(parts, parts[0])
    sky[int(0.6 * height) :] = False
    return (2 * green - red - blue > 0.15 * total) & (total > 60) & ~sky, sky


@torch.no_grad()
def class_logits(model: VideoKNet, image: NDArray[np.uint8]) -> Tensor:
    """[K, H, W] of the semantic map of the head, for an image [H, W, 3] RGB: the mean of those of
    the image and of its mirror image.
    """
    size = image.shape[0], image.shape[1]
    height, width = nearest_aspect(model.config.sizes, size)
    pixels = torch.from_numpy(resize(image, height, width)).permute(2, 0, 1).float()
    logits = model.encode(torch.stack((pixels, pixels.flip(2)))).head.semantic_logits.float()
    padded = [-(-side // STRIDE) * STRIDE for side in (height, width)]
    plain, mirrored = _resized(logits, padded)[..., :height, :width]
    mean = (plain + mirrored.flip(2)) / 2
    return _resized(mean[None], list(size))[0]


def _resized(maps: Tensor, size: list[int]) -> Tensor:
    return interpolate(maps, size=size, mode="bilinear", align_corners=False)
