"""A folder of NIfTI volumes as a source: BIDS (sub-*/ses-*/anat/sub-*_T1w.nii.gz) or any other tree."""

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from lwddpm.config import DataConfig
from lwddpm.data.folder_walk import WalkedFile, walk
from lwddpm.data.manifest import NotTaken
from lwddpm.data.nifti import SUFFIXES, read_grid, read_voxels, reason_of
from lwddpm.data.sequences import sequence_of_name
from lwddpm.data.source_folder import SYSTEM, is_wanted, label_by_folder, open_folder
from lwddpm.data.sources import CLOSED_FOLDER, PART, UNLABELLED, Slice, UnusableFile
from lwddpm.data.volume_slices import Cut, Measured, measure, take_slice
from lwddpm.errors import DataError

SUBJECT = re.compile(r"(?:^|/)(sub-[A-Za-z0-9]+)(?=[/_])")
MASK = re.compile(r"[-_](mask|dseg|probseg|seg|aseg|aparc|lesion|roi)$", re.IGNORECASE)
BESIDE_RAW = ("derivatives", "sourcedata", "code", "stimuli")  # of a BIDS folder
PARTICIPANTS = "participants.tsv"
NO_NIFTI, SEGMENTATIONS, OUT_OF_BIDS = (
    "files that are no NIfTI", "masks and segmentations", "files in derivatives, sourcedata and the like"
)  # fmt: skip
FURTHER_VOLUMES = "further volumes of 4D files (data.volumes)"


@dataclass(frozen=True)
class NiftiFolder:
    """Slices of the volumes in a folder, named `file//slice`, or `file//volume//slice` with data.volumes=all.

    A file that cannot be used has its own name instead.
    """

    root: str
    cut: Cut
    subject_pattern: str | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    simulated: bool
    label_from: str | int
    label_column: str | None
    volumes: str | int

    def scan(self) -> tuple[list[str], str]:
        digest, names = hashlib.sha256(), []
        for name, status, _ in sorted(self._files()):
            size, time = (status.st_size, status.st_mtime_ns) if status else (0, 0)
            names += self._slices_of(name, size, time)
            digest.update(f"{name}\0{size}\0{time}\n".encode(errors="surrogateescape"))
        if self.label_column not in (None, "sequence"):  # labels come from there
            digest.update(Path(self.root, PARTICIPANTS).read_bytes())
        return sorted(names), digest.hexdigest()

    def _files(self, not_taken: Counter[str] | None = None) -> Iterator[WalkedFile]:
        """The NIfTI files that are scans; the others are counted by reason."""
        others: Counter[str] = Counter() if not_taken is None else not_taken

        def pass_over(name: str, kind: str) -> None:
            others[SYSTEM] += 1

        bids = is_bids(self.root)
        for file in walk(self.root, pass_over=pass_over):
            if not is_wanted(file.name, self.include, self.exclude):
                continue
            why = why_no_scan(file.name, bids)
            # a folder without access, or a link to itself, says so when it is read
            if why is None or (why == NO_NIFTI and file.status is None):
                yield file
            else:
                others[why] += 1

    def _slices_of(self, file: str, size: int, time: int) -> list[str]:
        grid = read_grid(Path(self.root, file), size, time)
        if isinstance(grid, str) or (isinstance(self.volumes, int) and self.volumes >= grid.num_volumes):
            return [file]
        numbers = [f"{PART}{number:04d}" for number in self.cut.numbers(grid)]
        if self.volumes == "all" and grid.num_volumes > 1:
            return [f"{file}{PART}{volume:04d}{number}" for volume in range(grid.num_volumes) for number in numbers]
        return [f"{file}{number}" for number in numbers]

    def not_taken(self) -> NotTaken:
        other: Counter[str] = Counter()
        for file in self._files(other):
            if file.status is not None and self.volumes != "all":
                grid = read_grid(Path(self.root, file.name), file.status.st_size, file.status.st_mtime_ns)
                further = 0 if isinstance(grid, str) else grid.num_volumes - 1
                if further:
                    other[FURTHER_VOLUMES] += further
        excluded = sum(not is_wanted(file.name, self.include, self.exclude) for file in walk(self.root))
        return NotTaken(excluded=excluded, other=dict(sorted(other.items())))

    def read(self, name: str) -> Slice:
        file, *numbers = name.split(PART)
        path = Path(self.root, file)
        try:
            status = path.stat()
        except OSError as error:
            raise UnusableFile(reason_of(error, size=1)) from None
        if path.is_dir():
            raise UnusableFile(CLOSED_FOLDER)
        grid = read_grid(path, status.st_size, status.st_mtime_ns)
        if isinstance(grid, str):
            raise UnusableFile(grid)
        if not numbers:
            raise UnusableFile(f"has {grid.num_volumes} volumes, and data.volumes asks for number {self.volumes}")
        chosen = self.volumes if isinstance(self.volumes, int) else 0
        volume = int(numbers[0]) if len(numbers) == 2 else chosen
        voxels, measured = _load(path, status.st_size, status.st_mtime_ns, volume, self.cut)
        return take_slice(voxels, grid, measured, int(numbers[-1]), self.cut, sequence_of(file))

    def label(self, name: str) -> str:
        file = name.partition(PART)[0]
        if self.label_column is None and self.label_from != "auto":
            return label_by_folder(file, self.label_from)
        if self.label_column in (None, "sequence"):
            return sequence_of(file) or UNLABELLED
        return participants(self.root).get(self.subject_id(name) or "", {}).get(self.label_column, "") or UNLABELLED

    def subject_id(self, name: str) -> str | None:
        file = name.partition(PART)[0]
        match = re.search(self.subject_pattern, file) if self.subject_pattern else SUBJECT.search(file)
        return match[1] if match else None

    def portion(self, names: Sequence[str]) -> "NiftiFolder":
        return self

    def volume(self, name: str) -> str | None:
        """The file: all volumes of a 4D file show one subject."""
        file, part, _ = name.partition(PART)
        return file if part else None


