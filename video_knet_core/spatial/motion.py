"""A constant-velocity Kalman filter for each track, all of them at once.

State: position and velocity in three dimensions, in a frame of the user's choice. The acceleration
is white noise. A measurement that does not fit is left out; after several of them the track is
started again, because the object was another one or moved in another way than assumed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ACCELERATION = 2.5
"""Standard deviation [m/s^2]: that of traffic and people, and of the places that are measured."""
FIRST_SPEED = 15.0
"""Standard deviation of an unknown velocity [m/s]."""
GATE = 25.0
"""Squared Mahalanobis distance of three dimensions beyond which a measurement does not fit."""
MAX_OUTLIERS = 3
"""Measurements in a row that do not fit before the track is started again."""
VELOCITY_FACTOR = 1.5
"""Of the standard deviation of velocities: errors of successive places are not independent, as the
filter assumes."""
MIN_UPDATES = 2
"""Measurements from which the velocity is known."""
MAX_GAP_S = 3.0
"""Time without frames after which all tracks are started again."""


class MotionFilter:
    """Tracks by id. Rows of all arrays are tracks, in the order of `ids`."""

    def __init__(self) -> None:
        self.ids: NDArray[np.int64] = np.zeros(0, np.int64)
        self._state: NDArray[np.float64] = np.zeros((0, 6))
        self._covariance: NDArray[np.float64] = np.zeros((0, 6, 6))
        self._updates: NDArray[np.int64] = np.zeros(0, np.int64)
        self._outliers: NDArray[np.int64] = np.zeros(0, np.int64)
        self._stamp: int | None = None

    def step(
        self,
        stamp: int,
        living: Sequence[int],
        ids: NDArray[np.int64],
        positions: NDArray[np.float64],
        covariances: NDArray[np.float64],
    ) -> NDArray[np.bool_]:
        """Predict to `stamp` [ns] and take the measurements of a frame; returns which fit, [M].

        Args:
            living: ids of the tracks that there are; others are forgotten.
            ids: [M] of the tracks that were measured, each once.
            positions: [M, 3] metres.
            covariances: [M, 3, 3].
        """
        seconds = 0.0 if self._stamp is None else (stamp - self._stamp) * 1e-9
        if not -0.5 <= seconds <= MAX_GAP_S:
            self._keep(np.zeros(len(self.ids), bool))
            self._stamp = None
        # of a frame that is a little late the state is of a later time
        self._stamp = stamp if self._stamp is None else max(stamp, self._stamp)
        self._keep(np.isin(self.ids, np.asarray(living, np.int64)))
        self._predict(max(seconds, 0.0))
        row_of = {track: row for row, track in enumerate(self.ids.tolist())}
        rows = np.array([row_of.get(track, -1) for track in ids.tolist()], np.int64)
        known = rows >= 0
        fits = np.ones(len(ids), bool)
        fits[known] = self._update(rows[known], positions[known], covariances[known])
        self._begin(ids[~known], positions[~known], covariances[~known])
        return fits

    def estimates(self) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        """Position [n, 3], its covariance [n, 3, 3], velocity and its covariance, by `ids`.

        An unknown velocity is NaN.
        """
        velocity = self._state[:, 3:].copy()
        spread = VELOCITY_FACTOR**2 * self._covariance[:, 3:, 3:]
        unknown = self._updates < MIN_UPDATES
        velocity[unknown], spread[unknown] = np.nan, np.nan
        return self._state[:, :3].copy(), self._covariance[:, :3, :3].copy(), velocity, spread

    def _keep(self, rows: NDArray) -> None:
        self.ids, self._state, self._covariance = (
            self.ids[rows], self._state[rows], self._covariance[rows],
        )  # fmt: skip
        self._updates, self._outliers = self._updates[rows], self._outliers[rows]

    def _predict(self, seconds: float) -> None:
        if not seconds:
            return
        transition = np.eye(6)
        transition[:3, 3:] = np.eye(3) * seconds
        noise = np.kron([[seconds**4 / 4, seconds**3 / 2], [seconds**3 / 2, seconds**2]], np.eye(3))
        self._state = self._state @ transition.T
        self._covariance = transition @ self._covariance @ transition.T + ACCELERATION**2 * noise

    def _update(self, rows: NDArray, positions: NDArray, covariances: NDArray) -> NDArray[np.bool_]:
        innovation = positions - self._state[rows, :3]
        expected = self._covariance[rows, :3, :3] + covariances
        inverse = np.linalg.inv(expected)
        distance = np.einsum("ni,nij,nj->n", innovation, inverse, innovation)
        fits = distance <= GATE
        self._outliers[rows] = np.where(fits, 0, self._outliers[rows] + 1)
        used = rows[fits]
        gain = self._covariance[used][:, :, :3] @ inverse[fits]
        self._state[used] += np.einsum("nij,nj->ni", gain, innovation[fits])
        # Joseph's form: symmetric and positive whatever the rounding
        left = np.eye(6) - np.pad(gain, ((0, 0), (0, 0), (0, 3)))
        self._covariance[used] = left @ self._covariance[used] @ left.transpose(
            0, 2, 1
        ) + gain @ covariances[fits] @ gain.transpose(0, 2, 1)
        self._updates[used] += 1
        lost = self._outliers[rows] >= MAX_OUTLIERS
        for row, position, covariance in zip(
            rows[lost], positions[lost], covariances[lost], strict=True
        ):
            self._state[row], self._covariance[row] = _first(position, covariance)
            self._updates[row], self._outliers[row] = 1, 0
        return fits | lost

    def _begin(self, ids: NDArray, positions: NDArray, covariances: NDArray) -> None:
        if not len(ids):
            return
        firsts = [_first(*measured) for measured in zip(positions, covariances, strict=True)]
        self.ids = np.concatenate([self.ids, ids])
        self._state = np.concatenate([self._state, [state for state, _ in firsts]])
        self._covariance = np.concatenate([self._covariance, [spread for _, spread in firsts]])
        self._updates = np.concatenate([self._updates, np.ones(len(ids), np.int64)])
        self._outliers = np.concatenate([self._outliers, np.zeros(len(ids), np.int64)])


def _first(position: NDArray, covariance: NDArray) -> tuple[NDArray, NDArray]:
    """State [6] and covariance [6, 6] after a first measurement."""
    spread = np.zeros((6, 6))
    spread[:3, :3], spread[3:, 3:] = covariance, np.eye(3) * FIRST_SPEED**2
    return np.concatenate([position, np.zeros(3)]), spread
