"""What every source of slices offers: image folders, NIfTI and DICOM folders, phantoms."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from lwddpm.data.manifest import NotTaken

UNLABELLED = "unlabelled"
CLOSED_FOLDER = "a folder that cannot be listed; check its access"
PART = "//"  # between a file and the number of a page, volume or slice; in no path that a walk finds


class UnusableFile(Exception):  # noqa: N818
    """Why one file cannot become a slice; it is listed in the manifest, and the others go on."""


class SliceLeftOut(Exception):  # noqa: N818
    """A slice of a volume that the settings leave out, such as one beyond the head; counted by this reason."""


class ScanGeometry(NamedTuple):
    """What is known of a slice of a volume.

    Attributes:
        plane: "axial", "coronal" or "sagittal".
        sequence: such as "T1w"; None where it is not known.
        position_mm: world coordinate across the plane.
        spacing_mm: distance of the volume's voxels along rows and columns of the slice and across it: between rows,
            between columns, between slices.
    """

    plane: str
    sequence: str | None
    position_mm: float
    spacing_mm: tuple[float, float, float]


class Slice(NamedTuple):
    """One decoded slice.

    Attributes:
        image: uint8 [S, S].
        pixels_sha256: SHA-256 of its pixels before resampling.
        pages_left: pages of its file that are no slices of this source.
        geometry: where it lies, if it is cut from a volume.
    """

    image: np.ndarray
    pixels_sha256: bytes
    pages_left: int = 0
    geometry: ScanGeometry | None = None


class Source(Protocol):
    """Named slices, read one at a time.

    A source is picklable: workers receive a portion of it with every chunk of names. What it says of a slice depends on
    the slice and on the source's settings alone, not on the process, the machine or the order of the calls.
    """

    @property
    def simulated(self) -> bool:
        """Whether the slices show nobody; models that are trained on them are marked so."""
        ...

    def scan(self) -> tuple[list[str], str]:
        """Names of all slices, unique and sorted, and a fingerprint that changes when the source does.

        Decodes nothing.
        """
        ...

    def not_taken(self) -> NotTaken:
        """What lies there and is none of the slices, as far as it can be known without decoding anything."""
        ...

    def read(self, name: str) -> Slice:
        """Decode one slice.

        Raises:
            UnusableFile: there is no slice to be had from this file; the message says why, without its path.
            SliceLeftOut: the settings leave this slice out, which cannot be known without decoding it.
        """
        ...

    def label(self, name: str) -> str:
        """Class of a slice, from its name alone."""
        ...

    def subject_id(self, name: str) -> str | None:
        """Whom a slice shows, from its name alone; None where that is not known."""
        ...

    def portion(self, names: Sequence[str]) -> "Source":
        """What a worker receives to read these slices: this source, or less of it where it is large."""
        ...

    def volume(self, name: str) -> str | None:
        """The stack that a slice is part of, from its name alone; None where it is one by itself.

        Slices of a volume show one subject.
        """
        ...
