"""Sun and sky of the synthetic street."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .canvas import Points


@dataclass(frozen=True)
class Light:
    """Sun and sky; `sun` is a unit vector (x, s, z) towards the sun."""

    sun: tuple[float, float, float]
    direct: float
    """Strength of the sun, 0 = overcast."""
    lamps: bool
    """Vehicles have their lights on."""

    def on(self, normals: Points) -> Points:
        """Brightness factor of surfaces [n] with unit normals [n, 3], about 0.5..1.4."""
        return self._brightness(normals[:, 2], np.clip(normals @ np.array(self.sun), 0, None))

    def facing(self, x: float, s: float, z: float = 0.0) -> float:
        """Brightness factor of one surface with this unit normal."""
        lit = x * self.sun[0] + s * self.sun[1] + z * self.sun[2]
        return float(self._brightness(z, max(lit, 0.0)))

    def _brightness(self, up: Any, lit: Any) -> Any:
        """From the sky (`up` = z of the normal) and the sun (`lit` = cosine of its angle)."""
        return 0.62 + 0.2 * up + 0.75 * self.direct * lit + 0.2 * (1 - self.direct)

    def cast_by_sun(self, base: Points, height: float) -> Points | None:
        """As `cast`, for what has no shadow when it is overcast."""
        return self.cast(base, height) if self.direct >= 0.2 else None

    def cast(self, base: Points, height: float) -> Points:
        """Ground points [2n, 3]: the foot of an object and where its top's shadow falls."""
        slope = np.array([self.sun[0], self.sun[1], 0.0]) / max(self.sun[2], 0.2)
        top = base - self.direct * height * slope
        return np.vstack([base, top])
