"""A search on the board is the study that Optuna holds."""

import re

from playwright.sync_api import Page, expect

from lwddpm.search.ranking import importance, pareto_front, ranking
from lwddpm.search.storage import find_study
from lwddpm.search.trials import records

from .browser import IN_BROWSER, photograph, tile
from .world import STUDY, World

pytestmark = IN_BROWSER


def test_a_search_is_the_study_and_a_point_shows_its_samples(page: Page, world: World) -> None:
    page.goto("/searches")
    photograph(page, "searches")
    page.get_by_role("link", name=STUDY).click()
    study = find_study(world.storage, STUDY)
    trials, ranked, front = records(study), ranking(study), pareto_front(study)
    for state in ("complete", "pruned", "failed", "running"):
        assert tile(page, state) == str(sum(trial.state == state for trial in trials))
    shown = page.locator("[data-trials] tbody th").all_inner_texts()
    assert shown[: len(ranked)] == [f"trial {trial.number}" for trial in ranked]
    assert len(shown) == len(trials)
    points = page.locator("circle.front-point")
    assert {int(point.get_attribute("data-trial") or -1) for point in points.all()} == {t.number for t in front}
    assert page.locator("path.strand").count() == len(ranked)
    shares = importance(study)["eval/fd_lite0"]
    expect(page.locator(".shares").first.locator("li").first).to_contain_text(f"{max(shares.values()):.2f}")
    chosen = int(points.first.get_attribute("data-trial") or -1)
    points.first.focus()
    page.keyboard.press("Enter")
    run_id = next(trial.run_id for trial in trials if trial.number == chosen)
    expect(page.locator("[data-frame]")).to_have_attribute("src", re.compile(f"/runs/{run_id}/files/samples/epoch_"))
    expect(page.locator("[data-about]")).to_contain_text(f"Trial {chosen}")
    photograph(page, "study")
