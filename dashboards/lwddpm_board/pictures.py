"""Slices as PNG files."""

import numpy as np
from fastapi.responses import Response

from lwddpm.marks import png as marked
from lwddpm.marks.mark import Mark


def png(image: np.ndarray, *, keep_s: int = 0, mark: Mark | None = None, note: str = "") -> Response:
    """A slice, uint8 [S, S], pixel for pixel.

    Args:
        image: the slice.
        keep_s: seconds that the browser may keep it; 0: not at all.
        mark: of a synthetic slice: how it was drawn.
        note: what else is said in the file.
    """
    content = marked.encode(image, mark) if mark else marked.with_texts(image, {"Description": note} if note else {})
    control = f"private, max-age={keep_s}" if keep_s else "no-store"
    return Response(content, media_type="image/png", headers={"cache-control": control})
