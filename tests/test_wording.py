import math

import pytest

from lwddpm.wording import counted, listed, measured, number, with_n


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((2e-4, "0.0002"), (0.123456, "0.1235"), (12, "12"), (1234567, "1,234,567"), (98765.4, "98,765")),
        *((None, "-"), ("ddim", "ddim"), ([1, 2], "[1, 2]"), (True, "True"), (math.inf, "inf"), (-1500.0, "-1,500")),
    ],
)
def test_a_number_by_itself_has_significant_digits(value: object, expected: str) -> None:
    assert number(value) == expected


def test_measured_numbers_have_decimals_by_their_size() -> None:
    assert [measured(value) for value in (0.0004, 0.2624, -9.87654, 10, 999.94, 1234.5)] == [
        *("0.000", "0.262", "-9.877", "10.0", "999.9", "1,234"),
    ]
    assert measured(0.2624, 1) == "0.3"


def test_a_list_reads_as_in_a_sentence() -> None:
    assert [listed(parts) for parts in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


def test_counts_have_their_things() -> None:
    assert [counted(count, "training") for count in (0, 1, 2, 1200)] == [
        "0 trainings", "1 training", "2 trainings", "1,200 trainings"
    ]  # fmt: skip
    assert [with_n("fid", None), with_n("fid", 2), with_n("fid", 1200)] == ["fid", "fid (n = 2)", "fid (n = 1,200)"]
