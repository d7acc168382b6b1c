"""Which slices of a source become rows of a dataset, and what is said of the others."""

from collections import Counter
from collections.abc import Sequence

from lwddpm.config import PHANTOM, DataConfig
from lwddpm.data.manifest import RejectedFile
from lwddpm.data.pseudonyms import Pseudonyms
from lwddpm.data.sources import PART, Source
from lwddpm.data.staging import TEXT, StagedSlice
from lwddpm.errors import DataError


def num_without_subject(data: DataConfig, source: Source, names: Sequence[str]) -> int:
    """Number of files that data.subject_pattern does not match; 0 where there is none.

    Raises:
        DataError: they are too many. Slices of one subject would lie in several splits.
    """
    if data.source == PHANTOM or not (data.subject_pattern or data.reads_volumes):
        return 0
    files = list(dict.fromkeys(source.volume(name) or name for name in names))
    unmatched = [_as_utf8(name) for name in files if not source.subject_id(name)]
    if not data.subject_pattern:
        return len(unmatched)
    examples = f", such as {', '.join(unmatched[:3])}"
    if data.public_source != data.source:  # names of files are withheld here too
        examples = ""
    pattern = f"data.subject_pattern: {data.subject_pattern!r}"
    if len(unmatched) == len(files):
        raise DataError(
            f"{pattern} matches none of {len(files)} files{examples}; write it for paths relative to data.source"
        )
    if len(unmatched) > data.max_unmatched_fraction * len(files):
        raise DataError(
            f"{pattern} does not match {len(unmatched)} of {len(files)} files, more than data.max_unmatched_fraction = "
            f"{data.max_unmatched_fraction} allows{examples}; "
            "widen the pattern, or raise "
            "data.max_unmatched_fraction if each of them shows a subject of its own"
        )
    return len(unmatched)


def separate_rejected(
    staged: list[StagedSlice], source: Source, pseudonyms: Pseudonyms, data: DataConfig
) -> tuple[list[StagedSlice], tuple[RejectedFile, ...]]:
    """Separate usable from rejected files; refuse too many of the latter."""
    usable = [slice_ for slice_ in staged if slice_.reason is None and slice_.left_out is None]
    reasons = {slice_.name: slice_.reason for slice_ in staged if slice_.reason is not None}
    num_rejected, num = len(reasons), len(staged)
    if data.reads_volumes:  # a damaged file has one name, or those of all its slices; a whole one has hundreds
        damaged = {name.partition(PART)[0]: reason for name, reason in reasons.items() if reason != TEXT}
        num_rejected, num = len(damaged), len({slice_.name.partition(PART)[0] for slice_ in staged})
        reasons = damaged | {name: reason for name, reason in reasons.items() if reason == TEXT}
    rejected = tuple(
        RejectedFile(source=_as_utf8(pseudonyms.name(name, source.subject_id(name))), reason=reason)
        for name, reason in reasons.items()
    )
    if not usable and not rejected:
        raise DataError(
            f"data.slices: leaves none of {len(staged)} slices in ({', '.join(count_left_out(staged))}); widen its "
            "ranges, or lower data.slices.min_foreground"
        )
    if not usable or num_rejected > data.max_rejected_fraction * num:
        first = "; ".join(f"{file.source}: {file.reason}" for file in rejected[:3])
        more = f"; and {len(rejected) - 3} more" if len(rejected) > 3 else ""
        limit = f", more than data.max_rejected_fraction = {data.max_rejected_fraction} allows" if usable else ""
        remedy = "repair or remove them" + (", or raise data.max_rejected_fraction" if usable else "")
        raise DataError(
            f"data.source: {data.public_source}: {num_rejected} of {num} files cannot be used{limit} "
            f"({first}{more}); {remedy}"
        )
    return usable, rejected


def count_left_out(staged: Sequence[StagedSlice]) -> dict[str, int]:
    """Number of slices that the settings leave out, by reason."""
    return dict(sorted(Counter(slice_.left_out for slice_ in staged if slice_.left_out is not None).items()))


def _as_utf8(name: str) -> str:
    """A file name that can be stored as UTF-8 whatever its bytes are."""
    return name.encode("utf-8", "backslashreplace").decode()
