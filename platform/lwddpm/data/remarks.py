"""What stands out in a prepared dataset, in words: splits that are not what was asked, repeated pictures, links."""

from collections.abc import Iterator, Sequence

import numpy as np

from lwddpm.data.duplicates import FAINT_LEVELS
from lwddpm.data.manifest import SPLITS, DuplicatesSummary, Manifest, NotTaken
from lwddpm.data.splits import is_off
from lwddpm.wording import listed

MAX_NAMED = 5  # classes and links in one remark; all of them are in dataset.json
LARGE_SHARE = 0.2  # of a split that is one picture


def remarks(manifest: Manifest) -> list[str]:
    """One line for each thing that a user should know before training; datasets of older versions say less."""
    duplicates = manifest.duplicates
    lines = [
        *describe_not_taken(manifest.not_taken),
        *_splits_off(manifest),
        *_classes_missing(manifest),
        *_repeated_pictures(manifest),
    ]
    if duplicates.blank:
        lines.append(f"{duplicates.blank} of {manifest.num} slices are blank (nearly one grey value)")
    if manifest.nearly_empty:
        lines.append(
            f"{len(manifest.nearly_empty)} of {manifest.num} slices are nearly empty (98 % of their pixels within "
            f"{FAINT_LEVELS} of 255 grey levels), such as {listed(manifest.nearly_empty[:MAX_NAMED])}"
        )
    if manifest.with_text:
        lines.append(
            f"text seems to stand near the borders of {_count(len(manifest.with_text), 'slice')}, such as "
            f"{listed(manifest.with_text[:MAX_NAMED])}: it may name somebody; look at them, or leave them out by "
            "data.text=refuse"
        )
    faces = manifest.settings.get("faces", "warn")
    if manifest.columns and faces == "crop":
        lines.append(
            "faces: in every volume what lies below and in front of the brain, as its intensities show it, is black "
            "(data.faces=crop)"
        )
    elif manifest.columns and faces == "warn" and not manifest.simulated:
        lines.append(
            "slices of heads can show faces, which tell who somebody is, and nothing is cut away: data.faces=crop "
            "makes them black; or deface volumes before, or make sure that data.slices leaves faces out"
        )
    if manifest.without_subject and manifest.columns:
        lines.append(
            f"no subject is known of {_count(manifest.without_subject, 'file')} (data.subject_pattern): slices of one "
            "person may lie in several splits, so leakage cannot be excluded"
        )
    elif manifest.without_subject:
        lines.append(
            f"{manifest.without_subject} files do not match data.subject_pattern: each is a subject of its own"
        )
    if duplicates.largest is not None and duplicates.largest_group > 1:
        lines.append(largest_group(duplicates))
    links = duplicates.subject_links
    for link in links[:MAX_NAMED]:
        how = "the same picture" if link.exact else "nearly the same picture"
        lines.append(f"subjects {listed(link.subjects)} stay together: {listed(link.sources)} are {how}")
    if len(links) > MAX_NAMED:
        lines.append(f"and {len(links) - MAX_NAMED} more pairs of subjects that copies tie together")
    return lines


def describe_not_taken(not_taken: NotTaken) -> Iterator[str]:
    """What lies in a source and is not in the dataset, a line for each reason."""
    if not_taken.pages:
        files = [f"{file} ({num:,})" for file, num in not_taken.pages.items()]
        pages = _count(sum(not_taken.pages.values()), "page")
        yield (
            f"not taken: {pages} after the first of {_count(len(files), 'file')}: {_named(files)}; "
            "data.pages=all takes every page as a slice"
        )
    if not_taken.excluded:
        yield f"not taken: {_count(not_taken.excluded, 'file')} that data.include and data.exclude leave out"
    system = [
        *([_count(not_taken.system_files, "file")] if not_taken.system_files else []),
        *([f"what is in {_named(not_taken.system_folders)}"] if not_taken.system_folders else []),
    ]
    if system:
        yield f"not taken, as hidden or left behind by systems: {listed(system)}"
    if not_taken.withdrawn:
        yield f"not taken: {_count(not_taken.withdrawn, 'slice')} that data.withdrawn leaves out"
    if not_taken.unmatched:
        yield not_taken.unmatched
    for reason, num in not_taken.other.items():
        yield f"not taken: {num:,} {reason}"
    if not_taken.outputs:
        yield f"not taken, as made by lwddpm: {_named(not_taken.outputs)}"


def _count(num: int, what: str) -> str:
    return f"{num:,} {what}{'' if num == 1 else 's'}"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return (", ".join(names[:MAX_NAMED]) if more else listed(names)) + more


def largest_group(duplicates: DuplicatesSummary) -> str:
    """How many slices the largest group has, and what ties them together."""
    largest = duplicates.largest
    text = f"the largest group of slices that stay together has {duplicates.largest_group}"
    if largest is None:
        return text
    if len(largest.subjects) == 1:
        text += f", of subject {largest.subjects[0]}"
    elif largest.subjects:
        text += f", of {len(largest.subjects)} subjects"
    elif len(largest.volumes) == 1:
        text += f", of {largest.volumes[0]}"
    elif largest.volumes:
        text += f", of {len(largest.volumes)} files with several pages"
    if largest.example:
        ties = f"{largest.exact_copies} exact copies and {largest.near_pairs} near-duplicate pairs"
        text += f", with {ties}, such as {listed(largest.example)}"
    return text


def _splits_off(manifest: Manifest) -> Iterator[str]:
    asked = manifest.settings.get("splits")
    num_groups = [manifest.splits[split].groups for split in SPLITS]
    if asked is None or None in num_groups:  # prepared by an older version
        return
    slices, groups = np.array([manifest.splits[split].num for split in SPLITS]), np.array(num_groups, dtype=np.int64)
    if is_off(slices, groups, np.array(asked)):
        yield (
            f"data.splits asks for {_percents(np.array(asked))} %, but the splits have {_percents(slices)} % of the "
            f"slices and {_percents(groups)} % of the groups that stay together"
        )


def _percents(values: np.ndarray) -> str:
    return " / ".join(f"{100 * value:.3g}" for value in values / values.sum())


def _classes_missing(manifest: Manifest) -> Iterator[str]:
    for split, summary in manifest.splits.items():
        missing = [label for label in manifest.label_names if not summary.counts.get(label)]
        if summary.num and missing:
            more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
            named = ", ".join(missing[:MAX_NAMED]) if more else listed(missing)
            yield f"{split} has no slices of {len(missing)} of {len(manifest.label_names)} classes: {named}{more}"


def _repeated_pictures(manifest: Manifest) -> Iterator[str]:
    for split, summary in manifest.splits.items():
        if summary.same_picture > max(1, LARGE_SHARE * summary.num):
            yield (
                f"{summary.same_picture} of {summary.num} slices of {split} show one picture, such as "
                f"{summary.same_picture_source}: a model learns it by heart, and metrics count it as often"
            )
