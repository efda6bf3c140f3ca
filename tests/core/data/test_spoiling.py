"""Spoilt frames: which they are, and what is left of the image."""

from __future__ import annotations

import numpy as np
import pytest

from synthetic_street import SyntheticStreet
from video_knet_core.data.spoiling import DAMAGES, FIRST_CLEAN, FRACTION, SpoiltFrames, spoil

IMAGE = SyntheticStreet(3, 144, 240).frame(0).image


def flags(seed: int, count: int, fraction: float = FRACTION) -> list[bool]:
    frames = SpoiltFrames(seed, fraction)
    return [frames.damage(t) is not None for t in range(count)]


def runs(spoilt: list[bool]) -> list[int]:
    """Lengths of the runs of spoilt frames that have ended."""
    text = "".join("x" if flag else "." for flag in spoilt)
    return [len(run) for run in text.rsplit(".", 1)[0].split(".") if run]


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_is_visible_repeatable_and_leaves_its_argument_alone(name: str) -> None:
    before = IMAGE.copy()
    spoilt, again, other = (spoil(IMAGE, np.random.default_rng(n), (name,)) for n in (1, 1, 2))
    assert spoilt.shape == IMAGE.shape and spoilt.dtype == np.uint8
    assert np.abs(spoilt.astype(int) - IMAGE).mean() > 2
    assert np.array_equal(spoilt, again) and not np.array_equal(spoilt, other)
    assert np.array_equal(IMAGE, before)


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 90), (90, 5)])
def test_a_damage_takes_an_image_of_any_size(name: str, size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 100, np.uint8)
    for seed in range(5):
        assert spoil(image, np.random.default_rng(seed), (name,)).shape == image.shape


def test_a_blur_leaves_things_where_they_are() -> None:
    image = np.zeros((120, 200, 3), np.uint8)
    image[50:70, 80:120] = 200
    for seed in range(10):
        blurred = DAMAGES["motion_blur"](image, np.random.default_rng(seed))[..., 0].astype(float)
        rows, columns = np.indices(blurred.shape)
        centre = [(blurred * at).sum() / blurred.sum() for at in (rows, columns)]
        assert centre == pytest.approx([59.5, 99.5], abs=1)


def test_darkness_is_dark_and_glare_is_white() -> None:
    for seed in range(5):
        dark, bright = (
            DAMAGES[n](IMAGE, np.random.default_rng(seed)) for n in ("darkness", "glare")
        )
        assert dark.mean() < 0.5 * IMAGE.mean()
        assert bright.max() == 255 and bright.mean() > IMAGE.mean()


def test_every_damage_is_drawn() -> None:
    drawn = {SpoiltFrames(0).damage(t) for t in range(300)}
    assert drawn == {None, *DAMAGES}


def test_spoilt_frames_come_in_runs_of_one_to_four_and_are_the_stated_fraction() -> None:
    spoilt = flags(1, 5000)
    assert set(runs(spoilt)) == {1, 2, 3, 4}
    assert np.mean(spoilt) == pytest.approx(FRACTION, abs=0.03)
    assert np.mean(flags(1, 5000, 0.6)) == pytest.approx(0.6, abs=0.03)
    assert not any(flags(1, 100, 0.0))


def test_short_clips_have_as_many_spoilt_frames_after_the_clean_ones() -> None:
    clips = np.array([flags(seed, 12) for seed in range(800)])
    assert not clips[:, :FIRST_CLEAN].any()
    assert clips[:, FIRST_CLEAN:].mean() == pytest.approx(FRACTION, abs=0.03)


def test_a_run_has_one_damage_and_frames_that_differ() -> None:
    frames = SpoiltFrames(2)
    damages = [frames.damage(t) for t in range(200)]
    pairs = [t for t in range(199) if damages[t] and damages[t + 1]]
    assert pairs and all(damages[t] == damages[t + 1] for t in pairs)
    assert not np.array_equal(frames(IMAGE, pairs[0]), frames(IMAGE, pairs[0] + 1))


def test_a_frame_depends_on_the_seed_and_its_number_alone() -> None:
    forward, backward = SpoiltFrames(4), SpoiltFrames(4)
    images = [forward(IMAGE, t) for t in range(20)]
    for t in reversed(range(20)):
        assert np.array_equal(backward(IMAGE, t), images[t])
    assert flags(4, 60) != flags(5, 60)


def test_a_clean_frame_is_the_image_itself() -> None:
    assert SpoiltFrames(0)(IMAGE, 0) is IMAGE


def test_what_cannot_be_drawn_is_an_error() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="fog"):
        spoil(IMAGE, rng, ("fog",))
    with pytest.raises(ValueError, match="damages"):
        spoil(IMAGE, rng, ())
    with pytest.raises(ValueError, match="image"):
        spoil(IMAGE[..., 0], rng)
    with pytest.raises(ValueError, match=r"fraction: .*got 0\.9"):
        SpoiltFrames(0, 0.9)
