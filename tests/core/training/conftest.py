"""Shared by the tests of training."""

from __future__ import annotations

import functools

import pytest

from synthetic_street import SyntheticStreet, street_pairs

_street = functools.cache(SyntheticStreet)


@functools.cache
def _clip(seed: int, moment: int):
    street = _street(seed)
    return [street.frame(moment + offset) for offset in street_pairs.OFFSETS]


@pytest.fixture(autouse=True)
def streets_are_drawn_once(monkeypatch):
    """Each test trains in a folder of its own, where no street was drawn before."""
    from video_knet_core.training import clip_validation  # needs torch

    monkeypatch.setattr(
        street_pairs.StreetPairs, "_clip", lambda self, seed, moment: _clip(seed, moment)
    )
    monkeypatch.setattr(clip_validation, "SyntheticStreet", _street)
