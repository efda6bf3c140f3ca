"""Time as trackers count it, from stamps that may be equal, bunched, late or frozen.

Stamps that differ as those of a camera do are taken as they are, however irregular: images may have
been dropped. Some drivers stamp several images with one tick of a coarse clock, or on arrival of a
burst. Divided by such differences, a velocity is 0, infinite or anything between. There the stream
time advances by the mean interval between images, which the stamps give over a longer time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

NANOSECONDS = 1_000_000_000
NOMINAL = NANOSECONDS // 10
"""Interval between images where the stamps do not give one: tracks end by counting images."""
SHORTEST = NANOSECONDS // 100
"""A shorter difference of stamps is an interval only if it is at least a quarter of the mean one:
few cameras take more than 100 images/s, and many deliver two at once."""
FASTEST = NANOSECONDS // 2000
"""No camera has a shorter mean interval."""
GAP = 8
"""Mean intervals in a gap: images are missing, or the rate has changed."""
MARKS = 8
"""Steps of the clock over which the mean interval is taken."""
CERTAIN = 3
"""Steps after which the mean interval is kept when the first images with equal stamps come."""
REGULAR = 8
"""Steps in a row after which stamps are taken as they are again."""
FROZEN = 32
"""Images without a step of the clock after which it stands still."""
LATE = NANOSECONDS // 2
"""An image with a stamp before the last one by no more than this is late; before that begins
another timeline."""


@dataclass(frozen=True)
class StreamTime:
    """When an image was taken, on a clock that never goes back."""

    ns: int
    era: int = 0
    """Differs where no time between two images could be measured."""
    interval: int | None = None
    """Mean interval between images [ns]; None = not known yet, all intervals count."""

    def after(self, passed: int, interval: int | None, measured: bool) -> StreamTime:
        """The time of the next image, `passed` nanoseconds later."""
        return StreamTime(self.ns + passed, self.era if measured else self.era + 1, interval)

    def seconds_since(self, ns: NDArray[np.int64], era: NDArray[np.int64]) -> NDArray[np.float64]:
        """[K] seconds since earlier images, NaN where unknown."""
        return np.where(self.era == era, (self.ns - ns) / NANOSECONDS, math.nan)

    def certainty(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """[K] 0..1, the weight of velocities over intervals.

        That over less than half the mean interval may be mostly noise of the stamps.
        """
        if self.interval is None:
            return np.ones(len(seconds))
        return np.minimum(seconds * NANOSECONDS / (self.interval / 2), 1.0)


_Mark = tuple[int, int]
"""Number and stamp of an image with which the clock made a step."""


@dataclass(frozen=True)
class StreamClock:
    """Turns the stamps of one timeline, in the order of the images, into stream times.

    `advanced` gives the clock of the next image and leaves this one as it is.
    """

    stamp: int | None = None
    """Of the last image [ns]; None before the first."""
    time: StreamTime = StreamTime(0)
    """Of the last image."""
    images: int = 0
    """Images so far."""
    last_step: _Mark = (0, 0)
    """Or the first image."""
    steps: int = 0
    """Steps so far."""
    regular: int = REGULAR
    """Steps in a row; from `REGULAR` on the stamps are taken as they are."""
    ahead: int = 0
    """By how much the stream time has run ahead of the stamps since the last step [ns]."""
    marks: tuple[_Mark, ...] = ()
    """Steps that the mean interval is taken over."""
    noise: int = 0
    """Largest step back since the stamps were last regular [ns]."""
    before_leap: int | None = None
    """Stamp before the last one, if that leapt ahead: it may have been wrong."""

    @property
    def standing(self) -> int:
        """Images since the last step."""
        return self.images - self.last_step[0]

    def is_late(self, stamp: int) -> bool:
        """Whether an image belongs before the last one."""
        return 0 < self._back(stamp) <= LATE and not self._is_return(stamp)

    def distance(self, stamp: int) -> int:
        """Nanoseconds between a stamp and the last one."""
        return abs(self._back(stamp))

    def break_before(self, stamp: int, longest_gap: float) -> str:
        """Why an image cannot follow the last one, empty if it can.

        Args:
            stamp: nanoseconds.
            longest_gap: seconds.
        """
        if self.stamp is None or self._is_return(stamp) or self._begins(stamp):
            return ""
        if self._back(stamp) > LATE:
            return f"the stamp went back by {self._back(stamp) / NANOSECONDS:.3f} s"
        gap = (-self._back(stamp) - self.ahead) / NANOSECONDS
        return f"no image for {gap:.1f} s" if gap > longest_gap else ""

    def advanced(self, stamp: int) -> StreamClock:
        """The clock of the next image."""
        mark = (self.images + 1, stamp)
        if self.stamp is None:
            return StreamClock(stamp, StreamTime(stamp), images=1, last_step=mark, marks=(mark,))
        difference, interval = stamp - self.stamp, self.time.interval
        if difference >= SHORTEST or (interval and difference * 4 >= interval):
            return self._stepped(mark, difference)
        return self._stood(mark, difference)

    def _stepped(self, mark: _Mark, difference: int) -> StreamClock:
        """After an image whose stamp differs enough from the one before."""
        before = self.time.interval
        exact, rest = self.regular >= REGULAR, difference - self.ahead
        is_gap = rest > GAP * (before or NOMINAL) and not self._begins(mark[1])
        marks = (*self._marks_before(mark, rest, exact), mark)[-MARKS:]
        interval = self._mean(marks) or before
        passed = difference if exact else rest if is_gap else interval or NOMINAL
        return replace(
            self,
            stamp=mark[1],
            time=self.time.after(passed, interval, exact or interval is not None),
            images=mark[0],
            last_step=mark,
            steps=self.steps + 1,
            regular=self.regular + 1,
            ahead=0,
            marks=marks,
            noise=0 if exact else self.noise,
            before_leap=self.stamp if is_gap else None,
        )

    def _marks_before(self, mark: _Mark, rest: int, exact: bool) -> tuple[_Mark, ...]:
        """Marks with which a new one gives the mean interval.

        None across a change of the rate, or a pause of the clock while images came.
        """
        assert self.stamp is not None
        if self.standing > FROZEN:
            return ()
        interval = self.time.interval
        if interval is not None and len(self.marks) > 1:
            if exact and rest * GAP < interval:
                return ((self.images, self.stamp),)
            if not -2 * interval <= rest <= GAP * interval:
                return ()
        return tuple(m for m in self.marks if m[1] < mark[1])

    def _mean(self, marks: tuple[_Mark, ...]) -> int | None:
        """Mean interval between images; None if it would be mostly noise, or there is one mark."""
        (first, start), (last, end) = marks[0], marks[-1]
        span = end - start
        return span // (last - first) if span > 0 and span >= 3 * self.noise else None

    def _stood(self, mark: _Mark, difference: int) -> StreamClock:
        """After an image with about the stamp of the one before, or an earlier one."""
        images, stamp = mark
        standing = self.standing + 1
        mean = (stamp - self.last_step[1]) // standing
        if standing >= FROZEN and mean >= FASTEST:  # so these are of a very fast camera
            time = self.time.after(mean, mean, measured=True)
            return StreamClock(stamp, time, images, last_step=mark, steps=CERTAIN, marks=(mark,))
        marks, interval = self.marks, self.time.interval
        if self.steps < CERTAIN and self.regular >= REGULAR:  # those may not have been images
            interval, marks = None, tuple(m for m in marks if m[0] > 1)[-1:]
        passed, returns = interval or NOMINAL, self._is_return(stamp)
        return replace(
            self,
            stamp=stamp,
            time=self.time.after(passed, interval, interval is not None and standing <= FROZEN),
            images=images,
            regular=0,
            ahead=0 if returns else self.ahead + passed - difference,
            marks=marks,
            noise=self.noise if returns else max(self.noise, -difference),
            before_leap=None,
        )

    def _begins(self, stamp: int) -> bool:
        """Whether the images so far were stamped 0: where their clock begins is no gap."""
        return self.stamp == 0 and self.standing > 0 and stamp > 0

    def _back(self, stamp: int) -> int:
        """Nanoseconds from a stamp to the last one."""
        return 0 if self.stamp is None else self.stamp - stamp

    def _is_return(self, stamp: int) -> bool:
        """Whether the last stamp was wrong: it leapt ahead, and this one did not."""
        return self.before_leap is not None and self._back(stamp) > 0 and stamp >= self.before_leap
