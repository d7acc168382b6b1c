"""Which slices of a prepared dataset show a subject, come from a file, or look like a picture."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import TypeAdapter

from lwddpm.config import DataConfig
from lwddpm.data.decoding import decode, resample
from lwddpm.data.duplicates import MAX_DISTANCE, MIN_CORRELATION, correlation, perceptual_hashes
from lwddpm.data.intensity import Intensity
from lwddpm.data.manifest import SPLITS, Manifest
from lwddpm.data.pseudonyms import DIGITS, Pseudonyms
from lwddpm.data.sources import PART, UnusableFile
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError

IMAGES_AT_ONCE = 4096
_HASH = re.compile(f"[0-9a-f]{{{DIGITS}}}")
_INTENSITY: TypeAdapter[Intensity] = TypeAdapter(Intensity)


class HeldSlice(NamedTuple):
    """A slice that was looked for.

    Attributes:
        match: "subject", "file", "exact" (the same pixels), "near" (verified to show the same picture), "mirrored".
        correlation: of the pixels with those of the picture that was given, if one was.
    """

    split: str
    source: str
    subject: str | None
    match: str
    correlation: float | None = None


def is_hashed(manifest: Manifest) -> bool:
    """Whether a dataset names subjects and files by keyed hashes."""
    settings = manifest.settings
    return settings.get("format", "images") != "images" and settings.get("keep_subject_ids") is None


def find_subject(dataset: Dataset, subject: str, pseudonyms: Pseudonyms) -> Iterator[HeldSlice]:
    """Slices of a subject, by its id in the source or by its hash."""
    wanted = {subject, pseudonyms.subject(subject)}
    for split, source, held in _rows(dataset):
        if held in wanted:
            yield HeldSlice(split, source, held, "subject")


def find_file(dataset: Dataset, file: str, pseudonyms: Pseudonyms) -> Iterator[HeldSlice]:
    """Slices of a file, by its path below the source, by that of one of its slices, or by their hashes."""
    name, separator, part = file.partition(PART)
    wanted = {file, f"{pseudonyms.file(name)}{separator}{part}"}
    for split, source, subject in _rows(dataset):
        if wanted & _names(source):
            yield HeldSlice(split, source, subject, "file")


def entries_held(dataset: Dataset, entries: Iterable[str], pseudonyms: Pseudonyms) -> set[str]:
    """Which of the entries of a withdrawal list a dataset has slices of."""
    held: set[str] = set()
    for _, source, subject in _rows(dataset):
        held |= _names(source.partition(PART)[0])
        held |= {source} if subject is None else {source, subject}
    return {entry for entry in entries if held & {entry, pseudonyms.subject(entry), pseudonyms.file(entry)}}


def find_image(dataset: Dataset, file: Path) -> Iterator[HeldSlice]:
    """Slices that show what a picture shows, the same pixels or nearly, mirrored too (see `duplicates`).

    Raises:
        ConfigError: the file is no picture that can be read.
    """
    pictures = _pictures(file, dataset.manifest)
    hashes = perceptual_hashes(pictures)[:, 0]
    for split in SPLITS:
        images = dataset.images(split)
        found: list[tuple[int, str, float]] = []
        for start in range(0, len(images), IMAGES_AT_ONCE):
            part = np.asarray(images[start : start + IMAGES_AT_ONCE])
            for picture, hash_ in zip(pictures, hashes, strict=True):
                found += [(start + row, match, value) for row, match, value in _alike(part, picture, hash_)]
        if found:
            sources, subjects = dataset.sources(split), dataset.subjects(split)
            best = {row: (match, value) for row, match, value in sorted(found, key=lambda each: each[2])}
            for row, (match, value) in sorted(best.items()):
                yield HeldSlice(split, sources[row], subjects[row], match, round(value, 4))


def _alike(images: np.ndarray, picture: np.ndarray, hash_: np.ndarray) -> Iterator[tuple[int, str, float]]:
    """Rows of images [N, S, S] that show a picture [S, S], how, and how much they correlate."""
    exact = set(np.flatnonzero((images == picture).all(axis=(1, 2))).tolist())
    for row in sorted(exact):
        yield row, "exact", 1.0
    distances = np.bitwise_count(perceptual_hashes(images) ^ hash_).sum(axis=-1)  # [N, 2]: plain, mirrored
    for mirrored, name in enumerate(("near", "mirrored")):
        rows = [row for row in np.flatnonzero(distances[:, mirrored] <= MAX_DISTANCE).tolist() if row not in exact]
        if rows:
            other = picture[:, ::-1] if mirrored else picture
            pictures = np.repeat(other[None].astype(np.float32), len(rows), axis=0)
            values = correlation(images[rows].astype(np.float32), pictures)
            yield from (
                (row, name, float(value)) for row, value in zip(rows, values, strict=True) if value >= MIN_CORRELATION
            )


def _pictures(file: Path, manifest: Manifest) -> np.ndarray:
    """A picture as preparation would make it, and as it is where it has the dataset's size; uint8 [1 or 2, S, S]."""
    settings = manifest.settings
    defaults = {key: DataConfig.model_fields[key].get_default() for key in ("intensity", "max_pixels", "fit")}
    intensity = _INTENSITY.validate_python(settings.get("intensity", defaults["intensity"]))
    try:
        luma, _ = decode(file, settings.get("max_pixels", defaults["max_pixels"]), intensity)
    except UnusableFile as error:
        raise ConfigError(
            f"--image {file}: {error}; give a picture (PNG, JPEG, TIFF), or --file or --subject for volumes"
        ) from None
    size = manifest.image_size
    made = [
        resample(luma, size, settings.get("fit", defaults["fit"]), settings.get("crop_background", False)),
        *([np.asarray(luma)] if luma.size == (size, size) else []),
    ]
    return np.unique(np.stack(made), axis=0)


def _rows(dataset: Dataset) -> Iterator[tuple[str, str, str | None]]:
    for split in SPLITS:
        for source, subject in zip(dataset.sources(split), dataset.subjects(split), strict=True):
            yield split, source, subject


def _names(source: str) -> set[str]:
    """What a slice may be called: with and without its part, and the hash of its file without that of its subject."""
    names = {source, source.partition(PART)[0]}
    names |= {last for name in names if _HASH.fullmatch((last := name.rpartition("/")[2]).partition(PART)[0])}
    if PART in source:
        file, _, part = source.partition(PART)
        last = file.rpartition("/")[2]
        names |= {f"{last}{PART}{part}"} if _HASH.fullmatch(last) else set()
    return names
