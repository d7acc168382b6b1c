from pathlib import Path

from lwddpm.data.manifest import SPLITS, DuplicatesSummary, Manifest, SplitSummary, SubjectLink, read_manifest
from lwddpm.data.remarks import remarks

FIXTURES = Path(__file__).parents[1] / "fixtures"


def manifest(counts, num_groups=(80, 10, 10), **values):
    """A manifest of three splits with some slices by label."""
    splits = {
        split: SplitSummary(num=sum(of.values()), counts=of, shards=(), sha256="", groups=groups)
        for split, of, groups in zip(SPLITS, counts, num_groups, strict=True)
    }
    duplicates = DuplicatesSummary(exact_copies=0, near_pairs=0, groups=100, largest_group=1, label_conflicts=())
    fields = {"splits": splits, "duplicates": duplicates, "settings": {"splits": [0.8, 0.1, 0.1]}}
    labels = tuple(sorted(set().union(*counts)))
    return Manifest(
        schema_version=2, version="v", simulated=False, source="s", source_fingerprint="f", image_size=16,
        label_names=labels, rejected=(), **fields | values,
    )  # fmt: skip


def test_nothing_is_said_of_splits_that_are_as_asked():
    assert remarks(manifest([{"a": 800}, {"a": 100}, {"a": 100}])) == []


def test_splits_that_are_not_what_was_asked():
    (line,) = remarks(manifest([{"a": 980}, {"a": 10}, {"a": 10}]))
    assert line.startswith("data.splits asks for 80 / 10 / 10 %, but the splits have 98 / 1 / 1 % of the slices")
    (line,) = remarks(manifest([{"a": 800}, {"a": 100}, {"a": 100}], (60, 20, 20)))
    assert line.endswith("60 / 20 / 20 % of the groups that stay together")


def test_classes_that_a_split_lacks():
    rare = {f"rare{i}": 1 for i in range(8)}
    lines = remarks(manifest([{"a": 800, "b": 3}, {"a": 100}, {"a": 101}]))
    assert lines == ["validation has no slices of 1 of 2 classes: b", "test has no slices of 1 of 2 classes: b"]
    (line, _) = remarks(manifest([{"a": 800} | rare, {"a": 100}, {"a": 101}]))
    assert line == "validation has no slices of 8 of 9 classes: rare0, rare1, rare2, rare3, rare4 and 3 more"


def test_many_links_are_counted():
    links = tuple(
        SubjectLink(subjects=(f"s{i}", f"t{i}"), sources=(f"{i}.png", f"{i}b.png"), exact=False) for i in range(9)
    )
    duplicates = DuplicatesSummary(
        exact_copies=0, near_pairs=9, groups=91, largest_group=2, label_conflicts=(), subject_links=links
    )
    lines = remarks(manifest([{"a": 800}, {"a": 100}, {"a": 100}], duplicates=duplicates))
    assert lines[0] == "subjects s0 and t0 stay together: 0.png and 0b.png are nearly the same picture"
    assert lines[-1] == "and 4 more pairs of subjects that copies tie together"


def test_datasets_of_older_versions_say_what_is_known():
    earlier = read_manifest(str(FIXTURES / "0.1.0-93f68dc" / "dataset"))
    assert earlier is not None
    assert remarks(earlier) == []
