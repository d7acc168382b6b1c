"""What lies in a folder of any kind, from headers alone: volumes, sequences, sizes, subjects, and what is refused.

The same functions as in preparation decide; nothing that identifies a person is in the result.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lwddpm.config import DataConfig
from lwddpm.data.canonical import Grid
from lwddpm.data.decoding import ImageHeader, read_image_header
from lwddpm.data.dicom import NO_DICOM, Header, NotRead, read_header
from lwddpm.data.dicom_folder import open_dicom_root
from lwddpm.data.dicom_series import Contents, assemble
from lwddpm.data.folder_walk import walk
from lwddpm.data.header_scan import read_headers
from lwddpm.data.nifti import SUFFIXES, read_grid
from lwddpm.data.nifti_folder import bids_subject, is_bids, sequence_of, why_no_scan
from lwddpm.data.pseudonyms import Pseudonyms, pseudonyms_of
from lwddpm.data.source_folder import SYSTEM
from lwddpm.data.volume_slices import AXES
from lwddpm.errors import DataError
from lwddpm.marks.mark import DRAWN, drawn_by
from lwddpm.marks.png import mark_of

OTHERS = "files that are neither DICOM, NIfTI nor images"
THICK = 1.5  # how much farther slices lie apart than pixels where a volume has a plane of its own


class Refused(NamedTuple):
    kind: str
    source: str
    reason: str


class Found(NamedTuple):
    """A volume: what is said of it in the result."""

    kind: str
    volume: str
    subject: str | None
    sequence: str | None
    plane: str | None
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    volumes: int
    missing_slices: int


def inspect_folder(path: str) -> dict[str, Any]:
    """Look at every file below a folder, or beside a DICOMDIR.

    Returns:
        `kinds`: number of volumes, or images, by the `data.format` that takes them; `volumes`: see `Found`, with keyed
        hashes for names; `images`: number by size, depth and pages; `subjects`: number of those that are known;
        `without_subject`: number of volumes of nobody known; `refused`: files and series of which prepare would say the
        same; `passed_over`: number by reason; `listed`: series among them; `sequences`, `planes`: number of volumes.

    Raises:
        DataError: there is no such folder, it cannot be listed, or lwddpm has made it.
    """
    if not Path(path).expanduser().exists():
        raise DataError(f"PATH: {path}: no such folder; give a folder of scans, or a DICOMDIR")
    data = DataConfig(source=path, format="dicom")
    root = open_dicom_root(data)
    pseudonyms = pseudonyms_of(data)
    passed_over: Counter[str] = Counter()

    def pass_over(name: str, kind: str) -> None:
        passed_over[SYSTEM] += 1

    names = sorted(file.name for file in walk(root, pass_over=pass_over))
    dicom: list[tuple[str, Header | NotRead]] = []
    found: list[Found] = []
    refused: list[Refused] = []
    images: list[tuple[str, ImageHeader | str]] = []
    bids = is_bids(root)
    for name, record in zip(names, read_headers(_read, root, names, "Reading headers"), strict=True):
        if isinstance(record, Header | NotRead):
            dicom.append((name, record))
        elif isinstance(record, ImageHeader) or not name.lower().endswith(SUFFIXES):
            assert not isinstance(record, Grid)
            images.append((name, record))
        elif why := why_no_scan(name, bids):
            passed_over[why] += 1
        elif isinstance(record, str):
            refused.append(Refused("nifti", pseudonyms.name(name, bids_subject(name)), record))
        else:
            found.append(_nifti(name, record, pseudonyms))
    contents = assemble(dicom)
    passed_over.update(contents.passed_over)
    found += _dicom(contents, pseudonyms)
    for name, reason in contents.refused.items():
        refused.append(Refused("dicom", pseudonyms.name(name, contents.subjects.get(name, ("",))[0]), reason))
    pictures = [header for _, header in images if isinstance(header, ImageHeader)]
    for name, reason in ((name, header) for name, header in images if isinstance(header, str)):
        # where there is nothing else, such a file is a damaged image
        if reason.startswith(DRAWN) or (pictures and not (found or dicom)):
            refused.append(Refused("images", pseudonyms.name(name, None), reason))
        else:
            passed_over[OTHERS] += 1
    kinds = Counter(volume.kind for volume in found) + Counter({"images": len(pictures)})
    return {
        "kinds": dict(sorted(kinds.items())),
        "subjects": len({volume.subject for volume in found} - {None}),
        "without_subject": sum(volume.subject is None for volume in found),
        "sequences": dict(Counter(volume.sequence or "unknown" for volume in found).most_common()),
        "planes": dict(Counter(volume.plane or "any" for volume in found).most_common()),
        "volumes": [volume._asdict() for volume in sorted(found, key=lambda volume: volume.volume)],
        "images": [
            {"size": [width, height], "more_than_8_bits": deep, "pages": pages, "files": num}
            for (width, height, deep, pages), num in Counter(pictures).most_common()
        ],
        "refused": [file._asdict() for file in sorted(refused)],
        "passed_over": dict(sorted(passed_over.items())),
        "listed": sorted(
            (
                {"source": pseudonyms.name(name, contents.subjects[name][0]), "reason": reason, "files": num}
                for name, (reason, num) in contents.listed.items()
            ),
            key=lambda series: str(series["source"]),
        ),
    }


def _read(path: Path) -> Header | NotRead | Grid | ImageHeader | str:
    """A file of any kind, by its name and its first bytes."""
    if path.name.lower().endswith(SUFFIXES):
        try:
            status = path.stat()
        except OSError:  # a link to itself, of which reading says the same
            return read_grid(path, 1, 0)
        return read_grid(path, status.st_size, status.st_mtime_ns)
    header = read_header(path)
    if isinstance(header, NotRead) and header.reason == NO_DICOM:
        mark = mark_of(path)
        return read_image_header(path) if mark is None else drawn_by(mark)
    return header


def _nifti(name: str, grid: Grid, pseudonyms: Pseudonyms) -> Found:
    subject = bids_subject(name)
    spacing = sorted((mm, axis) for axis, mm in enumerate(grid.spacing_mm))
    plane = _plane(spacing[2][1]) if spacing[2][0] >= THICK * spacing[1][0] else None
    return Found(
        "nifti", pseudonyms.name(name, subject), pseudonyms.subject(subject), sequence_of(name), plane,
        grid.shape, grid.spacing_mm, grid.num_volumes, 0,
    )  # fmt: skip


def _dicom(contents: Contents, pseudonyms: Pseudonyms) -> Iterator[Found]:
    for name, volume in contents.volumes.items():
        yield Found(
            "dicom", pseudonyms.name(name, volume.subject or None), pseudonyms.subject(volume.subject or None),
            volume.sequence, _plane(volume.axis), volume.grid.shape, volume.grid.spacing_mm, volume.grid.num_volumes,
            volume.missing,
        )  # fmt: skip


def _plane(axis: int) -> str:
    return next(plane for plane, across in AXES.items() if across == axis)
