"""Files of synthetic images: one function writes all formats, one reads whatever file it is given."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from lwddpm.errors import DataError
from lwddpm.marks import dicom, nifti, png
from lwddpm.marks.mark import Mark

ENCODERS: dict[str, Callable[[np.ndarray, Mark], bytes]] = {
    "png": png.encode,
    "dicom": dicom.encode,
    "nifti": nifti.encode,
}
ENDINGS = {"png": ".png", "dicom": ".dcm", "nifti": ".nii.gz"}
_MAX_SIDE = 1024 * 8 + 256  # of the largest grid


def read(path: Path) -> tuple[np.ndarray | None, str | None]:
    """The picture in a file and the text of its mark.

    Returns:
        uint8 [H, W], None where it is not 8-bit grey, as all images of this platform are; the text, or None.

    Raises:
        DataError: the file cannot be read; says why, without its name.
    """
    try:
        with path.open("rb") as stream:
            begin = stream.read(132)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}") from None
    if not begin:
        raise DataError("is empty")
    if begin[128:] == b"DICM":
        return dicom.read(path)
    if path.name.lower().endswith(nifti.SUFFIXES):
        return nifti.read(path)
    return _read_picture(path)


def _read_picture(path: Path) -> tuple[np.ndarray | None, str | None]:
    try:
        with Image.open(path) as picture:
            if max(picture.size) > _MAX_SIDE:
                return None, None
            picture.load()
            mark = picture.info.get(png.KEY)
            text = mark if isinstance(mark, str) else None
            return np.asarray(picture) if picture.mode == "L" else None, text
    except Exception as error:  # Pillow's readers raise nearly anything on a damaged file
        raise DataError(f"is no picture, or a damaged one ({type(error).__name__})") from None
