"""Which segment is which track: pure functions on N detections and M memory entries.

The paper (QuasiDenseEmbedTracker in the authors' code) matches by bi-softmax of dot products. That
is relative: it tells which candidate is the most alike, not whether it is alike at all. With one
detection and one memory entry it is 1 whatever the embeddings are, and with n look-alikes it is 1/n
however perfect they match. In between it gives all to the most alike by a hair, and nothing else,
such as a place, has a say. The cosine is absolute: the auxiliary track loss trains it towards 1 for
one object and below 0.1 for two. So our tracker goes by the cosine.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating]
Numbers = NDArray[np.floating | np.integer]


def bi_softmax(logits: Float) -> Float:
    """Mean of the softmax over the columns and over the rows of [N, M] dot products, each 0..1."""
    if not logits.size:
        return np.zeros(logits.shape)
    return (_softmax(logits, axis=1) + _softmax(logits, axis=0)) / 2


def cosine(a: Float, b: Float) -> Float:
    """Cosine of each row of `a` [N, E] with each row of `b` [M, E]: [N, M]; 0 for a zero vector."""
    return _unit(a) @ _unit(b).T


def box_overlap(a: Numbers, b: Numbers) -> Float:
    """Intersection over union of boxes x, y, width, height: [N, M] from [N, 4] and [M, 4]."""
    upper_left = np.maximum(a[:, None, :2], b[None, :, :2])
    lower_right = np.minimum(
        a[:, None, :2] + a[:, None, 2:],
        b[None, :, :2] + b[None, :, 2:],
    )
    shared = np.clip(lower_right - upper_left, 0, None).prod(axis=-1)
    union = a[:, None, 2:].prod(axis=-1) + b[None, :, 2:].prod(axis=-1) - shared
    return np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)


def mask_overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Float:
    """Intersection over union of masks: [N, M] from [N, h, w] and [M, h, w]."""
    # products of float32, which are exact up to 2^24 pixels and much faster than of integers
    pixels = math.prod(a.shape[1:])
    flat_a, flat_b = (masks.reshape(-1, pixels).astype(np.float32) for masks in (a, b))
    shared = (flat_a @ flat_b.T).astype(np.float64)
    union = flat_a.sum(axis=1)[:, None] + flat_b.sum(axis=1) - shared
    return np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)


def match_greedily(rank: Float, allowed: NDArray[np.bool_], scores: Float) -> list[tuple[int, int]]:
    """One-to-one pairs (detection, memory entry), taken by descending rank.

    The authors go through the detections by descending class score instead, so that a confident
    segment can take the track of a more similar one; here the score only decides between equals.

    Args:
        rank: [N, M], higher is better.
        allowed: [N, M]; other pairs are never made.
        scores: [N] class scores of the detections.
    """
    rows, columns = np.nonzero(allowed)
    order = np.lexsort((-scores[rows], -rank[rows, columns]))
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for i, j in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if i not in pairs and j not in taken:
            pairs[i] = j
            taken.add(j)
    return list(pairs.items())


def _softmax(logits: Float, axis: int) -> Float:
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def _unit(vectors: Float) -> Float:
    vectors = vectors.astype(np.float64)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
