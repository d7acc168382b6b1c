"""Withdrawal lists: whose scans, or which files, are to be left out of datasets from now on.

A text file with a subject, a file (its path below the source) or the keyed hash of either in a line. What stands behind
" #", empty lines and lines that begin with # are comments.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lwddpm.data.pseudonyms import Pseudonyms
from lwddpm.data.sources import PART, Source
from lwddpm.errors import DataError
from lwddpm.wording import listed

MOST_BYTES = 64 << 20
MAX_LINES = 5  # numbers of lines in one message


@dataclass(frozen=True)
class Withdrawals:
    """The entries of a list, with the number of the line that each stands in first."""

    lines: dict[str, int]

    def of(self, name: str, subject: str | None, pseudonyms: Pseudonyms) -> str | None:
        """The entry that withdraws a slice, by its name and subject in the source; None where none does."""
        file = name.partition(PART)[0]
        known = (
            subject,
            pseudonyms.subject(subject),
            file,
            pseudonyms.file(file),
            pseudonyms.name(file, subject),
            name,
        )
        return next((each for each in known if each is not None and each in self.lines), None)


class Left(NamedTuple):
    """What a withdrawal list leaves of a source.

    Attributes:
        names: of the slices that stay.
        fingerprint: of the source, without the withdrawn slices.
        num_withdrawn: slices that are left out.
        unmatched: which entries match nothing, in words; by their lines, as entries may name somebody.
    """

    names: list[str]
    fingerprint: str
    num_withdrawn: int = 0
    unmatched: str = ""


def read_withdrawals(path: str) -> Withdrawals:
    """The list in a file.

    Raises:
        DataError: it cannot be read; names the file and no entry.
    """
    file = Path(path).expanduser()
    try:
        if file.stat().st_size > MOST_BYTES:
            raise DataError(f"data.withdrawn: {path}: must have at most {MOST_BYTES:,} bytes; name a list of subjects")
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(
            f"data.withdrawn: {path}: no such file; give a list of subjects or hashes, one a line"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise DataError(f"data.withdrawn: {path}: cannot be read ({reason}); give a list, one entry a line") from None
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        entry = ("" if line.lstrip().startswith("#") else line.partition(" #")[0]).strip()
        if entry:
            lines.setdefault(entry, number)
    return Withdrawals(lines)


def leave_out(
    withdrawals: Withdrawals, source: Source, names: Sequence[str], fingerprint: str, pseudonyms: Pseudonyms
) -> Left:
    """The slices of a source that are not withdrawn, and its fingerprint, which stays where none is."""
    gone = {name: withdrawals.of(name, source.subject_id(name), pseudonyms) for name in names}
    matched = {entry for entry in gone.values() if entry is not None}
    withdrawn = sorted(name for name, entry in gone.items() if entry is not None)
    if withdrawn:
        digest = hashlib.sha256(fingerprint.encode())
        for name in withdrawn:
            digest.update(f"\0{name}".encode(errors="surrogateescape"))
        fingerprint = digest.hexdigest()
    unmatched = sorted(number for entry, number in withdrawals.lines.items() if entry not in matched)
    said = _describe(unmatched, len(withdrawals.lines)) if unmatched else ""
    return Left([name for name in names if gone[name] is None], fingerprint, len(withdrawn), said)


def _describe(unmatched: Sequence[int], num_entries: int) -> str:
    numbers = [str(line) for line in unmatched[:MAX_LINES]]
    more = f" and {len(unmatched) - MAX_LINES} more" if len(unmatched) > MAX_LINES else ""
    lines = f"line{'' if len(unmatched) == 1 else 's'} {', '.join(numbers) if more else listed(numbers)}{more}"
    return f"{len(unmatched)} of {num_entries} entries of data.withdrawn match nothing in this source ({lines})"
