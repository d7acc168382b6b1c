"""Simulated tumours for the phantom: where they grow, how they push the brain aside, and how they look."""

from dataclasses import dataclass

import numpy as np

SELLA_MM = (0.0, 4.0)  # left-right and front-back position of the pituitary gland in MNI space


def smooth_field(rng: np.random.Generator, size: int, knots: int, channels: int | None = None) -> np.ndarray:
    """Gaussian random field of unit variance, smooth on the scale of 1/knots of its side.

    Returns:
        float32 [size, size], or [channels, size, size].
    """
    position = (np.arange(size) + 0.5) / size * knots
    basis = np.exp(-0.5 * (position[:, None] - np.arange(-1.0, knots + 2)) ** 2 / 0.6**2)
    basis /= np.sqrt(np.square(basis).sum(axis=1, keepdims=True))
    weights = rng.standard_normal((channels or 1, basis.shape[1], basis.shape[1]))
    field = (basis @ weights @ basis.T).astype(np.float32)
    return field if channels else field[0]


@dataclass(frozen=True)
class Tumour:
    """One tumour in a plane.

    Attributes:
        offset: from its centre to each pixel in mm, [2, S, S].
        radius_mm: of its solid part.
        solid, necrosis, oedema: share of each pixel, 0..1, [S, S].
    """

    offset: np.ndarray
    radius_mm: float
    solid: np.ndarray
    necrosis: np.ndarray
    oedema: np.ndarray

    @classmethod
    def place(
        cls,
        rng: np.random.Generator,
        label: str,
        grid: np.ndarray,
        points: np.ndarray,
        depth: np.ndarray,
        white: np.ndarray,
    ) -> "Tumour":
        """Grow a tumour where its kind grows.

        Args:
            label: "glioma_tumor" (in deep white matter, necrotic, with oedema), "meningioma_tumor" (round, on the
                surface) or "pituitary_tumor" (small, in the sella).
            grid, points: coordinates of the pixels in the plane [2, S, S] and in MNI space [3, S, S], mm.
            depth: below the brain's hull, mm [S, S]; negative outside.
            white: share of white matter [S, S].
        """
        radius, roughness, necrotic, oedema_reach = {
            "glioma_tumor": (rng.uniform(9, 22), 0.28, rng.uniform(0.3, 0.75), rng.uniform(1.4, 2.0)),
            "meningioma_tumor": (rng.uniform(8, 20), 0.10, 0.0, rng.choice([1.0, 1.5])),
            "pituitary_tumor": (rng.uniform(6, 12), 0.10, rng.choice([0.0, 0.35]), 1.0),
        }[label]
        if label == "glioma_tumor":
            suitable = (depth > 14) & (white > 0.4)
        elif label == "meningioma_tumor":
            suitable = (depth > 0.3 * radius) & (depth < 0.7 * radius)
        else:
            from_sella = np.hypot(points[0] - SELLA_MM[0], points[1] - SELLA_MM[1])
            suitable = from_sella <= from_sella.min() + 2
        places = np.flatnonzero(suitable) if suitable.any() else np.array([depth.argmax()])
        centre = grid.reshape(2, -1)[:, rng.choice(places)]

        offset = grid - centre[:, None, None]
        angle = rng.uniform(0, np.pi)
        along = offset[0] * np.cos(angle) + offset[1] * np.sin(angle)
        across = offset[1] * np.cos(angle) - offset[0] * np.sin(angle)
        stretch = rng.uniform(1.0, 1.3)
        distance = np.hypot(along / stretch, across * stretch) / radius
        inside = 1 - distance + roughness * smooth_field(rng, depth.shape[0], knots=16)
        edge = 1.2 / radius  # a soft edge of about a millimetre
        reach = oedema_reach - distance + 0.3 * smooth_field(rng, depth.shape[0], knots=12)
        # A pituitary tumour may grow out of the brain's hull into the bone below; the others may not.
        within = 1.0 if label == "pituitary_tumor" else _soft(depth / 0.45)
        oedema = _soft(reach / 2 / edge) * (0.15 + 0.85 * white) if oedema_reach > 1 else np.zeros_like(inside)
        necrosis = _soft((inside + necrotic - 1) / edge) if necrotic else np.zeros_like(inside)
        return cls(offset, radius, _soft(inside / edge) * within, necrosis * within, oedema * _soft(depth / 0.45))

    def push(self, points: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Where the tissue at each pixel was before the tumour grew, [3, S, S] mm; the skull does not give way."""
        distance = np.hypot(*self.offset)
        shift = 0.45 * self.radius_mm * np.exp(-((distance / (1.8 * self.radius_mm)) ** 2))
        shift = np.minimum(shift, 0.9 * distance) * np.clip(depth / 12, 0, 1)
        moved = points.copy()
        moved[:2] -= shift * self.offset / (distance + 1e-3)
        return moved

    def paint(self, head: np.ndarray, solid: float, necrosis: float, oedema: float) -> np.ndarray:
        """The head's signal with the tumour's over it."""
        head = head + self.oedema * (oedema - head)
        head = head + self.solid * (solid - head)
        return head + self.necrosis * (necrosis - head)


def _soft(field: np.ndarray) -> np.ndarray:
    """0 far below zero, 1 far above, smooth between."""
    return 1 / (1 + np.exp(np.clip(-field, -30, 30)))
