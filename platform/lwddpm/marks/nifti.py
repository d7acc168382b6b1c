"""Marks in NIfTI files: `descrip` and `intent_name` for people, a header extension (a comment) for machines.

A file holds one slice, right way up where a viewer shows the first axis to the right and the second upwards. Its place
in a head and the size of its pixels are unknown, and so are the units in the header; there is no volume to be had from
slices that were drawn one by one.
"""

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from lwddpm.errors import DataError
from lwddpm.marks.mark import SYNTHETIC, Mark

SUFFIXES = (".nii.gz", ".nii")
_MAX_BYTES = 64 << 20  # of a file, decompressed: of the largest slice one, and 64 of it in a grid
_DESCRIP = 79
_COMMENT = 6  # code of an extension


def encode(image: np.ndarray, mark: Mark) -> bytes:
    """A compressed file of a slice, uint8 [H, W]; the same bytes for the same slice and mark."""
    nibabel = _nibabel()
    file = nibabel.Nifti1Image(np.ascontiguousarray(image[::-1].T[:, :, None]), None)
    file.header["descrip"] = mark.words()[:_DESCRIP].encode()
    file.header["intent_name"] = SYNTHETIC.encode()
    file.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", mark.text().encode()))
    return gzip.compress(file.to_bytes(), mtime=0)


def read(path: Path) -> tuple[np.ndarray | None, str | None]:
    """The slice in a file, uint8 [H, W], and the text of its mark; no slice where it holds anything else.

    Raises:
        DataError: it is damaged.
    """
    nibabel = _nibabel()
    try:
        content = _content(path)
        file = nibabel.Nifti1Image.from_bytes(content)
        mark = mark_of(file)
        voxels = np.asarray(file.dataobj) if len(file.shape) == 3 and file.shape[2] == 1 else None
    except Exception as error:  # nibabel raises nearly anything on a damaged file
        raise DataError(f"is no NIfTI file, or a damaged one ({type(error).__name__})") from None
    if voxels is None or voxels.dtype != np.uint8:
        return None, mark
    return np.ascontiguousarray(voxels[:, :, 0].T[::-1]), mark


def mark_of(file: Any) -> str | None:
    """The text of the mark in the header of an open file, or None."""
    comments = (each for each in getattr(file.header, "extensions", ()) if each.get_code() == _COMMENT)
    texts = (_text(comment.get_content()) for comment in comments)  # others may be parsed, such as DICOM headers
    return next((text for text in texts if f'"{SYNTHETIC}"' in text), None)


def _content(path: Path) -> bytes:
    with path.open("rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"
    with gzip.open(path) if compressed else path.open("rb") as stream:
        content: bytes = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise zlib.error("too large for a slice")
    return content


def _text(content: Any) -> str:
    return content.rstrip(b"\0").decode("utf-8", "replace") if isinstance(content, bytes) else str(content).rstrip("\0")


def _nibabel() -> Any:
    import nibabel  # takes 0.2 s

    return nibabel
