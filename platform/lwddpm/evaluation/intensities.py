"""Brightness and contrast: what a Fréchet distance hardly sees and an eye sees at once."""

from dataclasses import dataclass

import numpy as np

_QUANTILES = (0.01, 0.99)
_ALARMING = 0.1  # share of slices outside the band; about 0.03 of real ones are


@dataclass(frozen=True)
class Outside:
    """Shares of slices outside a band: of all, and by the side on which they lie (a slice may lie on several)."""

    share: float
    parts: dict[str, float]


@dataclass(frozen=True)
class Band:
    """Where 98 % of real slices lie.

    Attributes:
        mean, deviation: low and high end of a slice's mean and of its standard deviation, intensities from 0 to 255.
    """

    mean: tuple[float, float]
    deviation: tuple[float, float]

    @classmethod
    def of(cls, images: np.ndarray) -> "Band":
        """The band of real slices, uint8 [N, S, S], N of 1 or more."""
        mean, deviation = (tuple(map(float, np.quantile(values, _QUANTILES))) for values in _moments(images))
        return cls(mean, deviation)  # type: ignore[arg-type]

    def outside(self, images: np.ndarray) -> Outside:
        """How many of these slices, uint8 [N, S, S], lie outside."""
        mean, deviation = _moments(images)
        sides = {
            "too dark": mean < self.mean[0],
            "too bright": mean > self.mean[1],
            "too little contrast": deviation < self.deviation[0],
            "too much contrast": deviation > self.deviation[1],
        }
        share = float(np.any(list(sides.values()), axis=0).mean())
        return Outside(share, {side: float(where.mean()) for side, where in sides.items()})


def out_of_band_warning(share: float, low: float, floor: float, parts: dict[str, float]) -> str | None:
    """What to tell the user, or None where there is nothing to tell.

    Args:
        share, low: of generated slices outside the band, and the low end of its interval.
        floor: the same share of held-out real slices.
        parts: shares by side.
    """
    if low < max(_ALARMING, 2 * floor):
        return None
    sides = ", ".join(f"{part:.0%} {side}" for side, part in parts.items() if part >= 0.01)
    return (
        f"intensities: {share:.0%} of the generated slices lie outside the band of 98 % of the real ones ({sides}); "
        f"{floor:.0%} of real held-out slices do"
    )


def _moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flat = images.reshape(len(images), -1)
    return flat.mean(1, dtype=np.float64), flat.std(1, dtype=np.float64)
