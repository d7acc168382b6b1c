"""Who is better than slices without a network: decided by the interval, by the mean where there is one measurement."""

import pytest

from lwddpm.report.baseline import against_baseline, as_json
from lwddpm.report.view import view


def test_what_is_worse_or_within_the_noise_does_not_beat_the_baseline(build):
    found = {row.key: row for row in against_baseline(build({"wgan": 51.9, "gan": 51.0}).report)}
    assert [key for key, row in found.items() if not row.beats] == ["wgan", "lsgan", "ddpm/noise", "ddim/noise"]
    assert found["wgan"].difference.low < 0 < found["wgan"].difference.high
    assert found["lsgan"].difference.low > 0
    assert found["gan"].difference.high < 0
    assert "gaussian" not in found


def test_with_one_seed_the_mean_decides(build):
    found = {row.key: row for row in against_baseline(build({"gan": 51.0, "wgan": 53.0}, seeds=1).report)}
    assert {row.difference.low for row in found.values()} == {None}
    assert (found["gan"].beats, found["wgan"].beats) == (True, False)


def test_repeated_trainings_are_compared_with_samplings_of_the_baseline(build):
    found = {row.key: row for row in against_baseline(build({"gan": 51.8}, num_trainings=3).report)}
    assert (found["lw_ddpm"].beats, found["lsgan"].beats, found["gan"].beats) == (True, False, False)


def test_it_is_said_in_the_summary_in_a_table_and_in_json(build):
    report = build()
    summary = " ".join(view(report)["summary"])
    assert "LSGAN, \u201cDDPM, start from noise\u201d and \u201cDDIM, start from noise\u201d do not beat" in summary
    table = {row[0].text: row[2].text for row in view(report)["baseline"].rows}
    assert (table["LW-DDPM"], table["LSGAN"]) == ("beats it", "does not beat it")
    said = as_json(report.report)
    assert said["lsgan"]["beats"] is False
    assert said["lw_ddpm"]["beats"] is True
    assert said["lw_ddpm"]["fd_lite0_minus_gaussian"] == pytest.approx(29.5 - 52, abs=1)
    assert said["lw_ddpm"]["interval"][0] < said["lw_ddpm"]["fd_lite0_minus_gaussian"] < said["lw_ddpm"]["interval"][1]
    beaten = build({"lsgan": 40.0, "ddpm/noise": 40.0, "ddim/noise": 40.0, "gan": 40.0, "wgan": 40.0})
    assert "Every system beats a Gaussian" in " ".join(view(beaten)["summary"])
    assert as_json(build(baseline=False).report) == {}
    assert "Gaussian" not in " ".join(view(build(baseline=False))["summary"])
