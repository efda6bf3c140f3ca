"""Inference is the authors', number for number: every intermediate, the maps and the ids."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from golden import (
    IMAGE_SIZE,
    golden,
    image,
    official_config,
    official_shapes,
    seeded,
    small_model,
    tensor,
)
from torch import Tensor
from torch.nn.functional import interpolate

from video_knet_core.engine.torch_runtime import TorchRuntime
from video_knet_core.model import kernels as kernels_module
from video_knet_core.model.kernels import PreviousKernels, assemble_group_features
from video_knet_core.model.merge import merge_panoptic
from video_knet_core.model.official import import_official
from video_knet_core.model.video_knet import Prediction, VideoKNet
from video_knet_core.predictor import VideoPredictor
from video_knet_core.tracking import tracker_settings
from video_knet_core.types import Detections

SWITCHES = {"small": {}, "small_update": {"linking": "update", "fusion": "update_dynamic_cov"}}
PERSON, CAR = 11, 13


@functools.cache
def network(name: str) -> VideoKNet:
    """The small model with the switches of a recording; to be left as it is."""
    return small_model(**SWITCHES[name])


@functools.cache
def small_frames() -> list[Detections]:
    """What the small model finds in its three frames."""
    runtime, state = TorchRuntime(network("small")), None
    found = []
    for frame in range(3):
        segments, state = runtime.step_pixels(image("small", frame), state)
        found.append(segments)
    return found


def record(model: VideoKNet, pixels: Tensor, state: PreviousKernels | None) -> dict[str, Tensor]:
    """What the modules of `model` return for one frame, under the names of the recording."""
    seen: dict[str, Tensor] = {}

    def keep(name: str):
        def hook(module, inputs, output):
            outputs = output if isinstance(output, list) else [output]
            seen.update({f"{name}/{i}": x for i, x in enumerate(outputs)})

        return hook

    modules = {"backbone": model.backbone, "fpn": model.neck.pyramid}
    handles = [m.register_forward_hook(keep(name)) for name, m in modules.items()]
    for i, branch in enumerate((model.head.localization, model.head.semantic)):
        handles.append(branch[0].register_forward_hook(keep(f"branch{i}")))
    with torch.no_grad():
        prediction, _ = model(pixels[None], state)
    for handle in handles:
        handle.remove()
    seen |= {f"loc_fpn/{i}": seen.pop(f"branch{i}/0") for i in (0, 1)}
    return seen | of_prediction(prediction)


def of_prediction(prediction: Prediction) -> dict[str, Tensor]:
    head = prediction.head
    seen = {
        "rpn/x_feats": head.features,
        "rpn/init_mask_preds": head.mask_logits,
        "rpn/proposal_feats": head.kernels,
        "rpn/seg_preds": head.semantic_logits,
        "pan/cls_scores_sigmoid": prediction.class_logits.sigmoid(),
    }
    for i, stage in enumerate(prediction.stages):
        seen[f"stage{i}/object_feats"] = stage.kernels
        seen[f"stage{i}/mask_preds"] = stage.mask_logits
    seen["stage2/cls_score"] = prediction.class_logits
    return seen


def compare(seen: dict[str, Tensor], name: str, frame: int, expected: set[str]) -> None:
    """Each recorded tensor is met within 1e-4 of its largest value, 1e-3 where stored as fp16."""
    found = set()
    for key, value in golden(name).items():
        part = key.removeprefix(f"f{frame}/")
        base, _, reduced = part.partition("@")
        if part == key or base not in seen:
            continue
        if reduced in ("shape", "sum_abs"):
            continue
        ours = seen[base]
        if reduced == "sub2":
            ours = ours[..., ::2, ::2]
        elif reduced.startswith("stride"):
            ours = ours.flatten()[:: int(reduced.removeprefix("stride"))]
        theirs = tensor(name, key).reshape(ours.shape)
        allowed = 1e-3 if value.dtype == np.float16 else 1e-4
        error = (ours - theirs).abs().max() / theirs.abs().max()
        assert error < allowed, f"{key}: {error:.2e}"
        found.add(base)
    assert expected <= found, expected - found


PYRAMIDS = {f"{name}/{i}" for name in ("backbone", "fpn") for i in range(4)}
EVERY_STAGE = {f"stage{i}/{x}" for i in range(3) for x in ("object_feats", "mask_preds")}
HEAD = {"rpn/x_feats", "rpn/init_mask_preds", "rpn/proposal_feats", "rpn/seg_preds"}


def test_every_intermediate_of_a_first_frame_is_the_authors():
    seen = record(network("small"), image("small", 0), None)
    compare(seen, "small", 0, PYRAMIDS | EVERY_STAGE | HEAD | {"loc_fpn/0", "loc_fpn/1"})


@pytest.mark.parametrize("frame", [1, 2])
@pytest.mark.parametrize("name", ["small", "small_update"])
def test_every_intermediate_of_a_later_frame_is_the_authors(name, frame):
    """`small_update` has kernel fusion and the other kernel linking."""
    kernels = tensor(name, f"f{frame}/stage2/in_previous_obj_feats").reshape(1, 37, 64)
    state = PreviousKernels(kernels, torch.tensor([True]))
    seen = record(network(name), image("small", frame), state)
    compare(seen, name, frame, {"stage2/object_feats", "pan/cls_scores_sigmoid"})


@pytest.mark.parametrize("frame", [1, 2])
@pytest.mark.parametrize("name", ["small", "small_update"])
@torch.no_grad()
def test_linked_kernels_are_the_authors(name, frame):
    model = network(name)
    kernels = tensor(name, f"f{frame}/stage2/in_previous_obj_feats").reshape(1, 37, 64)
    state = PreviousKernels(kernels, torch.tensor([True]))
    prediction, _ = model(image("small", frame)[None], state)
    linked = tensor(name, f"f{frame}/stage2/object_feats_track").reshape(1, 37, 64)[:, :20]
    torch.testing.assert_close(prediction.stages[-1].linked, linked, rtol=0, atol=1e-4)


class Recorded:
    """A runtime that is fed the recorded frames, which were normalised floats, by their number."""

    def __init__(self, model: VideoKNet) -> None:
        self._torch = TorchRuntime(model)
        self.info = self._torch.info
        self.frame = 0

    def step(self, _, state) -> tuple[Detections, PreviousKernels]:
        segments, state = self._torch.step_pixels(image("small", self.frame), state)
        self.frame += 1
        return segments, state


@pytest.mark.parametrize(("name", "frames"), [("small", (0, 1, 2)), ("small_update", (1, 2))])
def test_semantic_and_track_maps_equal_the_authors_in_every_pixel(name, frames):
    runtime = Recorded(network(name))
    tracking = tracker_settings("quasi_dense", positional_ids=True)
    predictor = VideoPredictor(runtime, tracking)
    nothing = np.zeros((124, 250, 3), np.uint8)
    for t in range(3):
        frame = predictor.step(nothing, t * 100_000_000)
        if t in frames:
            theirs = golden(name)
            assert (frame.semantic_map(unassigned=0) == theirs[f"f{t}/out/semantic_map"]).all()
            assert (frame.track_id_map() == theirs[f"f{t}/out/track_map"]).all()


@pytest.mark.parametrize("frame", [0, 1, 2])
def test_segments_of_the_reference_merge_are_the_authors(frame):
    """Same pixels, classes, scores and embeddings; theirs are numbered by descending score."""
    segments = small_frames()[frame]
    theirs = golden("small")[f"f{frame}/pan/panoptic_seg"]
    rows = json.loads(str(golden("small")[f"f{frame}/pan/segments_info_json"].reshape(-1)[0]))
    embeddings = iter(golden("small")[f"f{frame}/track/track_feats"])
    for row in rows:
        (slot,) = np.unique(segments.segment_map[theirs == row["id"]])
        assert ((segments.segment_map == slot) == (theirs == row["id"])).all()
        if row["isthing"]:
            assert segments.class_ids[slot - 1] == (PERSON, CAR)[row["category_id"]]
            assert segments.scores[slot - 1] == pytest.approx(row["score"], abs=1e-5)
            np.testing.assert_allclose(segments.embeddings[slot - 1], next(embeddings), atol=1e-4)
    assert (segments.areas > 0).sum() == len(rows)


@pytest.mark.parametrize("frame", [0, 1, 2])
def test_the_tracker_gets_the_boxes_of_the_authors(frame):
    segments = small_frames()[frame]
    things = np.flatnonzero((segments.areas > 0) & np.isin(segments.class_ids, (PERSON, CAR)))
    order = things[np.argsort(-segments.scores[things])]
    theirs = golden("small")[f"f{frame}/tracker/in_bboxes"]
    np.testing.assert_array_equal(segments.boxes[order], theirs[:, :4])
    np.testing.assert_allclose(segments.scores[order], theirs[:, 4], atol=1e-5)


@pytest.mark.parametrize("frame", [0, 1, 2])
@torch.no_grad()
def test_the_fast_merge_finds_the_segments_of_the_reference_merge(frame):
    """At a quarter of the resolution: the same slots, and few pixels that differ."""
    model = network("small")
    prediction, _ = model(image("small", frame)[None])
    logits = prediction.class_logits[0], prediction.mask_logits[0]
    reference = model.config.panoptic
    exact = merge_panoptic(*logits, 2, reference, IMAGE_SIZE)
    fast = merge_panoptic(*logits, 2, replace(reference, merge="fast"), IMAGE_SIZE)
    enlarged = interpolate(fast.segment_map[None, None].float(), size=IMAGE_SIZE)[0, 0]
    assigned = exact.segment_map > 0
    assert (enlarged == exact.segment_map)[assigned].float().mean() > 0.95
    assert torch.equal(fast.areas[:20] > 0, exact.areas[:20] > 0)


@pytest.fixture(scope="module")
def official() -> VideoKNet:
    return import_official(seeded(official_shapes()), official_config())


def for_one_rounding(monkeypatch, check) -> None:
    """`check` must pass as it is, or with the hard mask threshold a rounding error off 0.

    A logit that is 0 but for rounding falls to either side, depending on the processor and its
    threads, and one pixel more or less in a mask changes what comes after it.
    """
    differences = []
    for rounding in (0.0, 1e-6, -1e-6):

        def assemble(mask_logits, features, pooling, rounding=rounding):
            threshold = rounding * mask_logits.abs().max()
            return assemble_group_features(mask_logits - threshold, features, pooling)

        monkeypatch.setattr(kernels_module, "assemble_group_features", assemble)
        try:
            return check()
        except AssertionError as error:
            differences.append(str(error))
    pytest.fail("; ".join(differences))


@pytest.mark.slow
@pytest.mark.parametrize("frame", [0, 1])
def test_the_official_widths_with_seeded_weights_are_the_authors(official, frame, monkeypatch):
    expected = PYRAMIDS | EVERY_STAGE | HEAD | {"loc_fpn/0", "loc_fpn/1", "stage2/cls_score"}

    def check() -> None:
        state = None
        if frame:
            with torch.no_grad():
                _, state = official(image("official_widths_images", 0)[None])
        seen = record(official, image("official_widths_images", frame), state)
        compare(seen, "official_widths", frame, expected)

    for_one_rounding(monkeypatch, check)


@pytest.mark.slow
def test_the_maps_of_the_official_widths_are_the_authors_in_every_pixel(official, monkeypatch):
    def check() -> None:
        runtime, state = TorchRuntime(official), None
        for t in (0, 1):
            segments, state = runtime.step_pixels(image("official_widths_images", t), state)
            classes = np.append(0, segments.class_ids)  # unassigned pixels are road
            theirs = golden("official_widths")[f"f{t}/out/semantic_map"]
            assert (classes[segments.segment_map] == theirs).all()

    for_one_rounding(monkeypatch, check)
