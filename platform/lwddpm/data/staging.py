"""Slices between decoding and splitting: workers write their pixels to storage, the driver learns their hashes."""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lwddpm.data.burned_in_text import find_text
from lwddpm.data.duplicates import FAINT_LEVELS, are_blank, perceptual_hashes
from lwddpm.data.location import Location, writing_target
from lwddpm.data.sources import ScanGeometry, SliceLeftOut, Source, UnusableFile

TEXT = "text near its borders, which may name somebody (data.text)"
MAX_CHUNK = 512  # slices of one volume in a task


@dataclass(frozen=True)
class Staging:
    """Slices between decoding and splitting, uint8 [n, S, S] by chunk, as raw bytes that all workers can reach."""

    folder: Location
    image_size: int
    text: str = "accept"  # `data.text`

    @writing_target()
    def write(self, chunk: int, images: np.ndarray) -> None:
        self._file(chunk).write_bytes(images.tobytes())

    @writing_target()
    def read(self, places: Sequence[tuple[int, int]]) -> np.ndarray:
        """The slices at some (chunk, position), uint8 [n, S, S]; each run of places in one chunk opens it once."""
        num_bytes = self.image_size**2
        images = np.empty((len(places), num_bytes), np.uint8)
        for chunk, rows in itertools.groupby(range(len(places)), key=lambda row: places[row][0]):
            location = self._file(chunk)
            with location.filesystem.open_input_file(location.path) as file:
                for row in rows:
                    images[row] = np.frombuffer(file.read_at(num_bytes, places[row][1] * num_bytes), np.uint8)
        return images.reshape(-1, self.image_size, self.image_size)

    def _file(self, chunk: int) -> Location:
        return self.folder / f"chunk-{chunk:06d}"


@dataclass(frozen=True)
class StagedSlice:
    """What the driver learns of a slice: where its pixels lie and their hashes, or why it was rejected or left out."""

    name: str
    chunk: int
    position: int = 0
    pixels_sha256: bytes = b""
    hashes: bytes = b""
    blank: bool = False
    nearly_empty: bool = False
    text: bool = False
    pages_left: int = 0
    reason: str | None = None
    left_out: str | None = None
    geometry: ScanGeometry | None = None


def volume_chunks(source: Source, names: Sequence[str], size: int) -> list[list[tuple[int, str]]]:
    """Numbered slices for a task each, `size` of them. Slices of a volume share one, so that it is decoded once."""
    chunks: list[list[tuple[int, str]]] = []
    for volume, members in itertools.groupby(enumerate(names), key=lambda numbered: source.volume(numbered[1])):
        slices = list(members)
        if volume is None or not chunks or len(chunks[-1]) + len(slices) > size:
            limit = size if volume is None else MAX_CHUNK
            chunks += [slices[start : start + limit] for start in range(0, len(slices), limit)]
        else:
            chunks[-1] += slices
    return chunks


@dataclass(frozen=True)
class Chunk:
    """Numbered slices for one task, with what reading them takes of their source."""

    source: Source
    slices: Sequence[tuple[int, str]]

    def __len__(self) -> int:
        return len(self.slices)


def stage_chunk(staging: Staging, chunk: Chunk) -> list[StagedSlice]:
    """Decode some numbered slices, leave their pixels in the staging folder and return their hashes, on a worker."""
    source, number = chunk.source, chunk.slices[0][0]
    images: list[np.ndarray] = []
    staged: list[StagedSlice] = []
    for _, name in chunk.slices:
        try:
            image, pixels_sha256, pages_left, geometry = source.read(name)
        except UnusableFile as error:
            staged.append(StagedSlice(name, number, reason=str(error)))
        except SliceLeftOut as why:
            staged.append(StagedSlice(name, number, left_out=str(why)))
        else:
            text = staging.text != "accept" and bool(find_text(image))
            if text and staging.text == "refuse":
                staged.append(StagedSlice(name, number, reason=TEXT))
                continue
            place = (number, len(images))
            staged.append(StagedSlice(name, *place, pixels_sha256, text=text, pages_left=pages_left, geometry=geometry))
            images.append(image)
    if images:
        stack = np.stack(images)
        staging.write(number, stack)
        hashes, blank, nearly_empty = perceptual_hashes(stack), are_blank(stack), are_blank(stack, FAINT_LEVELS)
        staged = [
            slice_
            if slice_.reason or slice_.left_out
            else dataclasses.replace(
                slice_,
                hashes=hashes[slice_.position].tobytes(),
                blank=bool(blank[slice_.position]),
                nearly_empty=bool(nearly_empty[slice_.position]),
            )
            for slice_ in staged
        ]
    return staged
