"""A folder of DICOM files as a source: a tree with or without a DICOMDIR, files with or without an extension."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lwddpm.config import DataConfig
from lwddpm.data.canonical import finite, to_canonical
from lwddpm.data.dicom import read_header, reason_of
from lwddpm.data.dicom_pixels import read_pictures, value_range
from lwddpm.data.dicom_series import Contents, Picture, Volume, assemble
from lwddpm.data.header_scan import read_headers
from lwddpm.data.manifest import NotTaken, RejectedFile
from lwddpm.data.source_folder import SYSTEM, SourceFolder, label_by_folder, open_folder
from lwddpm.data.sources import PART, UNLABELLED, Slice, UnusableFile
from lwddpm.data.volume_slices import AXES, Cut, Measured, measure, take_slice
from lwddpm.errors import DataError

FURTHER_VOLUMES = "further volumes of series with several (data.volumes)"


@dataclass(frozen=True)
class DicomFolder(SourceFolder):
    """Slices of the series in a folder, named by the first file of their series: `file//slice`, or with
    data.volumes=all `file//volume//slice`. What cannot be used has the name of its file, or first file, instead.

    Attributes:
        contents: what its files' headers say; in a portion, of that alone.
        fingerprint: of the names, sizes and times of its files.
    """

    cut: Cut
    volumes: str | int
    contents: Contents
    fingerprint: str

    def scan(self) -> tuple[list[str], str]:
        names = [name for volume in self.contents.volumes.values() for name in self._slices_of(volume)]
        return sorted([*names, *self.contents.refused]), self.fingerprint

    def portion(self, names: Sequence[str]) -> "DicomFolder":
        """What is to be known of the files of these slices, and of no others; not whom they show."""
        whole = self.contents
        files = list(dict.fromkeys(name.partition(PART)[0] for name in names))
        return replace(
            self,
            contents=Contents(
                volumes={
                    file: replace(whole.volumes[file], subject="", study="") for file in files if file in whole.volumes
                },
                refused={file: whole.refused[file] for file in files if file in whole.refused},
            ),
        )

    def _slices_of(self, volume: Volume) -> list[str]:
        num_volumes = volume.grid.num_volumes
        if isinstance(self.volumes, int) and self.volumes >= num_volumes:
            return [volume.name]
        chosen = range(num_volumes) if self.volumes == "all" else [self._number(volume)]
        if volume.missing and AXES[self.cut.plane] != volume.axis:
            return [volume.name]
        taken = []
        for number in chosen:
            which = f"{PART}{number:04d}" if self.volumes == "all" and num_volumes > 1 else ""
            for slice_ in self.cut.numbers(volume.grid):
                if not volume.missing or volume.pictures[number][volume.stored_slice(slice_)] is not None:
                    taken.append(f"{volume.name}{which}{PART}{slice_:04d}")
        return taken

    def _number(self, volume: Volume) -> int:
        return self.volumes if isinstance(self.volumes, int) else 0

    def not_taken(self) -> NotTaken:
        other = Counter(self.contents.passed_over)
        if self.volumes != "all":
            further = sum(volume.grid.num_volumes - 1 for volume in self.contents.volumes.values())
            other.update({FURTHER_VOLUMES: further} if further else {})
        system: list[str] = []
        excluded = self.list_files(lambda name, kind: system.append(kind)).excluded
        other.update({SYSTEM: len(system)} if system else {})
        listed = tuple(
            RejectedFile(source=name, reason=f"{reason}, {num} file{'' if num == 1 else 's'}")
            for name, (reason, num) in sorted(self.contents.listed.items())
        )
        return NotTaken(excluded=excluded, other=dict(sorted(other.items())), listed=listed)

    def read(self, name: str) -> Slice:
        file, *numbers = name.split(PART)
        if reason := self.contents.refused.get(file):
            raise UnusableFile(reason)
        volume = self.contents.volumes.get(file)
        if volume is None:
            raise UnusableFile("is no file of this source any more")
        if not numbers and isinstance(self.volumes, int) and self.volumes >= volume.grid.num_volumes:
            raise UnusableFile(
                f"has {volume.grid.num_volumes} volumes, and data.volumes asks for number {self.volumes}"
            )
        if not numbers:
            slices = sum(len(pictures) for pictures in volume.pictures)
            plane = next(plane for plane, axis in AXES.items() if axis == volume.axis)
            raise UnusableFile(
                f"{volume.missing} of {slices} slices are missing: only {plane} slices could be cut (data.plane)"
            )
        chosen = int(numbers[0]) if len(numbers) == 2 else self._number(volume)
        loaded, number = _load(self.root, volume, chosen, self.cut), int(numbers[-1])
        if AXES[self.cut.plane] == volume.axis:
            damaged = loaded.damaged.get(number)
        else:
            damaged = next(iter(loaded.damaged.values()), None)
        if damaged:
            raise UnusableFile(damaged)
        return take_slice(loaded.voxels, volume.grid, loaded.measured, number, self.cut, volume.sequence)

    def label(self, name: str) -> str:
        file = name.partition(PART)[0]
        if self.label_from != "auto":
            return label_by_folder(file, self.label_from)
        volume = self.contents.volumes.get(file)
        return (volume and volume.sequence) or UNLABELLED

    def subject_id(self, name: str) -> str | None:
        file = name.partition(PART)[0]
        if self.subject_pattern:
            return self.subject_of(file)
        return self.contents.subjects.get(file, ("", ""))[0] or None

    def volume(self, name: str) -> str | None:
        """The first file of its series; where no PatientID is known, its study, which shows one person."""
        file, part, _ = name.partition(PART)
        if not part:
            return None
        patient, study = self.contents.subjects.get(file, ("", ""))
        return file if patient or not study else f"study {study}"


def open_dicom_root(data: DataConfig) -> str:
    """The folder `data.source`, or that of the DICOMDIR which it names.

    Raises:
        DataError: there is no such folder, it cannot be listed, or lwddpm has made it.
    """
    source = Path(data.source).expanduser()
    if source.name.upper() == "DICOMDIR" and source.is_file():
        data = data.model_copy(update={"source": str(source.parent)})
    return open_folder(data).root


def open_dicom_folder(data: DataConfig) -> DicomFolder:
    """The folder `data.source`, or that of the DICOMDIR which it names, as a source of volumes.

    Raises:
        DataError: there is no such folder, it cannot be listed, lwddpm has made it, or `data.label` is no sequence.
    """
    root = open_dicom_root(data)
    if data.label not in (None, "sequence"):
        raise DataError(
            f"data.label: {data.label}: of DICOM must be 'sequence'; leave it out, or name folders (data.label_from)"
        )
    files = SourceFolder.of(data, root).list_files()
    fingerprint = files.digest().hexdigest()
    contents = _read_folder(root, tuple(file.name for file in files.files), fingerprint)
    return DicomFolder.of(
        data, root, cut=Cut.of(data), volumes=data.volumes, contents=contents, fingerprint=fingerprint
    )


class _Loaded(NamedTuple):
    """`damaged`: why, by the canonical number along the axis of the stored slices."""

    voxels: np.ndarray
    measured: Measured
    damaged: dict[int, str]


@lru_cache(maxsize=2)  # a source is scanned several times
def _read_folder(root: str, names: tuple[str, ...], fingerprint: str) -> Contents:
    headers = read_headers(read_header, root, names, "Reading headers")
    return assemble(zip(names, headers, strict=True))


@lru_cache(maxsize=1)  # the slices of a volume are read one after the other
def _load(root: str, volume: Volume, number: int, cut: Cut) -> _Loaded:
    """One volume of a series in canonical orientation, with what its slices share.

    Raises:
        UnusableFile: no slice of it can be read.
    """
    pictures = volume.pictures[number]
    damaged: dict[int, str] = {}
    sections: list[np.ndarray | None] = [None] * len(pictures)
    for index, values in _sections(root, pictures, cut, damaged):
        sections[index] = values
    good = [section for section in sections if section is not None]
    if not good:
        raise UnusableFile(next(iter(damaged.values())))
    dtype = np.result_type(*{section.dtype for section in good})
    lowest = min(section.min() for section in good)  # in the place of slices that are missing or damaged
    voxels = np.full((*good[0].shape, len(sections)), lowest, dtype, order="F")
    for index, section in enumerate(sections):
        if section is not None:
            voxels[..., index] = section
    voxels = finite(to_canonical(voxels, np.array(volume.affine)))
    last = len(sections) - 1
    by_number = {last - index if volume.flipped else index: reason for index, reason in damaged.items()}
    return _Loaded(voxels, measure(voxels, cut.plane, cut.intensity), by_number)


def _sections(
    root: str, pictures: Sequence[Picture | None], cut: Cut, damaged: dict[int, str]
) -> Iterator[tuple[int, np.ndarray]]:
    """The slices [columns, rows] of a volume that can be read, as the values that they stand for."""
    by_file: dict[str, list[tuple[int, Picture]]] = {}
    for index, picture in enumerate(pictures):
        if picture is not None:
            by_file.setdefault(picture.file, []).append((index, picture))
    for file, members in by_file.items():
        encoding = members[0][1].encoding
        try:
            stored = read_pictures(Path(root, file), encoding, [picture.place for _, picture in members])
        except Exception as error:
            for index, _ in members:
                damaged[index] = f"slice {index + 1} of {len(pictures)}: {reason_of(error)}"
            continue
        for (index, picture), numbers in zip(members, stored, strict=True):
            yield index, _meaning(numbers.T, picture, cut)


def _meaning(numbers: np.ndarray, picture: Picture, cut: Cut) -> np.ndarray:
    """Values in the file's units, slope and intercept applied; low ones are dark."""
    is_scaled = (picture.slope, picture.intercept) != (1.0, 0.0)
    low, high = value_range(picture.encoding)
    if picture.encoding.inverted and not is_scaled and not isinstance(cut.intensity, tuple):
        inverted: np.ndarray = numbers.dtype.type(low + high) - numbers
        return inverted
    values = numbers.astype(np.float32) * picture.slope + picture.intercept if is_scaled else numbers
    if not picture.encoding.inverted:
        return values
    ends = (low * picture.slope + picture.intercept, high * picture.slope + picture.intercept)
    pivot = sum(cut.intensity if isinstance(cut.intensity, tuple) else ends)  # a window turns round itself
    return np.float32(pivot) - values.astype(np.float32)
