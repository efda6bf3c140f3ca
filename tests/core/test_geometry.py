"""The geometry that is read from the small map must be that of the large map's pixels."""

from __future__ import annotations

import numpy as np
import pytest

from video_knet_core.geometry import LabelMap, NearestUpsampling, OverlappingMasks, nearest_aspect

SIZES = [
    ((1, 1), (1, 1)),
    ((3, 5), (7, 11)),
    ((144, 240), (360, 480)),
    ((144, 240), (375, 1242)),
    ((17, 31), (17, 31)),
    ((31, 17), (13, 40)),  # smaller in one direction, larger in the other
    ((40, 40), (3, 1)),
]


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_enlarge_takes_the_map_position_under_each_pixel_centre(source, target):
    small = np.arange(source[0] * source[1]).reshape(source)
    large = NearestUpsampling(source, target).enlarge(small)
    rows = [int((y + 0.5) * source[0] / target[0]) for y in range(target[0])]
    columns = [int((x + 0.5) * source[1] / target[1]) for x in range(target[1])]
    np.testing.assert_array_equal(large, small[rows][:, columns])


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_geometry_agrees_exactly_with_the_pixels(source, target):
    small = np.random.default_rng(0).integers(0, 7, source).astype(np.uint16)
    small[small == 3] = 0  # one region without pixels
    upsampling = NearestUpsampling(source, target)
    regions, large = upsampling.measure(small, 6), upsampling.enlarge(small)
    for i in range(6):
        ys, xs = np.nonzero(large == i + 1)
        assert regions.areas[i] == len(xs)
        if not len(xs):
            assert not regions.boxes[i].any() and not regions.truncated[i]
            continue
        x, y, width, height = regions.boxes[i]
        assert (x, y, width, height) == (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)
        np.testing.assert_allclose(regions.centroids[i], [xs.mean(), ys.mean()], rtol=1e-12)
        touches = x == 0 or y == 0 or x + width == target[1] or y + height == target[0]
        assert regions.truncated[i] == touches


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_geometry_of_masks_is_that_of_a_map_of_each_alone(source, target):
    masks = np.random.default_rng(0).integers(0, 2, (5, *source)).astype(np.uint8)
    masks[3] = 0
    upsampling = NearestUpsampling(source, target)
    found = upsampling.measure_masks(masks, masks.any(axis=(1, 2)))
    for i, mask in enumerate(masks):
        alone = upsampling.measure(mask, 1)
        for name in ("areas", "boxes", "truncated"):
            np.testing.assert_array_equal(getattr(found, name)[i], getattr(alone, name)[0])
        np.testing.assert_allclose(found.centroids[i], alone.centroids[0], rtol=1e-12)


def test_masks_that_are_not_looked_at_are_empty():
    masks = np.ones((2, 4, 6), np.uint8)
    found = NearestUpsampling((4, 6), (8, 12)).measure_masks(masks, np.array([False, True]))
    assert found.areas.tolist() == [0, 96] and found.boxes.tolist() == [[0] * 4, [0, 0, 12, 8]]


def test_a_region_inside_the_image_is_not_truncated():
    small = np.zeros((8, 8), np.uint8)
    small[2:5, 3:6] = 1
    regions = NearestUpsampling((8, 8), (16, 24)).measure(small, 1)
    assert regions.boxes.tolist() == [[9, 4, 9, 6]]
    assert regions.centroids.tolist() == [[13.0, 6.5]]
    assert not regions.truncated[0]


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_a_look_up_is_that_of_the_large_map(source, target):
    small = np.random.default_rng(0).integers(0, 7, source).astype(np.uint16)
    label_map = LabelMap(small, NearestUpsampling(source, target))
    colors = np.random.default_rng(1).integers(0, 256, (7, 3), np.uint8)
    assert label_map.size == target
    np.testing.assert_array_equal(label_map.look_up(colors), colors[label_map.enlarge()])


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_a_map_is_enlarged_into_memory_of_the_caller(source, target):
    small = np.random.default_rng(0).integers(0, 7, source).astype(np.uint16)
    label_map = LabelMap(small, NearestUpsampling(source, target))
    labels, colors = np.zeros(target, np.uint16), np.zeros((*target, 3), np.uint8)
    table = np.random.default_rng(1).integers(0, 256, (7, 3), np.uint8)
    assert label_map.enlarge(labels) is labels and label_map.look_up(table, colors) is colors
    np.testing.assert_array_equal(labels, label_map.enlarge())
    np.testing.assert_array_equal(colors, label_map.look_up(table))


def test_a_label_map_of_an_image_is_that_image():
    labels = np.random.default_rng(0).integers(0, 7, (5, 9)).astype(np.uint16)
    np.testing.assert_array_equal(LabelMap.of(labels).enlarge(), labels)


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_a_mask_is_enlarged_as_a_map_is(source, target):
    small = np.random.default_rng(0).integers(0, 2, (3, *source)).astype(np.uint8)
    masks = OverlappingMasks(small, NearestUpsampling(source, target))
    for label in (1, 2, 3):
        large = masks.upsampling.enlarge(small[label - 1])
        np.testing.assert_array_equal(masks.enlarge(label), large == 1)


def test_masks_are_painted_over_each_other_in_the_order_requested():
    small = np.zeros((3, 1, 4), np.uint8)
    small[0, 0, :3], small[1, 0, 1:2], small[2, 0, 2:] = 1, 1, 1
    masks = OverlappingMasks(small, NearestUpsampling((1, 4), (1, 4)))
    assert masks.painted([1, 2, 3]).small.tolist() == [[1, 2, 3, 3]]
    assert masks.painted([3, 2, 1]).small.tolist() == [[1, 1, 1, 3]]
    assert masks.painted([]).small.tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ((480, 640), (288, 480)),
        ((720, 1280), (288, 480)),
        ((375, 1242), (192, 640)),
        ((1280, 720), (288, 480)),
        ((320, 750), (288, 480)),
        ((320, 760), (192, 640)),
    ],
)
def test_the_native_size_is_that_of_the_nearest_aspect(image, expected):
    """Between 480:288 and 640:192 the middle is the ratio 2.357."""
    assert nearest_aspect(((288, 480), (192, 640)), image) == expected


def test_of_two_equally_near_aspects_the_first_counts():
    for sizes in (((100, 200), (100, 50)), ((100, 50), (100, 200))):
        assert nearest_aspect(sizes, (30, 30)) == sizes[0]
