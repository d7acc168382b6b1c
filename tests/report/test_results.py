import pytest

from lwddpm.evaluation.copying import COPIED_SHARE, COPIES
from lwddpm.report import tables
from lwddpm.report.baseline import against_baseline
from lwddpm.report.data import Cost
from lwddpm.report.published import TABLE_1
from lwddpm.report.results import ablation, parts_of, repeats, rows
from lwddpm.report.view import view


def test_the_papers_numbers():
    """Table 1 as printed, written down a second time."""
    fid = {"gan": 95.65, "wgan": 91.27, "lsgan": 103.86, "ddpm": 72.24, "ddim": 75.43, "lw_ddpm": 70.02}
    ssim = {"gan": 0.839, "wgan": 0.864, "lsgan": 0.823, "ddpm": 0.896, "ddim": 0.889, "lw_ddpm": 0.913}
    assert {name: row.fid for name, row in TABLE_1.items()} == fid
    assert {name: row.ssim for name, row in TABLE_1.items()} == ssim
    assert [TABLE_1[name].parameters for name in ("ddpm", "ddim", "lw_ddpm")] == [13.48, 13.48, 13.34]
    steps = [(TABLE_1[name].timesteps, TABLE_1[name].inference_steps) for name in ("ddpm", "ddim", "lw_ddpm")]
    assert steps == [(1000, 1000), (1000, 50), (1000, 1000)]


def test_rows_stand_in_the_papers_order_with_the_best_and_its_ties(build):
    found = rows(build(baseline=False).report)
    assert [row.key for row in found] == ["gan", "wgan", "lsgan", "ddpm", "ddim", "lw_ddpm"]
    by_name = {row.key: row for row in found}
    assert [name for name, row in by_name.items() if row.distance.best] == ["lw_ddpm"]
    assert [name for name, row in by_name.items() if row.distance.tied] == ["ddpm", "lw_ddpm"]
    assert [name for name, row in by_name.items() if row.ssim.best] == ["lw_ddpm"]
    assert all(row.distance.floor == 12 for row in found)


def test_a_system_that_returns_training_slices_is_no_best_although_its_distance_is_least(build):
    report = build(baseline=False).report
    best = next(row for row in rows(report) if row.distance.best)
    warned = tuple(
        training.model_copy(update={"warnings": (f"the model {COPIES}: 9 of 10",)})
        if training.label in best.system.trainings
        else training
        for training in report.trainings
    )
    found = {row.key: row for row in rows(report.model_copy(update={"trainings": warned}))}
    of_trainings = set(best.system.trainings)
    copiers = [key for key, row in found.items() if of_trainings & set(row.system.trainings)]
    assert best.key in copiers
    assert not any(found[key].distance.best or found[key].ssim.best or found[key].distance.tied for key in copiers)
    least = min((key for key in found if key not in copiers), key=lambda key: found[key].distance.estimate.mean)
    assert [key for key, row in found.items() if row.distance.best] == [least]
    assert found[best.key].distance.estimate.mean == best.distance.estimate.mean


def _copying(report, share: float, which):
    """The report with this copied share in some of its measurements, none in the others; floors are 0."""
    told = tuple(
        m.model_copy(
            update={
                "values": m.values | {COPIED_SHARE: share if which(m) else 0.0},
                "floors": m.floors | {COPIED_SHARE: 0.0},
            }
        )
        for m in report.measurements
    )
    return report.model_copy(update={"measurements": told})


