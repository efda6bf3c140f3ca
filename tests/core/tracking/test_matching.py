from __future__ import annotations

import numpy as np
import pytest

from video_knet_core.geometry import box_overlap, mask_overlap
from video_knet_core.tracking.embedding import cosine
from video_knet_core.tracking.quasi_dense import bi_softmax


def test_bi_softmax_is_the_mean_of_both_softmaxes():
    logits = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])
    powers = np.exp(logits)
    by_hand = (powers / powers.sum(1, keepdims=True) + powers / powers.sum(0, keepdims=True)) / 2
    np.testing.assert_allclose(bi_softmax(logits), by_hand)


def test_bi_softmax_survives_large_dot_products():
    result = bi_softmax(np.array([[5000.0, -5000.0], [-5000.0, 4000.0]]))
    np.testing.assert_allclose(result, np.eye(2), atol=1e-12)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_nothing_to_match_gives_empty_similarities(shape):
    n, m = shape
    assert bi_softmax(np.zeros(shape)).shape == shape
    assert cosine(np.zeros((n, 4)), np.zeros((m, 4))).shape == shape


def test_cosine_ignores_length_and_is_0_for_a_zero_vector():
    result = cosine(np.array([[3.0, 0.0], [0.0, 0.0]]), np.array([[0.5, 0.5], [-2.0, 0.0]]))
    np.testing.assert_allclose(result, [[np.sqrt(0.5), -1.0], [0.0, 0.0]])


def test_a_single_pair_of_strangers_is_not_similar():
    stranger, entry = np.array([[1.0, 0.1]]), np.array([[0.0, 1.0]])
    assert bi_softmax(stranger @ entry.T) == 1.0  # the weakness that the cosine makes good
    assert cosine(stranger, entry) < 0.1


def test_lookalikes_stay_similar_however_many_there_are():
    same = np.tile([[3.0, 4.0]], (5, 1))
    assert bi_softmax(same @ same.T).max() == pytest.approx(0.2)
    np.testing.assert_allclose(cosine(same, same), 1)


def test_box_overlap_of_known_boxes():
    a = np.array([[0, 0, 4, 4], [10, 10, 2, 2]])
    b = np.array([[2, 0, 4, 4], [0, 0, 4, 4], [4, 0, 4, 4], [0, 0, 0, 0]])
    np.testing.assert_allclose(box_overlap(a, b), [[8 / 24, 1, 0, 0], [0, 0, 0, 0]])


def test_mask_overlap_of_known_masks():
    numbers = np.array([[1, 1, 0], [2, 1, 0]])
    some = numbers == np.arange(1, 4)[:, None, None]
    others = np.array([[[1, 0, 0], [1, 0, 0]], np.zeros((2, 3)), numbers == 1], bool)
    expected = [[1 / 4, 0, 1], [1 / 2, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(mask_overlap(some, others), expected)
    assert mask_overlap(some, others[:0]).shape == (3, 0)


def test_masks_that_overlap_each_other_are_compared_whole():
    masks = np.ones((2, 2, 4), bool)
    masks[1, :, 2:] = False
    np.testing.assert_allclose(mask_overlap(masks, masks), [[1, 1 / 2], [1 / 2, 1]])
