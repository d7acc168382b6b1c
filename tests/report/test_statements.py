import itertools

import numpy as np
import pytest

from lwddpm.evaluation.copying import COPIED_SHARE, COPIES
from lwddpm.report import published
from lwddpm.report.published import STATEMENTS, TABLE_1
from lwddpm.report.statements import judge, measured_on, verdict


def verdicts(report):
    return {found.statement.key: found.verdict for found in judge(report)}


def test_what_is_taken_from_table_1_is_true_of_the_papers_own_numbers():
    good = {"fid": min, "parameters": min, "ssim": max}
    for statement in STATEMENTS:
        for claim in statement.claims:
            if claim.group == "system" and claim.quantity in good:
                values = {row: getattr(TABLE_1[row], claim.quantity) for row in (claim.better, *claim.worse)}
                assert good[claim.quantity](values, key=values.get) == claim.better, statement.key


def test_verdicts_follow_the_measurements(build):
    found = verdicts(build(num_trainings=3).report)
    assert found["diffusion_beats_gans"] == found["ddim_price"] == found["wgan_best_gan"] == "supports"
    assert found["better_than_ddpm"] == found["best_fid"] == "cannot decide"
    assert found["lighter"] == found["smooth_l1"] == found["cosine"] == found["ddim_faster"] == "supports"


def test_they_turn_round_with_the_measurements(build):
    found = verdicts(build({"gan": 10.0, "ddim": 20.0, "lw_ddpm": 5.0}, num_trainings=3).report)
    assert found["diffusion_beats_gans"] == found["ddim_price"] == found["wgan_best_gan"] == "contradicts"
    assert found["best_fid"] == found["best_ssim"] == found["better_than_ddpm"] == "supports"


def _copied(report, group: str, label: str):
    told = tuple(
        m.model_copy(
            update={
                "values": m.values | {COPIED_SHARE: 0.4 if (m.group, m.label) == (group, label) else 0.0},
                "floors": m.floors | {COPIED_SHARE: 0.0},
            }
        )
        for m in report.measurements
    )
    return report.model_copy(update={"measurements": told})


def test_a_statement_is_not_supported_by_copies(build):
    """LW-DDPM would win everything, as in the test above, were its slices new."""
    report = build({"gan": 10.0, "ddim": 20.0, "lw_ddpm": 5.0}, num_trainings=3).report
    honest, copied = verdicts(report), verdicts(_copied(report, "system", "lw_ddpm"))
    of_quality = {"best_fid", "best_ssim", "better_than_ddpm"}
    assert {honest[key] for key in of_quality} == {"supports"}
    assert {copied[key] for key in of_quality} == {"cannot decide (copies)"}
    unconcerned = [key for key in honest if key not in of_quality | {"diffusion_beats_gans"}]
    assert [copied[key] for key in unconcerned] == [honest[key] for key in unconcerned]  # costs, other rows, ablations


def test_a_variant_that_copies_decides_no_ablation(build):
    report = build(num_trainings=3).report
    assert verdicts(report)["smooth_l1"] == "supports"
    found = verdicts(_copied(report, "loss", "smooth_l1"))
    assert found["smooth_l1"] == "cannot decide (copies)"
    assert found["squeeze_excitation"] == "supports"


def test_trainings_that_were_warned_of_decide_nothing_in_reports_without_copied_shares(build):
    report = build({"lw_ddpm": 5.0}, num_trainings=3).report
    warned = tuple(
        each.model_copy(update={"warnings": (f"the model {COPIES}: 9 of 10",)}) if each.label == "lw_ddpm" else each
        for each in report.trainings
    )
    assert verdicts(report)["best_fid"] == "supports"
    assert verdicts(report.model_copy(update={"trainings": warned}))["best_fid"] == "cannot decide (copies)"


@pytest.mark.parametrize("seeds", [1, 3, 20])
def test_one_training_decides_nothing_but_what_is_exact(build, seeds):
    """However often it is sampled, and however far apart the samples are."""
    found = verdicts(build({"lw_ddpm": 1.0}, seeds=seeds).report)
    assert found["lighter"] == "supports"
    assert found["ddim_faster"] == "supports"  # costs have rounds of their own
    assert set(found.values()) == {"supports", "cannot decide (one training)"}
    assert [key for key, value in found.items() if value == "supports"] == ["lighter", "ddim_faster"]