@pytest.mark.parametrize(("share", "copier"), [(0.5, True), (0.02, False)])
def test_slices_that_are_copies_win_no_column(build, share, copier):
    report = _copying(build().report, share, lambda m: m.group in ("system", "start") and m.system == "lw_ddpm")
    found = {row.key: row for row in rows(report)}
    assert [key for key, row in found.items() if row.copies] == (["lw_ddpm", "lw_ddpm/noise"] if copier else [])
    assert [key for key, row in found.items() if row.distance.best] == ["ddpm" if copier else "lw_ddpm"]
    assert found["lw_ddpm"].diversity[COPIED_SHARE].estimate.mean == share
    assert (found["lw_ddpm"].ssim.best, found["lw_ddpm"].distance.tied) == ((not copier,) * 2)
    beats = {row.key: row.beats for row in against_baseline(report)}
    assert beats["lw_ddpm"] is not copier
    assert beats["ddpm"] is True


def test_a_copier_is_marked_wherever_its_figures_stand(build):
    data = build()
    report = _copying(data.report, 0.5, lambda m: m.group == "system" and m.system == "lw_ddpm")
    said = view(data.model_copy(update={"report": report}))
    (first,) = [row for row in said["table_1"].rows if row[0].text.startswith("LW-DDPM (")]
    assert first[0].text == "LW-DDPM (returns training slices)"
    assert not any(cell.strong for cell in first)
    (beside, *_) = said["diversity"]
    assert beside.head[-1] == "copied share"
    assert {row[0].text: row[-1].text for row in beside.rows}["LW-DDPM (returns training slices)"] == "0.50 ± 0.00"
    assert {"precision", "recall"} < set(beside.head)
    outcome = {row[0].text: row[2].text for row in said["baseline"].rows}["LW-DDPM"]
    assert outcome == "does not beat it (returns training slices)"
    assert "Lowest FD (EfficientNet-Lite0): DDPM" in said["summary"][0]
    assert "returns training slices" not in str(view(data)["table_1"])


def test_a_variant_that_copies_wins_no_ablation(build):
    report = build().report
    assert [row.label for row in ablation(report, "loss") if row.distance.best] == ["smooth_l1"]
    copied = _copying(report, 0.5, lambda m: m.group == "loss" and m.label == "smooth_l1")
    found = {row.label: row for row in ablation(copied, "loss")}
    assert [label for label, row in found.items() if row.copies] == ["smooth_l1"]
    assert [label for label, row in found.items() if row.distance.best] == ["l1"]
    assert not found["smooth_l1"].ssim.best
    marked = [row[1].text for row in tables.ablation(copied, "loss", "Loss").rows]
    assert marked == ["smooth L1 (returns training slices)", "L1", "L2"]


def test_other_starts_stand_below_their_system_and_the_baseline_at_the_end(build):
    found = {row.key: row for row in rows(build().report)}
    assert list(found)[3:] == ["ddpm", "ddpm/noise", "ddim", "ddim/noise", "lw_ddpm", "lw_ddpm/noise", "gaussian"]
    assert [found[key].name for key in ("lw_ddpm/noise", "gaussian")] == [
        "LW-DDPM, start from noise",
        "Gaussian, no network",
    ]
    assert [found[key].system.network_calls for key in ("lw_ddpm", "lw_ddpm/noise", "gaussian")] == [40, 50, 0]
    assert found["lw_ddpm/noise"].parameters == found["lw_ddpm"].parameters > found["gaussian"].parameters == 0
    assert found["lw_ddpm"].distance.estimate.mean == pytest.approx(29.5, abs=0.6)
    assert found["lw_ddpm/noise"].distance.estimate.mean == pytest.approx(40, abs=0.6)
    assert found["gaussian"].distance.estimate.n == 3, "without the one that curves are measured beside"
    assert found["lw_ddpm/noise"].seconds_per_64.estimate.mean == 2
    assert found["gaussian"].images_per_s is None
    assert [found[key].published is None for key in ("lw_ddpm", "lw_ddpm/noise", "gaussian")] == [False, True, True]


