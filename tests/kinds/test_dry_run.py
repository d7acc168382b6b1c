"""What a dry run says of a search; of other jobs the command line's tests ask."""

from pathlib import Path

import pytest

from lwddpm.cli.views.plan import plan as show_plan
from lwddpm.jobfile import load_job
from lwddpm.kinds.dry_run import plan


def test_a_search_is_described_with_its_space_and_budgets() -> None:
    found = plan(load_job("search_demo", ["search.num_trials=7", "search.max_steps=90", "search.grace_steps=20"]))
    search = found["search"]
    assert set(search["space"]) == {"training.lr", "diffusion.beta_schedule", "model.se_reduction"}
    assert (search["rungs"], search["steps_at_most"]) == ((20, 60, 90), 7 * 90)
    assert found["steps"] == 600
    assert search["combinations"] is None


GRID = "training.lr:\n  categorical: [0.001, 0.002]\nmodel.se_reduction:\n  int: {low: 2, high: 4}\n"


def test_a_finite_space_says_how_many_combinations_it_has(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(GRID)
    budget = [f"search.space={tmp_path}/space.yaml", "search.max_steps=90", "search.grace_steps=20"]
    search = plan(load_job("search_demo", [*budget, "search.sampler=grid", "search.num_trials=null"]))["search"]
    assert (search["combinations"], search["trials"], search["steps_at_most"]) == (6, 6, 6 * 90)
    search = plan(load_job("search_demo", [*budget, "search.num_trials=20"]))["search"]
    assert (search["combinations"], search["trials"], search["steps_at_most"]) == (6, 20, 6 * 90)


def test_a_comparison_lists_its_trainings() -> None:
    job = load_job("paper_compare", ["data.source=phantom"])
    found = plan(job)["trainings"]
    assert list(found)[:2] == ["lw_ddpm", "ddpm"]
    assert (found["lw_ddpm"]["parameters"], found["ddpm"]["parameters"]) == (13_341_041, 13_476_081)
    assert {needs["steps"] for label, needs in found.items() if label != "wgan"} == {250 * (800 // 32)}


def test_what_is_not_taken_of_a_source_is_said_before_anything_is_prepared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/1.png", "a/1_mask.png", "b/2.png", "__MACOSX/a/1.png"):
        (tmp_path / "scans" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "scans" / name).touch()
    described = plan(load_job("prepare", ["data.source=scans", "data.exclude=['*_mask.png']"]))
    assert described["classes"] == {"a": 1, "b": 1}
    assert (described["not_taken"]["excluded"], described["not_taken"]["system_folders"]) == (1, ["__MACOSX"])
    show_plan(described)
    assert "not taken: 1 file that data.include and data.exclude leave out" in capsys.readouterr().out