def test_what_was_left_out_is_not_measured(build):
    report = build(num_trainings=3).report
    rest = tuple(m for m in report.measurements if m.group == "system" and m.system != "wgan")
    found = verdicts(report.model_copy(update={"measurements": rest}))
    assert found["smooth_l1"] == found["wgan_best_gan"] == "not measured"
    assert found["ddim_price"] == "supports"


@pytest.mark.parametrize("pairs", list(itertools.product([1, 0, -1, "one training", None], repeat=2)))
def test_a_statement_is_as_good_as_its_weakest_pair(pairs):
    expected = (
        "contradicts"
        if -1 in pairs
        else "not measured"
        if None in pairs
        else "cannot decide (one training)"
        if "one training" in pairs
        else "cannot decide"
        if 0 in pairs
        else "supports"
    )
    assert verdict(list(pairs)) == expected


def test_the_evidence_is_the_difference_itself(build):
    report = build(num_trainings=3).report
    (found,) = [f for f in judge(report) if f.statement.key == "ddim_price"]
    (evidence,) = found.evidence
    means = {s: sum(m.values["fd_lite0"] for m in report.group("system") if m.label == s) / 3 for s in ("ddpm", "ddim")}
    assert evidence.difference.value == pytest.approx(means["ddpm"] - means["ddim"])
    assert evidence.difference.low < evidence.difference.value < evidence.difference.high < 0


def simulated(build, draws, trainings, samplings):
    """A comparison of methods that are all the same: trainings differ by 3, samplings of one training by 0.5."""
    report = build().report
    rows = []
    for system in published.TABLE_1:
        for training, level in enumerate(draws.normal(50, 3, trainings)):
            rows += [
                report.measurements[0].model_copy(
                    update={
                        "label": system,
                        "system": system,
                        "training_seed": training,
                        "sampling_seed": sampling,
                        "values": {"fd_lite0": value, "ssim_nearest": 1 - value / 100},
                    }
                )
                for sampling, value in enumerate(draws.normal(level, 0.5, samplings))
            ]
    return report.model_copy(update={"measurements": tuple(rows)})


QUALITY = ("best_fid", "best_ssim", "better_than_ddpm", "diffusion_beats_gans", "ddim_price", "wgan_best_gan")


def test_equal_methods_trained_once_are_never_told_apart(build):
    draws = np.random.default_rng(0)
    for _ in range(40):
        found = verdicts(simulated(build, draws, 1, 3))
        assert {found[key] for key in QUALITY} == {"cannot decide (one training)"}


def test_equal_methods_trained_several_times_are_seldom_told_apart_by_any_pair(build):
    """Nine pairs make one statement: uncorrected, one in three such comparisons would contradict it."""
    draws = np.random.default_rng(1)
    wrong = dict.fromkeys(QUALITY, 0)
    for _ in range(200):
        found = verdicts(simulated(build, draws, 4, 3))
        for key in QUALITY:
            wrong[key] += found[key] in ("supports", "contradicts")
    assert max(wrong.values()) / 200 < 0.09, wrong


def test_each_says_what_it_was_measured_on(build):
    def found(report):
        return {statement.key: measured_on(report, statement) for statement in STATEMENTS}

    report = build(num_trainings=3, seeds=2).report
    once = found(build(num_trainings=1, seeds=2).report)
    assert once["best_fid"] == once["best_ssim"] == "2 samplings of 1 training, n = 100 slices"
    assert found(report)["best_fid"] == "3 samplings of 3 trainings, n = 100 slices"
    assert once["lighter"] == "counted"
    assert once["ddim_faster"].endswith("timings of 64 slices")
    fewer = tuple(m.model_copy(update={"n": 2}) if m.system == "wgan" else m for m in report.measurements)
    assert found(report.model_copy(update={"measurements": fewer}))["best_fid"].endswith("n = 2 slices")
    rest = tuple(m for m in report.measurements if m.system != "wgan")
    assert found(report.model_copy(update={"measurements": rest}))["best_fid"] == "-"
