"""From numbers of any range to 8-bit grey, for pictures with more than 8 bits, with signs or fractions."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from lwddpm.data.sources import UnusableFile

# of a picture's values: one hot voxel or a few do not decide how bright all others are (nnU-Net, Isensee et al. 2021,
# clips at the same ones)
PERCENTILES = 0.5, 99.5
LUMA = 0.299, 0.587, 0.114  # ITU-R BT.601, of red, green and blue

# "percentiles", "full", or the values that become black and white
Intensity = str | tuple[float, float]


class Samples(NamedTuple):
    """One picture as the numbers of its file.

    Attributes:
        values: float64 [H, W], luma where the file has colour.
        opacity: 0..1, float64 [H, W]; None where everything is opaque.
        low_is_white: the photometric sense: low values are bright (WhiteIsZero of TIFF).
    """

    values: np.ndarray
    opacity: np.ndarray | None = None
    low_is_white: bool = False


def samples_of(
    channels: np.ndarray, num_colours: int, *, alpha: int | None = None, premultiplied: bool = False
) -> Samples:
    """Luma and opacity from channels.

    The most opaque pixel is taken as opaque: 12-bit scans in 16-bit files have an alpha channel of 12 bits too.

    Args:
        channels: numbers of any real type [H, W, C].
        num_colours: 1 (grey) or 3 (red, green, blue): the first channels.
        alpha: index of the channel with the opacity; None where there is none.
        premultiplied: the colours are multiplied by the opacity already.
    """
    values = channels[..., 0].astype(np.float64) if num_colours == 1 else channels[..., :3].astype(np.float64) @ LUMA
    if alpha is None or premultiplied:
        return Samples(values)
    opacity = channels[..., alpha].astype(np.float64)
    return Samples(values, opacity / opacity.max() if opacity.max() > 0 else opacity)


def value_range(samples: Samples, intensity: Intensity) -> tuple[float, float]:
    """The values that become black and white, or white and black.

    Raises:
        UnusableFile: the picture has values that are not finite.
    """
    values = samples.values if samples.opacity is None else samples.values[samples.opacity > 0]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not np.isfinite(high - low):
        raise UnusableFile("has values that are not finite")
    if isinstance(intensity, tuple):
        return intensity
    if intensity == "percentiles" and high > low:
        # "higher" and "lower" are values of the picture, and so leave a single outlier out of a small one too
        low_percentile = float(np.percentile(values, PERCENTILES[0], method="higher"))
        high_percentile = float(np.percentile(values, PERCENTILES[1], method="lower"))
        if high_percentile > low_percentile:
            return low_percentile, high_percentile
    return low, high


def to_grey(samples: Samples, low: float, high: float) -> Image.Image:
    """Mode L: `low` and what is below becomes black, `high` and what is above white, what is transparent black."""
    scaled = (samples.values - low) * (255 / (high - low) if high > low else 0)
    grey = scaled.clip(0, 255)
    if samples.low_is_white and high > low:
        grey = 255 - grey
    if samples.opacity is not None:
        grey = grey * samples.opacity
    return Image.fromarray(grey.round().astype(np.uint8))
