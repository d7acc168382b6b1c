from pathlib import Path

import numpy as np
import pytest

from lwddpm.audit.correlation import Match
from lwddpm.audit.scores import Scores


@pytest.fixture
def scores() -> Scores:
    match = Match(
        np.array([0.99, 0.5, 0.97], np.float32),
        np.array([4, 5, 6]),
        np.array([0, 1, 3]),
        np.array([0, -2, 0], np.float32),
        np.array([[0, 0], [1, -3], [0, 0]]),
    )
    return Scores(match, np.array([0.1, 0.99, 0.2], np.float32), np.array([7, 8, 9]), np.eye(3, dtype=np.float32))


def test_they_are_read_as_they_were_saved_and_a_damaged_file_counts_as_missing(scores: Scores, tmp_path: Path) -> None:
    file = tmp_path / "scores.npz"
    assert Scores.load(file) is None
    scores.save(file)
    read = Scores.load(file)
    assert read is not None
    for one, two in zip((*read.match, *read[1:]), (*scores.match, *scores[1:]), strict=True):
        assert np.array_equal(one, two)
    file.write_bytes(file.read_bytes()[:100])
    assert Scores.load(file) is None


def test_it_is_a_copy_of_the_slice_that_the_detector_saw(scores: Scores) -> None:
    assert scores.copied_row(0.9).tolist() == [4, 8, 6]


def test_moves_are_said_in_words(scores: Scores) -> None:
    assert [scores.moved(row) for row in range(3)] == [
        "as it is",
        "mirrored left to right, turned -2 degrees, shifted 1 px down, -3 px right",
        "turned by half",
    ]


def test_parts_join_to_the_whole(scores: Scores) -> None:
    whole = Scores.joined([scores.part(slice(0, 1)), scores.part(np.array([1, 2]))])
    assert whole.match.row.tolist() == [4, 5, 6]
    assert whole.embedding.tolist() == scores.embedding.tolist()
