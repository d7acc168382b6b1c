"""An audit as tables of the dossier: values beside their null, and what planted copies show kind by kind."""

import json
from typing import Any

from lwddpm.audit.result import AuditRecord, MixedControl
from lwddpm.audit.shares import share_of
from lwddpm.release.audit_tables import planted, remarks
from lwddpm.release.audit_tables import tests as rows_of
from lwddpm.release.evidence import Evidence


def _audit(**about: Any) -> Evidence:
    return Evidence("audit", about=json.loads(json.dumps(about, sort_keys=True)))  # as it is read from its file


def _record(name: str, found: int, **beside: Any) -> dict[str, Any]:
    record = AuditRecord.of_share(name, share_of(found, 200), "what it is", **beside)
    return record.model_dump(mode="json")


def _controls() -> list[dict[str, Any]]:
    return [
        MixedControl(kind=kind, planted=share, flagged=share, low=0, high=1, verdict=verdict).model_dump(mode="json")
        for kind in ("noisy", "exact")
        for share, verdict in ((0.01, "undecided"), (0.2, "copies"))
    ]


def test_a_test_stands_beside_its_null_its_p_and_what_it_is() -> None:
    records = [_record("copied_share", 3, p_value=0.25, null=0.004), _record("utility_gain_logistic", 1)]
    tests, utility = rows_of(_audit(records=records))
    assert [row["name"] for row in tests] == ["copied_share"]
    assert [row["name"] for row in utility] == ["utility_gain_logistic"]
    assert tests[0]["beside"] == "null 0.004; p = 0.25; what it is"
    assert utility[0]["beside"] == "what it is"
    assert tests[0]["interval"] == (share_of(3, 200).low, share_of(3, 200).high)


def test_planted_copies_are_a_table_in_the_order_in_which_they_are_planted() -> None:
    power = {kind: _record(f"power of {kind}", found) for kind, found in (("noisy", 142), ("exact", 200))}
    table = planted(_audit(power=power, controls=_controls()))
    assert table == {
        "kinds": ["exact", "noisy"],
        "rows": [
            ("found", ["100 % of 200", "71 % of 200"]),
            ("95 % interval", ["98.2 to 100 %", "64.2 to 77.2 %"]),  # Clopper and Pearson
            ("1 % planted", ["1 %, undecided", "1 %, undecided"]),
            ("20 % planted", ["20 %, copies", "20 %, copies"]),
        ],
    }


def test_the_reasons_of_the_verdict_are_whole_and_controls_are_told_once() -> None:
    reason = "of planted copies the audit does not surely find 90 %: " + "noisy, " * 60
    power = {"exact": _record("power of exact", 200)}
    audit = _audit(power=power, controls=_controls(), thresholds={"correlation": 0.98}, reasons=[reason])
    assert remarks(audit) == [reason, "thresholds (correlation 0.98)"]


def test_an_audit_of_another_shape_is_told_in_lines() -> None:
    audit = _audit(power={"exact": 0.9}, controls={"held_out": {"flagged": 0.004}})
    assert planted(audit) is None
    assert remarks(audit) == ["controls (held out (flagged 0.004))", "power (exact 0.9)"]
    assert planted(_audit()) is None