def open_nifti_folder(data: DataConfig) -> NiftiFolder:
    """The folder `data.source` as a source of volumes.

    Raises:
        DataError: there is no such folder, it cannot be listed, lwddpm has made it, or `data.label` is no column.
    """
    root = str(open_folder(data).root)
    if data.label not in (None, "sequence"):
        columns = {column for row in participants(root).values() for column in row} - {"participant_id"}
        if data.label not in columns:
            known = ", ".join(sorted(columns)) or f"there is no {PARTICIPANTS}"
            raise DataError(
                f"data.label: {data.label}: must be 'sequence' or a column of {PARTICIPANTS} ({known}); "
                "name one of them, or leave it out"
            )
    return NiftiFolder(
        root=root,
        cut=Cut.of(data),
        subject_pattern=data.subject_pattern,
        include=data.include,
        exclude=data.exclude,
        simulated=data.synthetic,
        label_from=data.label_from,
        label_column=data.label,
        volumes=data.volumes,
    )


def is_bids(root: str) -> bool:
    """Whether a folder is laid out as BIDS says, as far as its files at the top tell."""
    return any(Path(root, file).exists() for file in (PARTICIPANTS, "dataset_description.json"))


def why_no_scan(file: str, bids: bool) -> str | None:
    """Why a file is passed over, by its name; None where it is a scan."""
    stem = _stem(file)
    if stem is None:
        return NO_NIFTI
    if bids and file.split("/")[0] in BESIDE_RAW:
        return OUT_OF_BIDS
    return SEGMENTATIONS if MASK.search(stem) else None


def sequence_of(file: str) -> str | None:
    """The last part of a file's name that is known as a sequence; None where none is."""
    return sequence_of_name(_stem(file) or "")


@lru_cache(maxsize=4)
def participants(root: str) -> dict[str, dict[str, str]]:
    """The columns of participants.tsv, by subject; what is "n/a" is left out. Nothing where there is no such file.

    Raises:
        DataError: it is no table with a column participant_id.
    """
    try:
        with Path(root, PARTICIPANTS).open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"data.source: {PARTICIPANTS} cannot be read ({type(error).__name__}); repair it") from None
    if rows and "participant_id" not in rows[0]:
        raise DataError(f"data.source: {PARTICIPANTS} has no column participant_id, as BIDS asks for; add it")
    return {
        row["participant_id"]: {
            column: value.strip()
            for column, value in row.items()
            if isinstance(column, str) and isinstance(value, str) and value.strip() not in ("", "n/a")
        }
        for row in rows
    }


@lru_cache(maxsize=1)  # the slices of a volume are read one after the other
def _load(path: Path, size: int, time: int, volume: int, cut: Cut) -> tuple[np.ndarray, Measured]:
    voxels = read_voxels(path, volume)
    return voxels, measure(voxels, cut.plane, cut.intensity)


def _stem(file: str) -> str | None:
    """The name of a NIfTI file without its folders and ending; None of other files."""
    name = file.rpartition("/")[2]
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), None)
