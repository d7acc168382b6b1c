"""From the files of a folder to volumes: which pictures belong together, in which order, on which grid.

Order is by position along the normal of the pictures. InstanceNumber is none: scanners count echoes, times and
interleaved slices as they come, and anonymisers shuffle.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from lwddpm.data.canonical import Grid, canonical_grid
from lwddpm.data.dicom import NO_DICOM, Encoding, Frame, Header, NotRead
from lwddpm.data.dicom_pixels import Place, is_readable
from lwddpm.data.sources import UnusableFile

SAME_PLACE_MM = 0.02  # headers round positions
OFF_GRID = 0.1  # of the distance of slices: by how much one may lie beside its place
COPIES = "copies of files that are there twice (SOPInstanceUID)"
GAPS = "slices that are missing between those of a series"
INCOMPLETE = "pictures of incomplete volumes"

Affine = tuple[tuple[float, ...], ...]


class Picture(NamedTuple):
    """One slice as it is stored."""

    file: str
    encoding: Encoding
    place: Place
    slope: float
    intercept: float


@dataclass(frozen=True)
class Volume:
    """Slices on one grid, or several volumes of them: times, echoes, diffusion weightings.

    Attributes:
        name: its first file.
        affine: from (column, row, slice) to mm to the right, the front and the top.
        grid: the same in canonical orientation.
        pictures: of each volume, by slice; None where one is missing.
        axis, flipped: the canonical axis that slices are stacked along, and whether it runs against them.
    """

    name: str
    subject: str
    study: str
    sequence: str | None
    affine: Affine
    grid: Grid
    axis: int
    flipped: bool
    pictures: tuple[tuple[Picture | None, ...], ...]

    @property
    def missing(self) -> int:
        """How many slices lie in gaps, of all its volumes."""
        return sum(picture is None for volume in self.pictures for picture in volume)

    def stored_slice(self, number: int) -> int:
        """Which stored slice is the canonical one of this number along `axis`."""
        return len(self.pictures[0]) - 1 - number if self.flipped else number


@dataclass
class Contents:
    """What lies in a folder: volumes by name; the files and series that are refused; how many are passed over and why.

    Attributes:
        volumes: by the name of their first file.
        refused: why, by file or, of a series, by its first file.
        subjects: patients and studies of what is refused, by the same names.
        passed_over: number of files or slices, by reason.
        listed: why a series is passed over, and how many files of it, by its first file.
    """

    volumes: dict[str, Volume] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    subjects: dict[str, tuple[str, str]] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)
    listed: dict[str, tuple[str, int]] = field(default_factory=dict)


def assemble(files: Iterable[tuple[str, Header | NotRead]]) -> Contents:
    """Volumes of what the headers of a folder's files say, which come sorted by name."""
    contents = Contents()
    series: dict[tuple[str, str, str], list[tuple[str, Header]]] = defaultdict(list)
    seen: set[str] = set()
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)  # files of a series that one reason is said of
    for name, header in files:
        if isinstance(header, NotRead):
            alike[(str(header.damaged), header.reason, *(header.series if any(header.series) else (name,)))].append(
                name
            )
            contents.subjects[name] = header.series[:2]
        elif header.instance and header.instance in seen:
            contents.passed_over[COPIES] += 1
        else:
            seen.add(header.instance)
            series[header.series].append((name, header))
    for (damaged, reason, *_), names in alike.items():
        if damaged == str(True):
            contents.refused[names[0]] = reason if len(names) == 1 else f"{reason} ({_files(len(names))})"
        else:
            contents.passed_over[reason] += len(names)
            if reason != NO_DICOM:
                contents.listed[names[0]] = (reason, len(names))
    for (patient, study, _), members in series.items():
        first = members[0][0]
        contents.subjects[first] = (patient, study)
        try:
            volume, incomplete = _volume(members)
        except UnusableFile as error:
            contents.refused[first] = f"{error} ({_files(len(members))})"
            continue
        contents.volumes[first] = volume
        contents.passed_over[GAPS] += volume.missing
        contents.passed_over[INCOMPLETE] += incomplete
    contents.passed_over = Counter({reason: num for reason, num in sorted(contents.passed_over.items()) if num})
    return contents


def _files(num: int) -> str:
    return f"{num} file{'' if num == 1 else 's'} of a series"


