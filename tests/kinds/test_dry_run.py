"""What a dry run says of a search; of other jobs the command line's tests ask."""

from lwddpm.jobfile import load_job
from lwddpm.kinds.dry_run import plan


def test_a_search_is_described_with_its_space_and_budgets() -> None:
    found = plan(load_job("search_demo", ["search.num_trials=7", "search.max_steps=90", "search.grace_steps=20"]))
    search = found["search"]
    assert set(search["space"]) == {"training.lr", "diffusion.beta_schedule", "model.se_reduction"}
    assert (search["rungs"], search["steps_at_most"]) == ((20, 60, 90), 7 * 90)
    assert found["steps"] == 600


def test_a_comparison_lists_its_trainings() -> None:
    job = load_job("paper_compare", ["data.source=phantom"])
    found = plan(job)["trainings"]
    assert list(found)[:2] == ["lw_ddpm", "ddpm"]
    assert (found["lw_ddpm"]["parameters"], found["ddpm"]["parameters"]) == (13_341_041, 13_476_081)
    assert {needs["steps"] for label, needs in found.items() if label != "wgan"} == {250 * (800 // 32)}
