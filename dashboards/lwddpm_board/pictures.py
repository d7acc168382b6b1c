"""Slices as PNG files."""

import io

import numpy as np
from fastapi.responses import Response
from PIL import Image


def png(image: np.ndarray, *, keep_s: int = 0) -> Response:
    """A slice, uint8 [S, S], pixel for pixel.

    Args:
        image: the slice.
        keep_s: seconds that the browser may keep it; 0: not at all.
    """
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(image)).save(buffer, "PNG")
    control = f"private, max-age={keep_s}" if keep_s else "no-store"
    return Response(buffer.getvalue(), media_type="image/png", headers={"cache-control": control})