def test_diversity_is_ranked_where_there_is_a_better(build):
    found = {row.key: row.diversity for row in rows(build().report)}
    assert [key for key, values in found.items() if values["kd_lite0"].best] == ["lw_ddpm"]
    assert [key for key, values in found.items() if values["coverage_lite0"].best] == ["lw_ddpm"]
    assert not any(values["out_of_band"].best or values["out_of_band"].tied for values in found.values())
    assert "kid" not in found["gan"]
    report = build().report
    assert parts_of(report, "lw_ddpm/noise", "coverage_lite0") == {"glioma_tumor": 0.5, "no_tumor": 0.25}
    assert parts_of(report, "lw_ddpm", "precision_lite0") == {}


def test_a_cost_is_relative_to_ddpm_in_the_same_run(build):
    costs = [
        Cost(system="ddpm", images_per_s=(50.0, 50.0), peak_memory_mib=(300.0,), seconds_per_64=(8.0, 8.0)),
        Cost(system="lw_ddpm", images_per_s=(100.0, 100.0), peak_memory_mib=(150.0,), seconds_per_64=(6.0, 6.0)),
    ]
    by_name = {row.key: row for row in rows(build(costs=tuple(costs)).report)}
    assert by_name["lw_ddpm"].images_per_s.relative.value == pytest.approx(2)
    assert by_name["lw_ddpm"].peak_memory_mib.relative.value == pytest.approx(0.5)
    assert by_name["lw_ddpm"].seconds_per_64.relative.value == pytest.approx(0.75)
    assert by_name["ddpm"].seconds_per_64.relative.value == pytest.approx(1)
    assert by_name["gan"].images_per_s is None


def test_without_ddpm_costs_are_absolute_only(build):
    own = Cost(system="lw_ddpm", images_per_s=(9.0,), peak_memory_mib=(0.0,), seconds_per_64=(1.0,))
    (row,) = [row for row in rows(build(costs=(own,)).report) if row.key == "lw_ddpm"]
    assert row.images_per_s.estimate.mean == 9
    assert row.images_per_s.relative is None


def test_repeated_trainings_count_and_not_their_samplings(measured):
    values = [(0, 0, 10.0), (0, 1, 12.0), (1, 0, 20.0), (1, 1, 22.0)]
    found = [
        measured("system", "gan", 0, seed, training_seed=training, values={"fid": value})
        for training, seed, value in values
    ]
    assert repeats(found, "fid") == [11.0, 21.0]
    assert repeats(found[:2], "fid") == [10.0, 12.0]
    assert repeats(found, "ssim_nearest") == []


def test_what_differs_from_the_paper_is_found_and_nothing_else(build, trained):
    found = {row.key: " ".join(row.differences) for row in rows(build(simulated=True).report)}
    assert "a start from the prior of the training slices instead of noise" in found["ddpm"]
    assert found["ddpm/noise"] == found["gaussian"] == ""
    for part in ("simulated", "EfficientNet", "32 x 32 px", "0.36 M", "12.5 epochs", "v prediction instead of epsilon"):
        assert part in found["ddpm"]
    assert "smooth L1" not in found["ddpm"]
    assert "prediction" not in found["gan"]
    assert "parameters" not in found["gan"]
    paper = trained("ddpm", "ddpm", 13_476_081).model_copy(
        update={"epochs": 250.0, "settings": {"diffusion.prediction_type": "epsilon"}}
    )
    data = build(distance="fid", image_size=128, trainings=(paper, *build().report.trainings))
    systems = [
        s.model_copy(update={"inference_steps": 1000, "start": "noise"})
        for s in data.report.systems
        if s.name == "ddpm"
    ]
    report = data.report.model_copy(update={"systems": tuple(systems)})
    assert rows(report)[0].differences == ()


def test_an_ablation_is_judged_within_each_system(build):
    found = ablation(build().report, "schedule")
    assert [(v.system, v.label, v.distance.best) for v in found] == [
        ("ddpm", "cosine", True),
        ("ddpm", "linear", False),
        ("lw_ddpm", "cosine", True),
        ("lw_ddpm", "linear", False),
    ]
    assert found[0].against_first is None
    assert found[1].against_first.differs == 1
