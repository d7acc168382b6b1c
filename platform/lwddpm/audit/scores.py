"""What is known of slices after they were compared with the training slices; kept in a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from lwddpm.audit.correlation import Match
from lwddpm.files import whole_file

_FLIPPED = ("", "mirrored left to right", "mirrored top to bottom", "turned by half")  # as FLIPS


class Scores(NamedTuple):
    """Of N slices.

    Attributes:
        match: the training slices that they correlate most with.
        near: cosines to the training slices that their features are nearest to, float32 [N].
        nearest: rows of these, int64 [N].
        embedding: their features, float32 [N, D].
    """

    match: Match
    near: np.ndarray
    nearest: np.ndarray
    embedding: np.ndarray

    def by_detector(self) -> dict[str, np.ndarray]:
        return {"correlation": self.match.score, "features": self.near}

    def copied_row(self, threshold: float) -> np.ndarray:
        """The training slice that each would be a copy of: by correlation where that alone would flag it, else by
        features; int64 [N]."""
        return np.where(self.match.score > threshold, self.match.row, self.nearest)

    def moved(self, row: int) -> str:
        """How a slice was moved onto its training slice, in words."""
        down, right = self.match.shift[row].tolist()
        angle = float(self.match.angle[row])
        parts = [
            _FLIPPED[int(self.match.flip[row])],
            f"turned {angle:g} degrees" if angle else "",
            f"shifted {down} px down, {right} px right" if down or right else "",
        ]
        return ", ".join(part for part in parts if part) or "as it is"

    def part(self, rows: np.ndarray | slice) -> "Scores":
        match = Match(*(column[rows] for column in self.match))
        return Scores(match, self.near[rows], self.nearest[rows], self.embedding[rows])

    def save(self, path: Path) -> None:
        """Write whole or not at all.

        Raises:
            JobError: the disk does not take it.
        """
        columns = self.match._asdict() | {name: getattr(self, name) for name in ("near", "nearest", "embedding")}
        with whole_file(path) as partial, partial.open("wb") as stream:
            np.savez(stream, **columns)

    @classmethod
    def load(cls, path: Path) -> "Scores | None":
        """None where there is no such file, or a damaged one."""
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(Match(*(file[name] for name in Match._fields)), *(file[name] for name in cls._fields[1:]))
        except (OSError, ValueError, EOFError, KeyError, BadZipFile):
            return None

    @classmethod
    def joined(cls, parts: Sequence["Scores"]) -> "Scores":
        """Of chunks, one after the other."""
        columns = zip(*(part[1:] for part in parts), strict=True)
        return cls(Match.joined([part.match for part in parts]), *(np.concatenate(column) for column in columns))