def _volume(members: list[tuple[str, Header]]) -> tuple[Volume, int]:
    """The volume that a series is, and how many of its pictures belong to incomplete ones.

    Raises:
        UnusableFile: it is none.
    """
    encodings: dict[Encoding, Encoding] = {}  # one object for all files of the same
    frames = [
        (
            frame,
            Picture(
                file,
                encodings.setdefault(header.encoding, header.encoding),
                _place(header, frame),
                frame.slope,
                frame.intercept,
            ),
        )
        for file, header in members
        for frame in header.frames
    ]
    first, encoding = frames[0][0], frames[0][1].encoding
    if unread := next((picture for _, picture in frames if not is_readable(picture.encoding)), None):
        from pydicom.uid import UID

        uid = UID(unread.encoding.syntax)
        raise UnusableFile(f"compressed in a way that is not read ({uid.name if uid.name != uid else 'unknown'})")
    if any((p.encoding.rows, p.encoding.columns) != (encoding.rows, encoding.columns) for _, p in frames):
        raise UnusableFile("pictures of several sizes in one series")
    if len({p.encoding.inverted for _, p in frames}) > 1:
        raise UnusableFile("pictures of both photometric senses in one series")
    orientations = np.array([frame.orientation for frame, _ in frames])
    if (num := _num_different(orientations, 2e-3)) > 1:
        raise UnusableFile(f"mixed orientations: {num} in one series, as in localizers")
    if _num_different(np.array([frame.spacing for frame, _ in frames]), 1e-3) > 1:
        raise UnusableFile("pictures of several pixel spacings in one series")
    row, column = orientations[0, :3], orientations[0, 3:]
    positions = np.array([frame.position for frame, _ in frames])
    along = positions @ np.cross(row, column)
    order = sorted(range(len(frames)), key=lambda i: (along[i], frames[i][0].order))
    stacks: list[list[int]] = []  # pictures at one position each
    for i in order:
        if stacks and along[i] - along[stacks[-1][0]] <= SAME_PLACE_MM:
            stacks[-1].append(i)
        else:
            stacks.append([i])
    chosen, incomplete = _volumes(stacks, [frame for frame, _ in frames])
    at = positions[chosen[0]]
    step, numbers = _steps(at, first.distance, np.cross(row, column))
    pictures: list[tuple[Picture | None, ...]] = []
    for volume in chosen:
        slots: list[Picture | None] = [None] * (numbers[-1] + 1)
        for number, i in zip(numbers, volume, strict=True):
            slots[number] = frames[i][1]
        pictures.append(tuple(slots))
    affine = np.eye(4)
    affine[:3, :] = np.stack([row * first.spacing[1], column * first.spacing[0], step, at[0]], axis=1)
    affine[:2] *= -1  # DICOM's axes point to the left and the back
    grid = canonical_grid(affine, (encoding.columns, encoding.rows, len(pictures[0])), len(pictures))
    import nibabel

    axis, sign = nibabel.io_orientation(affine)[2]
    name, header = members[0]
    return Volume(
        name=name,
        subject=header.series[0],
        study=header.series[1],
        sequence=next((header.sequence for _, header in members if header.sequence), None),
        affine=tuple(tuple(float(value) for value in line) for line in affine),
        grid=grid,
        axis=int(axis),
        flipped=bool(sign < 0),
        pictures=tuple(pictures),
    ), incomplete


def _place(header: Header, frame: Frame) -> Place:
    return Place(header.offset, header.length, frame.number, len(header.frames))


def _num_different(rows: np.ndarray, tolerance: float) -> int:
    different: list[np.ndarray] = []
    for row in np.unique(rows.round(6), axis=0):
        if all(np.abs(row - other).max() > tolerance for other in different):
            different.append(row)
    return len(different)


def _volumes(stacks: list[list[int]], frames: list[Frame]) -> tuple[list[list[int]], int]:
    """Pictures by volume and position, from the pictures at each position; and how many are left over."""
    counts = {len(stack) for stack in stacks}
    if len(counts) == 1:
        return [list(volume) for volume in zip(*stacks, strict=True)], 0
    # Pictures that were sent twice differ in nothing. Time, echo and weighting tell the whole volumes from those that
    # the scanner did not end.
    stacks = [list({frames[i].order: i for i in reversed(stack)}.values())[::-1] for stack in stacks]
    by_key: dict[tuple[float, ...], list[int]] = defaultdict(list)
    for stack in stacks:
        for i in stack:
            by_key[frames[i].order[:-1]].append(i)
    whole = [by_key[key] for key in sorted(by_key) if len(by_key[key]) == len(stacks)]
    whole = [volume for volume in whole if all(i in stack for i, stack in zip(volume, stacks, strict=True))]
    if not whole:
        raise UnusableFile(f"{min(counts)} to {max(counts)} pictures at one position: no volume has all of them")
    return whole, len(frames) - len(whole) * len(stacks)


def _steps(positions: np.ndarray, said: float, normal: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """From slice to slice in mm [3], and the number of each slice, where gaps have their numbers too.

    Args:
        positions: of slices in their order, [n, 3].
        said: the distance that the header says, for a single slice.
        normal: of the pictures.
    """
    if len(positions) == 1:
        return normal * (said or 1.0), [0]
    distances = np.diff(positions @ normal)
    step = float(np.median(distances[distances < 1.5 * distances.min()]))
    counts = np.maximum(1, np.rint(distances / step)).astype(int)
    step = float(distances.sum() / counts.sum())
    if (np.abs(distances - counts * step) > OFF_GRID * step + SAME_PLACE_MM).any():
        raise UnusableFile(f"slices at uneven distances, {distances.min():.2f} to {distances.max():.2f} mm")
    numbers = [0, *np.cumsum(counts).tolist()]
    if numbers[-1] + 1 > 2 * len(positions):
        raise UnusableFile(f"{numbers[-1] + 1 - len(positions)} of {numbers[-1] + 1} slices are missing")
    vector = (positions[-1] - positions[0]) / numbers[-1]
    off = positions - positions[0] - np.outer(numbers, vector)
    if np.abs(off).max() > max(OFF_GRID * step, 1.0):
        raise UnusableFile("its slices do not lie in one line")
    return vector, numbers
