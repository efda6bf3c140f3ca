"""Training pairs from the synthetic street."""

from __future__ import annotations

import numpy as np

from synthetic_street.street_pairs import StreetPairs


def test_street_clips_are_rendered_once_and_ids_agree(tmp_path):
    source = StreetPairs(1, tmp_path)
    first = source.sample(np.random.default_rng(2), 96, 160)
    files = list(tmp_path.glob("*.npz"))
    again = source.sample(np.random.default_rng(2), 96, 160)
    assert len(files) == 1
    assert (first.images == again.images).all()
    assert set(np.unique(first.instance[0])) & set(np.unique(first.instance[1])) - {0}
