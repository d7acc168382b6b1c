"""Which slices must stay in one split, and why: copies of a picture and slices of a subject."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lwddpm.data.duplicates import candidate_pairs, connected_groups, equal_links, verified_pairs
from lwddpm.data.manifest import DuplicatesSummary, LargestGroup, SubjectLink
from lwddpm.data.staging import StagedSlice, Staging

BLANK = -1  # the picture that all slices without content show


@dataclass(frozen=True)
class Grouping:
    """Slices that belong together.

    Attributes:
        groups: group of each slice, int [N]; a group never straddles two splits.
        pictures: picture that each slice shows, int [N]; copies share a number, slices without content are BLANK.
        summary: the same in numbers, for the manifest.
    """

    groups: np.ndarray
    pictures: np.ndarray
    summary: DuplicatesSummary


def group_slices(
    usable: Sequence[StagedSlice],
    labels: Sequence[str],
    subjects: Sequence[str | None],
    volumes: Sequence[str | None],
    staging: Staging,
    alike: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Grouping:
    """Group copies, slices of one subject and slices of one volume, transitively.

    A slice without content is nobody's copy: all black slices are equal, whomever they show. It stays with its subject
    and its volume.

    Args:
        usable: the N slices that were decoded.
        labels, subjects, volumes: class, subject and volume of each; None where it is not known or there is none.
        staging: where their pixels lie.
        alike: finds further near copies among slices uint8 [N, S, S]: pairs int64 [P, 2]; None: hashes alone do.
    """
    blank = np.array([slice_.blank for slice_ in usable], dtype=bool)
    exact = equal_links([None if slice_.blank else slice_.pixels_sha256 for slice_ in usable])
    distinct = np.setdiff1d(np.flatnonzero(~blank), exact[:, 1])
    hashes = np.frombuffer(b"".join(usable[i].hashes for i in distinct), np.uint64).reshape(len(distinct), 2, 4)

    def read(positions: Sequence[int]) -> np.ndarray:
        return staging.read([(usable[i].chunk, usable[i].position) for i in distinct[list(positions)]])

    near = np.unique(distinct[verified_pairs(candidate_pairs(hashes), read, staging.image_size)[:, :2]], axis=0)
    if alike is not None:
        near = np.unique(np.concatenate([near, distinct[alike(read(range(len(distinct))))]]), axis=0)
    pictures = connected_groups(len(usable), exact, near)
    groups = connected_groups(len(usable), exact, near, equal_links(subjects), equal_links(volumes))

    names = [slice_.name for slice_ in usable]
    label_sets: dict[int, set[str]] = {}
    for picture, label in zip(pictures.tolist(), labels, strict=True):
        label_sets.setdefault(picture, set()).add(label)
    conflicts = [np.flatnonzero(pictures == picture) for picture, of in label_sets.items() if len(of) > 1]
    summary = DuplicatesSummary(
        exact_copies=len(exact),
        near_pairs=len(near),
        groups=int(groups.max()) + 1,
        largest_group=int(np.bincount(groups).max()),
        label_conflicts=tuple(tuple(names[i] for i in members) for members in conflicts),
        blank=int(blank.sum()),
        largest=_largest_group(groups, exact, near, subjects, volumes, names),
        subject_links=_subject_links(exact, near, subjects, names),
    )
    return Grouping(groups, np.where(blank, BLANK, pictures), summary)


def _largest_group(
    groups: np.ndarray,
    exact: np.ndarray,
    near: np.ndarray,
    subjects: Sequence[str | None],
    volumes: Sequence[str | None],
    names: Sequence[str],
) -> LargestGroup:
    largest = np.bincount(groups).argmax()
    members = np.flatnonzero(groups == largest).tolist()
    of_group = [pairs[groups[pairs[:, 0]] == largest] for pairs in (exact, near)]
    pairs = np.concatenate(of_group)
    whose = list(zip(subjects, volumes, strict=True))
    between_subjects = [i for i, (one, two) in enumerate(pairs.tolist()) if whose[one] != whose[two]]
    example = pairs[between_subjects[0] if between_subjects else 0] if len(pairs) else ()
    return LargestGroup(
        subjects=tuple(sorted({subject for i in members if (subject := subjects[i]) is not None})),
        volumes=tuple(sorted({volume for i in members if (volume := volumes[i]) is not None})),
        exact_copies=len(of_group[0]),
        near_pairs=len(of_group[1]),
        example=tuple(names[i] for i in example),
    )


def _subject_links(
    exact: np.ndarray, near: np.ndarray, subjects: Sequence[str | None], names: Sequence[str]
) -> tuple[SubjectLink, ...]:
    """One pair of copies for each pair of subjects that copies tie together, an exact one where there is one."""
    links: dict[tuple[str, str], SubjectLink] = {}
    for pairs, is_exact in ((exact, True), (near, False)):
        for pair in pairs.tolist():
            one, two = sorted(pair, key=lambda i: subjects[i] or "")
            who = subjects[one], subjects[two]
            if who[0] is not None and who[1] is not None and who[0] != who[1] and who not in links:
                links[who[0], who[1]] = SubjectLink(
                    subjects=(who[0], who[1]), sources=(names[one], names[two]), exact=is_exact
                )
    return tuple(links[who] for who in sorted(links))
