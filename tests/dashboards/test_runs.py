"""Runs on the board: the list, one run as it trains, two beside each other, and what is hostile in them."""

import http.client
import re

import pytest
from playwright.sync_api import Page, expect

from .browser import IN_BROWSER, photograph, tile
from .conftest import Board
from .world import HOSTILE, World, curve

pytestmark = IN_BROWSER


def test_the_list_of_runs_is_that_of_mlflow(page: Page, world: World) -> None:
    page.goto("/")
    names = page.locator("tbody th > a").all_inner_texts()
    client = world.client
    others = ("reader-studies", "registry-log")
    ids = [one.experiment_id for one in client.search_experiments() if one.name not in others]
    top = client.search_runs(ids, "tags.`mlflow.parentRunId` IS NULL")
    assert names == [run.info.run_name for run in top]
    photograph(page, "runs")
    page.get_by_label("Status").select_option("FAILED")
    expect(page.locator("tbody th > a")).to_have_text(["diverged"])
    page.goto("/runs?name=" + "%27%20OR%201%3D1")
    expect(page.get_by_role("heading", name="No run matches")).to_be_visible()
    page.goto("/runs?nested=true")
    assert page.locator("tbody tr").count() == len(client.search_runs(ids))


def test_a_run_shows_what_was_logged(page: Page, world: World) -> None:
    page.goto(f"/runs/{world.runs['second']}")
    run = world.client.get_run(world.runs["second"])
    losses = world.client.get_metric_history(run.info.run_id, "train/loss")
    expect(page.locator("[data-latest=step]")).to_have_text(str(max(m.step for m in losses)))
    for label, key in (("validation loss", "val/loss"), ("ssim_nearest", "eval/ssim_nearest")):
        shown = float(re.match(r"[\d.,]+", tile(page, label))[0].replace(",", ""))  # type: ignore[index]
        assert shown == pytest.approx(run.data.metrics[key], rel=1e-3)
    drawn = page.locator("[data-chart=loss] svg circle.a")
    assert drawn.count() == len(losses)
    label = page.locator("[data-chart=loss] svg").get_attribute("aria-label")
    assert label is not None
    assert f"at step {max(m.step for m in losses)}" in label
    grids = sorted(f.path for f in world.client.list_artifacts(run.info.run_id, "samples") if f.path.endswith(".png"))
    slider = page.locator("[data-slider]")
    assert slider.get_attribute("max") == str(len(grids) - 1)
    slider.focus()
    page.keyboard.press("Home")
    expect(page.locator("[data-frame]")).to_have_attribute("src", f"/runs/{run.info.run_id}/files/{grids[0]}")
    page.get_by_text("Settings", exact=True).click()
    assert page.locator("details.card dl").first.locator("div").count() == len(run.data.params)
    photograph(page, "run")


def test_a_run_is_followed_while_it_trains(page: Page, world: World) -> None:
    run_id = world.runs["running"]
    page.goto(f"/runs/{run_id}")
    expect(page.locator("[data-latest=step]")).to_have_text("40")
    world.client.log_batch(run_id, metrics=curve(40, 60))
    expect(page.locator("[data-latest=step]")).to_have_text("60")
    assert page.locator("[data-progress]").evaluate("bar => bar.value") == pytest.approx(0.6)
    photograph(page, "running")


def test_an_evaluation_and_the_training_above_it_lead_to_each_other(page: Page, world: World) -> None:
    training = world.client.get_run(world.runs["failed"]).info
    tags = {"mlflow.parentRunId": training.run_id, "lwddpm.kind": "evaluate"}
    evaluation = world.client.create_run(training.experiment_id, run_name="evaluated-otherwise", tags=tags).info.run_id
    world.client.set_terminated(evaluation)
    page.goto(f"/runs/{training.run_id}")
    page.get_by_role("link", name="Runs beneath this one").click()
    page.get_by_role("link", name="evaluated-otherwise").click()
    expect(page).to_have_url(re.compile(f"/runs/{evaluation}$"))
    expect(page.get_by_role("link", name="Runs beneath this one")).to_have_count(0)
    page.get_by_role("link", name="The run above this one").click()
    expect(page).to_have_url(re.compile(f"/runs/{training.run_id}$"))


def test_two_runs_are_compared_by_their_settings_and_curves(page: Page, world: World) -> None:
    page.goto("/runs")
    expect(page.get_by_role("button", name="Compare two runs")).to_be_disabled()
    for name in ("first", "second"):
        page.get_by_label(f"Compare {name}", exact=True).check()
    page.get_by_role("button", name="Compare two runs").click()
    one, two = (world.client.get_run(world.runs[name]).data.params for name in ("second", "first"))
    differing = sorted(key for key in one.keys() | two.keys() if one.get(key) != two.get(key))
    settings = page.locator("section", has=page.get_by_role("heading", name="Settings that differ"))
    expect(settings.locator("tbody th")).to_have_text(differing)  # waits for the page
    row = settings.locator("tr", has=page.get_by_text("training.max_steps", exact=True))
    assert row.locator("td").all_inner_texts() == [one["training.max_steps"], two["training.max_steps"]]
    photograph(page, "compare")


def test_a_run_says_first_of_all_why_it_failed_and_what_to_beware_of(page: Page, world: World) -> None:
    page.goto(f"/runs/{world.runs['failed']}")
    alerts = page.locator("header .alert")
    expect(alerts).to_have_text(["a checkpoint was damaged", "training diverged at step 4"])


def test_a_hostile_name_is_only_text_and_a_report_is_shut_in(page: Page, board: Board, world: World) -> None:
    page.goto(f"/runs/{world.runs['hostile']}")
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    page.get_by_text("Tags", exact=True).click()
    expect(page.locator("details dd", has_text="alert(1)").first).to_be_visible()
    assert page.locator("img[src=x]").count() == 0
    photograph(page, "hostile")
    page.get_by_role("link", name="Report", exact=True).click()
    expect(page.get_by_role("heading", name="Report", exact=True)).to_have_css("color", "rgb(0, 128, 0)")
    assert page.title() != "executed"
    answer = page.request.get(f"/runs/{world.runs['hostile']}/files/report/report.html")
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    for path in (
        "../meta.yaml",
        "%2e%2e/%2e%2e/mlflow.db",
        "notes",
        "notes/%2e%2e/job.yaml",
        "/etc/passwd",
        "absent",
    ):
        assert _status(board, f"/runs/{world.runs['hostile']}/files/{path}") == 404, path
    assert page.request.get(f"/runs/{world.runs['hostile']}/files/notes/deep.txt").text() == "secret"


def _status(board: Board, path: str) -> int:
    """Of a path that no client has tidied up."""
    connection = http.client.HTTPConnection(board.url.removeprefix("http://"), timeout=60)
    connection.request("GET", path)
    return connection.getresponse().status
