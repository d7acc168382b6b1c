"""The verdict, and what may stand in audit.json."""

import pytest

from lwddpm.audit.result import AuditRecord, judge, method_code, recognised
from lwddpm.audit.shares import Share, share_of

STRONG = {"exact": share_of(200, 200), "combined": share_of(10, 200)}
WEAK = {"exact": share_of(200, 200), "blurred": share_of(150, 200)}


def _judge(flagged: Share, alarms: Share, power: dict[str, Share]) -> tuple[str, str]:
    verdict, reasons = judge(flagged, alarms, power, max_share=0.01, min_power=0.9, rate=0.01)
    return verdict, " ".join(reasons)


@pytest.mark.parametrize(
    ("flagged", "alarms", "power", "verdict", "said"),
    [
        (share_of(10, 3000), share_of(3, 650), STRONG, "clear", "at most 0.61% are copies"),
        (share_of(0, 3000), share_of(0, 650), STRONG, "clear", "0 of 3,000"),
        (share_of(300, 3000), share_of(3, 650), STRONG, "copies", "300 of 3,000"),
        (share_of(3000, 3000), share_of(3, 650), STRONG, "copies", "p < 1e-99"),  # of which floats know no more
        (share_of(40, 1000), share_of(3, 650), WEAK, "copies", "p = "),  # found in spite of little power
        (share_of(0, 3000), share_of(0, 650), WEAK, "undecided", "blurred 75%"),
        (share_of(0, 100), share_of(0, 650), STRONG, "undecided", "up to 3.62% of the slices may be copies"),
        (share_of(20, 1000), share_of(15, 650), STRONG, "undecided", "more than the 1.00% that were wanted"),
    ],
)
def test_the_verdict_and_its_reason(
    flagged: Share, alarms: Share, power: dict[str, Share], verdict: str, said: str
) -> None:
    found, reasons = _judge(flagged, alarms, power)
    assert found == verdict
    assert said in reasons


def test_membership_that_is_recognised_speaks_against_a_model_whatever_it_draws() -> None:
    def tried(value: float, low: float | None) -> AuditRecord:
        return AuditRecord(name="mia_tpr_at_1_fpr", value=value, low=low, high=1.0, n=600, what="recognised")

    assert recognised(None) is None
    assert recognised(tried(0.02, 0.01)) is None
    assert recognised(tried(0.3, 0.05)) is None  # nothing that is sure
    assert recognised(tried(0.3, None)) is None
    found = recognised(tried(0.99, 0.95))
    assert found is not None
    assert "99% (at least 95%) of the training slices" in found


def test_the_code_of_the_method_is_the_same_in_every_process() -> None:
    assert method_code() == method_code()
    assert len(method_code()) > 10
