"""The board in a real browser: every view, in both schemes and widths, against what MLflow and Optuna hold."""

import hashlib
import http.client
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright
from playwright.sync_api import Request as PageRequest

from lwddpm.config import Metric
from lwddpm.data.manifest import read_manifest
from lwddpm.data.remarks import remarks
from lwddpm.search.ranking import importance, pareto_front, ranking
from lwddpm.search.storage import find_study
from lwddpm.search.trials import records
from lwddpm.tracking import model_files, registry
from lwddpm.tracking.store import connect
from lwddpm_board.pages import METRIC_GROUPS

from ..processes import free_port
from .conftest import Board, running, start_board, stop
from .world import HOSTILE, MODEL, STUDY, World, curve

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
REQUIRED = "LWDDPM_REQUIRE_BROWSER" in os.environ
SHOTS = Path(os.environ.get("LWDDPM_SCREENSHOTS", "build/screenshots"))
WIDTHS = {1280: 900, 390: 844}
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
PATIENCE_MS = 60_000
EXPECTED = (
    "status of 422",  # what a form has asked for wrongly; the page says so
    "Blocked script execution",  # of a report, which is shut in
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),  # the first test waits for the world
    pytest.mark.skipif(CHROMIUM is None and not REQUIRED, reason="no Chromium here: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None, "LWDDPM_REQUIRE_BROWSER is set and there is no Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser, board: Board) -> Iterator[Page]:
    """A page that may show no error, run nothing foreign and ask nobody but the board."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=board.url, reduced_motion="reduce")
    made = context.new_page()
    made.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    problems: list[str] = []

    def asked(request: PageRequest) -> None:
        if not request.url.startswith((board.url, "data:")):
            problems.append(f"asked {request.url}")

    def said(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(part in message.text for part in EXPECTED):
            problems.append(message.text)

    made.on("request", asked)
    made.on("console", said)
    made.on("pageerror", lambda error: problems.append(str(error)))
    made.on("dialog", lambda dialog: problems.append(f"executed: {dialog.message}"))
    yield made
    context.close()
    assert not problems


CUT_OFF = """() => [...document.querySelectorAll(".scroll")]
    .filter(box => box.scrollWidth > box.clientWidth).map(box => [box.innerText, box.scrollWidth, box.clientWidth])"""


def _photograph(page: Page, name: str) -> None:
    """Look at a page in both schemes and widths, and keep what is seen."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_load_state("networkidle")
    page.evaluate("Promise.allSettled([...document.images].map(i => { i.loading = 'eager'; return i.decode(); }))")
    for width, height in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": height})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.wait_for_timeout(60)  # charts follow the width in the next frame
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{name} scrolls sideways at {width} px: {wide}"
            if width >= 1280:
                assert page.evaluate(CUT_OFF) == [], f"tables of {name} scroll sideways at {width} px"
            page.screenshot(path=SHOTS / f"{name}-{width}-{scheme}.png", full_page=True)
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="light")


def _tile(page: Page, name: str) -> str:
    return page.locator(".tiles div", has=page.get_by_text(name, exact=True)).locator("dd").inner_text()


def test_the_list_of_runs_is_that_of_mlflow(page: Page, world: World) -> None:
    page.goto("/")
    names = page.locator("tbody th > a").all_inner_texts()
    client = world.client
    ids = [one.experiment_id for one in client.search_experiments() if one.name != "reader-studies"]
    top = client.search_runs(ids, "tags.`mlflow.parentRunId` IS NULL")
    assert names == [run.info.run_name for run in top]
    _photograph(page, "runs")
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
    for tile, key in (("validation loss", "val/loss"), ("ssim_nearest", "eval/ssim_nearest")):
        shown = float(re.match(r"[\d.,]+", _tile(page, tile))[0].replace(",", ""))  # type: ignore[index]
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
    _photograph(page, "run")


def test_a_run_is_followed_while_it_trains(page: Page, world: World) -> None:
    run_id = world.runs["running"]
    page.goto(f"/runs/{run_id}")
    expect(page.locator("[data-latest=step]")).to_have_text("40")
    world.client.log_batch(run_id, metrics=curve(40, 60))
    expect(page.locator("[data-latest=step]")).to_have_text("60")
    assert page.locator("[data-progress]").evaluate("bar => bar.value") == pytest.approx(0.6)
    _photograph(page, "running")


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
    _photograph(page, "compare")


def _status(board: Board, path: str) -> int:
    """Of a path that no client has tidied up."""
    connection = http.client.HTTPConnection(board.url.removeprefix("http://"), timeout=60)
    connection.request("GET", path)
    return connection.getresponse().status


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
    _photograph(page, "hostile")
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


def test_a_search_is_the_study_and_a_point_shows_its_samples(page: Page, world: World) -> None:
    page.goto("/searches")
    _photograph(page, "searches")
    page.get_by_role("link", name=STUDY).click()
    study = find_study(world.storage, STUDY)
    trials, ranked, front = records(study), ranking(study), pareto_front(study)
    for state in ("complete", "pruned", "failed", "running"):
        assert _tile(page, state) == str(sum(trial.state == state for trial in trials))
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
    _photograph(page, "study")


def test_the_registry_shows_promotes_and_hands_out(page: Page, world: World) -> None:
    connect(world.tracking)
    page.goto("/registry")
    versions = registry.list_versions(MODEL)
    assert page.locator("tbody th").all_inner_texts() == [f"version {version.version}" for version in versions]
    _photograph(page, "registry")
    page.get_by_role("link", name="version 2").click()
    found = registry.find_version(f"{MODEL}/2")
    for cell in (f"{found.metrics['eval/ssim_nearest']:.4g}", f"{found.metrics['eval/ssim_nearest_floor']:.4g}"):
        expect(page.get_by_role("cell", name=cell, exact=True)).to_be_visible()
    for link, target in (
        ("second", f"/runs/{found.run_id}"),
        (world.dataset_version, f"/datasets/{world.dataset_version}"),
    ):
        expect(page.get_by_role("link", name=link, exact=True)).to_have_attribute("href", target)
    with page.expect_download() as download:
        page.get_by_role("link", name="Weights").click()
    stored = model_files.fetch_model(f"models:/{MODEL}/2") / "model.safetensors"
    fetched = Path(download.value.path()).read_bytes()
    assert hashlib.sha256(fetched).digest() == hashlib.sha256(stored.read_bytes()).digest()
    page.get_by_label("Reason").fill("sharper <b>edges</b>")
    page.get_by_label("Your name").fill("Ada")
    page.get_by_role("button", name="Promote version 2").click()
    expect(page.locator(".history li").first).to_contain_text("sharper <b>edges</b>")
    promoted = registry.promotions(MODEL)[-1]
    assert (promoted["to"], promoted["by"], promoted["reason"]) == (2, "Ada", "sharper <b>edges</b>")
    assert registry.find_version(f"{MODEL}@champion").version == 2
    _photograph(page, "version")


def test_slices_are_drawn_beside_their_nearest_training_slice_and_by_two_versions(page: Page) -> None:
    page.goto("/generate")
    page.get_by_label("Slices", exact=True).fill("3")
    page.get_by_label("Steps").fill("2")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.locator(".beside li")).to_have_count(3)
    expect(page.locator(".beside li").first).to_contain_text("SSIM")
    _photograph(page, "generate")
    page.get_by_label("Model").select_option(f"{MODEL}/2")
    page.get_by_label("Guidance").fill("2")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.locator("[data-state]")).to_contain_text("guidance 2, 4 network calls a slice")
    page.get_by_label("to sigma").fill("0.000001")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.locator("[data-state]")).to_contain_text("guidance 2, 2 network calls a slice")
    page.get_by_label("Model").select_option(f"{MODEL}/1")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.locator("[data-draw] [data-error]")).to_contain_text("takes a model with a guide")
    page.get_by_label("Guidance").fill("1")
    page.get_by_label("Steps").fill("9999")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.locator("[data-draw] [data-error]")).to_contain_text("must be at most")
    page.goto(f"/registry/compare?version={MODEL}/1&version={MODEL}/2")
    page.get_by_label("Slices", exact=True).fill("2")
    page.get_by_label("Steps").fill("2")
    page.get_by_role("button", name="Draw from both").click()
    expect(page.locator(".slices img")).to_have_count(4)
    _photograph(page, "versions")
    page.get_by_label("Slices", exact=True).fill("64")
    page.get_by_label("Steps").fill("1000")
    page.get_by_role("button", name="Draw from both").click()
    expect(page.locator("[data-state]")).to_contain_text("drawing")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("[data-state]")).to_have_text("Cancelled.")


def test_a_region_is_painted_on_a_slice_and_drawn_anew(page: Page, world: World) -> None:
    page.goto("/generate")
    page.get_by_label("Steps").fill("2")
    section = page.locator("[data-edit]")
    section.get_by_role("button", name="Show").click()
    canvas = section.locator("canvas")
    expect(canvas).to_be_visible()
    section.get_by_label("Results").fill("3")
    section.get_by_role("button", name="Draw region").click()
    expect(section.locator("[data-paint] [data-error]")).to_contain_text("paint on the slice")
    box = canvas.bounding_box()
    assert box is not None
    unit = box["width"] / 32
    page.mouse.move(box["x"] + 10.5 * unit, box["y"] + 10.5 * unit)
    page.mouse.down()
    page.mouse.move(box["x"] + 18.5 * unit, box["y"] + 10.5 * unit)
    page.mouse.up()
    expect(section.locator("[data-edit-state]")).to_have_text("33 of 1,024 pixels are painted.")  # 11 x 3
    section.get_by_role("button", name="Erase").click()
    canvas.press("ArrowUp")  # from the middle: the cursor is at (16, 15)
    for _ in range(4):
        canvas.press("ArrowUp")
    canvas.press(" ")  # at (16, 11): takes 3 x 2 away
    expect(section.locator("[data-edit-state]")).to_have_text("27 of 1,024 pixels are painted.")
    section.get_by_role("button", name="Draw region").click()
    expect(section.locator(".edited li")).to_have_count(4)
    expect(section.locator("[data-edit-state]")).to_contain_text("3 results in")
    _photograph(page, "edit")
    same = page.evaluate(
        """async () => {
            const read = async (image) => {
                const canvas = document.createElement("canvas");
                canvas.width = canvas.height = 32;
                const context = canvas.getContext("2d");
                context.drawImage(image, 0, 0);
                return context.getImageData(0, 0, 32, 32).data;
            };
            const [source, ...results] = await Promise.all([...document.querySelectorAll(".edited img")].map(read));
            const differing = (sum, value, index) => sum + (value !== source[index]) / 3;
            return results.map((result) => Math.round(result.reduce(differing, 0)));
        }"""
    )
    assert all(0 < different <= 27 for different in same), same
    section.get_by_label("Dataset").select_option("")
    section.get_by_label("File").set_input_files(str(world.folder / "scans" / "no_tumor" / "002.png"))
    section.get_by_role("button", name="Show").click()
    expect(section.locator("[data-edit-state]")).to_contain_text("Brought from 64 x 64 pixels to 32 x 32")
    section.get_by_label("File").set_input_files(str(world.folder / "scans" / world.rejected))
    section.get_by_role("button", name="Show").click()
    expect(section.locator("[data-source] [data-error]")).to_contain_text("must be an image that can be read")


def test_a_dataset_shows_its_slices_copies_and_rejected_files(page: Page, world: World) -> None:
    page.goto("/datasets")
    _photograph(page, "datasets")
    page.get_by_role("link", name="dataset", exact=True).click()
    assert _tile(page, "slices") == "44"
    assert _tile(page, "exact copies") == "4"
    assert _tile(page, "label conflicts") == "1"
    expect(page.get_by_text("labels disagree")).to_have_count(1)
    manifest = read_manifest(str(world.folder / "dataset"))
    assert manifest is not None
    assert page.locator(".remarks li").all_inner_texts() == remarks(manifest)
    assert re.search("left behind by systems: what is in .*a-long-name", page.locator(".remarks li").first.inner_text())
    expect(page.get_by_role("row", name=world.rejected)).to_contain_text("not an image")
    sheet = page.locator("#page .sheet img")
    expect(sheet).to_have_count(int(page.locator(".counts tbody tr").last.locator("td").first.inner_text()))
    assert all(
        image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 32 for image in sheet.all()[:3]
    )
    _photograph(page, "dataset")
    page.get_by_label("Class").select_option("no_tumor")
    expect(page.locator("#page .sheet small").first).to_have_text("no_tumor")


def test_a_reader_study_is_taken_with_two_keys_and_goes_on_where_it_stopped(page: Page, world: World) -> None:
    page.goto("/readers")
    page.get_by_label("Slices in all").fill("6")
    page.get_by_role("button", name="Set up").click()
    page.get_by_label("Your name").fill("Grace")
    page.get_by_role("button", name="Begin or go on").click()
    expect(page.get_by_text("1 of 6", exact=True)).to_be_visible()  # two pages further: a form, then its answer
    _photograph(page, "reading")
    addresses = set()
    for position, key in enumerate("rsr"):
        expect(page.get_by_text(f"{position + 1} of 6", exact=True)).to_be_visible()
        addresses.add(page.locator("[data-slice]").get_attribute("src"))
        page.keyboard.press(key)
    expect(page.get_by_text("4 of 6", exact=True)).to_be_visible()
    page.get_by_role("link", name="leave").click()
    expect(page.get_by_text("Grace: 3 of 6")).to_be_visible()
    page.get_by_label("Your name").fill("grace")
    page.get_by_role("button", name="Begin or go on").click()
    for position, key in zip(range(3, 6), "srs", strict=True):
        expect(page.get_by_text(f"{position + 1} of 6", exact=True)).to_be_visible()
        page.keyboard.press(key)
    expect(page.get_by_role("heading", name="What came out")).to_be_visible()
    assert not any("real" in str(address) or "synthetic" in str(address) for address in addresses)
    page.get_by_text("Every slice", exact=True).click()
    _photograph(page, "reader")
    page.get_by_role("link", name="6 slices").click()
    client = world.client
    experiment = client.get_experiment_by_name("reader-studies")
    (reader,) = client.search_runs([experiment.experiment_id], "tags.`lwddpm.reader` = 'Grace'")
    assert reader.info.status == "FINISHED"
    right = round(6 * reader.data.metrics["reader/accuracy"])
    expect(page.get_by_role("row", name="Grace")).to_contain_text(f"{right} of 6")
    low, high = reader.data.metrics["reader/accuracy_low"], reader.data.metrics["reader/accuracy_high"]
    expect(page.get_by_role("row", name="Grace")).to_contain_text(f"({low:.0%} to {high:.0%})")
    _photograph(page, "reader-study")


def test_the_keyboard_reaches_everything_and_sees_where_it_is(page: Page) -> None:
    page.goto("/runs")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    for _ in range(12):
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", page.evaluate("document.activeElement.outerHTML")


def test_a_silent_mlflow_is_said_and_waited_for(browser: Browser, world: World, tmp_path: Path) -> None:
    port = free_port()
    board = start_board(tmp_path, "--tracking-uri", f"http://127.0.0.1:{port}", "--storage", world.storage)
    try:
        with browser.new_page(base_url=board.url) as page:
            answer = page.goto("/runs")
            assert answer is not None
            assert answer.status == 503
            expect(page.locator("main")).to_contain_text("does not answer")
            assert "Traceback" not in page.content()
            expect(page.locator("[data-attempts]")).to_contain_text("Asked 1 time")
            _photograph(page, "silent")
            page.goto("/searches")  # Optuna answers all the same
            expect(page.get_by_role("link", name=STUDY)).to_be_visible()
    finally:
        said = stop(board)
    assert "Traceback" not in said


def test_exposed_it_lets_in_who_knows_the_token(browser: Browser, world: World) -> None:
    token = "the-token-of-this-test"
    board = start_board(
        world.folder, "--expose", "--tracking-uri", world.tracking, environment={"LWDDPM_BOARD_TOKEN": token}
    )
    try:
        with browser.new_page(base_url=board.url) as page:
            page.goto("/registry")
            expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
            _photograph(page, "sign-in")
            page.get_by_label("Token").fill(token)
            page.get_by_role("button", name="Sign in").click()
            expect(page.get_by_role("heading", name="Registry")).to_be_visible()
    finally:
        assert token not in stop(board)


def test_mlflow_and_optuna_dashboard_show_the_same_with_useful_words(browser: Browser, world: World) -> None:
    programs, port, other = Path(sys.executable).parent, free_port(), free_port()
    mlflow = (str(programs / "mlflow"), "server", "--backend-store-uri", world.tracking, "--workers", "1")
    optuna = (str(programs / "optuna-dashboard"), world.storage, "--port", str(other))
    mlflow_url, optuna_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{other}"
    experiment = world.client.get_experiment_by_name("lw-ddpm").experiment_id
    quiet = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
    with (
        running(*mlflow, "--port", str(port), address=f"{mlflow_url}/health"),
        running(*optuna, address=f"{optuna_url}/dashboard/"),
        browser.new_page(viewport={"width": 1280, "height": 720}) as page,
    ):
        page.set_default_timeout(PATIENCE_MS)
        page.add_init_script(quiet)
        page.goto(
            f"{mlflow_url}/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey=lwddpm"
        )
        expect(page.get_by_text("Jobs of LW-DDPM")).to_be_visible()
        for column in ("val/loss", "model.family", "lwddpm.kind"):
            expect(page.get_by_text(column, exact=True).first).to_be_visible()
        _keep(page, "mlflow")
        page.goto(f"{mlflow_url}/#/experiments/{experiment}/runs/{world.runs['first']}")
        expect(page.get_by_text("Trains lw_ddpm, widths 8 x")).to_be_visible()
        page.goto(f"{mlflow_url}/#/models/{MODEL}")
        expect(page.get_by_text("Every slice is synthetic")).to_be_visible()
        page.goto(f"{optuna_url}/dashboard/studies/1")
        expect(page.get_by_text("eval/fd_lite0").first).to_be_visible()
        _keep(page, "optuna")
        page.goto(f"{optuna_url}/dashboard/studies/1/note")
        expect(page.get_by_text("asha ends weak trials by eval/fd_lite0")).to_be_visible()


def test_long_values_are_shown_whole(page: Page, world: World) -> None:
    """In text that wraps, not in boxes that scroll sideways, and no row of tiles with an empty end."""
    client, first = world.client, registry.find_version(f"{MODEL}/1")
    run_id = client.create_run(client.get_run(first.run_id).info.experiment_id, run_name="long").info.run_id
    result = json.loads(Path(client.download_artifacts(first.run_id, "evaluation/metrics.json")).read_text())
    for record in result["records"]:
        record |= {"sampler": "sde-dpmsolver++", "num_inference_steps": 1000, "n": 10_000}
    result["records"][0] |= {"extractor": "efficientnet_lite0", "weights_sha256": "0123456789abcdef" * 4}
    why = (
        "fid: no Inception weights at /home/somebody/.cache/torch/hub/checkpoints/pt_inception-2015-12-05-6726825d.pth"
    )
    result["unavailable"] = [{"name": "fid", "reason": f"{why}; an evaluation tries to download them"}]
    client.log_dict(run_id, result, "evaluation/metrics.json")
    names = ("fid", "fd_lite0", "ssim_nearest", "ssim_reconstruction")  # eight tiles
    for name in names:
        client.log_metric(run_id, f"eval/{name}", 1234.5)
        client.log_metric(run_id, f"eval/{name}_floor", 123.45)
    client.set_terminated(run_id)
    model = f"{'a-name-without-end-' * 4}{'x' * 60}"
    client.create_registered_model(model)
    client.create_model_version(model, f"runs:/{run_id}/model", run_id, tags=first.tags)
    client.set_registered_model_alias(model, "a_rather_long_alias_of_fifty_characters_in_all_too", "1")

    page.goto(f"/registry/{model}/1")
    said = page.locator("tr", has=page.get_by_role("rowheader", name="fid", exact=True)).inner_text()
    assert " ".join(said.split()).startswith("fid not reported: no Inception weights at /home")
    _photograph(page, "long-version")
    page.goto("/registry")
    _photograph(page, "long-registry")
    page.goto(f"/runs/{run_id}")
    _photograph(page, "long-run")
    for width, height in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": height})
        tiles = page.locator(".tiles").first
        assert tiles.evaluate("box => box.lastElementChild.getBoundingClientRect().right") == pytest.approx(
            tiles.evaluate("box => box.getBoundingClientRect().right"), abs=2
        ), "an empty place beside the last tile"
        for label in tiles.locator("dt").all():
            assert label.evaluate("dt => dt.scrollWidth <= dt.clientWidth && dt.getClientRects().length == 1")
    page.goto(f"/searches/{STUDY}")
    expect(page.locator(".shares li").first).to_be_visible()
    for width, height in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": height})
        heights = page.locator(".shares li span:first-child").evaluate_all("all => all.map(one => one.clientHeight)")
        assert all(height < 30 for height in heights), f"a label breaks at {width} px"


# words that stand in two lines; a name may break after its _, . and /
BROKEN = """() => [...document.querySelectorAll("th, dt")].flatMap(place => {
    if (getComputedStyle(place.closest("thead") ?? place).clipPath !== "none") return [];  // for screen readers alone
    const texts = document.createTreeWalker(place, NodeFilter.SHOW_TEXT), broken = [];
    for (let text; (text = texts.nextNode());) for (const word of text.data.matchAll(/[^\\s_./-]+/g)) {
        const range = document.createRange();
        range.setStart(text, word.index);
        range.setEnd(text, word.index + word[0].length);
        if (new Set([...range.getClientRects()].map(line => Math.round(line.top))).size > 1) broken.push(word[0]);
    }
    return broken;
})"""


def test_an_evaluation_is_told_in_groups_with_its_warnings_and_by_class(page: Page, world: World) -> None:
    client, first = world.client, registry.find_version(f"{MODEL}/1")
    tags = {"lwddpm.warning": "intensities: 30% of the generated slices lie outside the band"}
    run = client.create_run(client.get_run(first.run_id).info.experiment_id, run_name="drifting", tags=tags).info
    result = json.loads(Path(client.download_artifacts(first.run_id, "evaluation/metrics.json")).read_text())
    by_name = {record["name"]: record for record in result["records"]}
    by_name["out_of_band"] |= {"value": 0.3125, "interval": [0.2345, 0.4041], "floor": 0.0321, "n": 128}
    by_name["recall_lite0"]["parts"] = {"glioma_tumor": 0.125, "a-class-<b>name</b>": 0.8765}
    by_name["coverage_lite0"]["parts"] = {"glioma_tumor": 0.25, "a-class-<b>name</b>": 0.7654}
    result["warnings"] = list(tags.values())
    client.log_dict(run.run_id, result, "evaluation/metrics.json")
    for record in result["records"]:
        client.log_metric(run.run_id, f"eval/{record['name']}", record["value"])
        client.log_metric(run.run_id, f"eval/{record['name']}_floor", record["floor"])
    client.set_terminated(run.run_id)
    client.create_registered_model("drifting")
    client.create_model_version("drifting", f"runs:/{run.run_id}/model", run.run_id, tags=first.tags)

    evaluated = ["fd_lite0", "kd_lite0", "precision_lite0", "density_lite0", "recall_lite0", "coverage_lite0"]
    evaluated += ["out_of_band", "ssim_nearest", "ssim_pairs"]
    for address in (f"/runs/{run.run_id}", "/registry/drifting/1"):
        page.goto(address)
        expect(page.locator(".alert", has_text="30% of the generated slices").first).to_be_visible()
        table = page.locator("table.metrics")
        names = [name.split()[0] for name in table.locator("th[scope=row]").all_inner_texts()]
        assert names == evaluated
        assert table.locator("th[scope=rowgroup]").all_inner_texts() == list(METRIC_GROUPS)
        row = table.locator("tr", has_text="out_of_band").locator("td")
        assert row.all_inner_texts() == ["0.3125", "0.2345 to 0.4041", "0.0321", "128"]
        parts = page.locator("table.by-part", has_text="recall_lite0").locator("tbody tr")
        assert [one.locator("th, td").all_inner_texts() for one in parts.all()] == [
            ["glioma_tumor", "0.125", "0.25"],
            ["a-class-<b>name</b>", "0.8765", "0.7654"],
        ]
    page.goto(f"/runs/{run.run_id}")
    assert page.locator(".tiles dt").count() == 4 + len(METRIC_GROUPS)
    assert _tile(page, "out_of_band").split() == ["0.3125", "floor", "0.0321"]
    _photograph(page, "drifting-run")
    page.goto("/runs")
    expect(page.get_by_role("row", name="drifting").get_by_text("warning")).to_be_visible()
    page.goto(f"/registry/compare?version={MODEL}/1&version=drifting/1")
    expect(page.locator(".alert")).to_contain_text(["version 1 of drifting: intensities: 30%"])
    scored = page.locator("section", has=page.get_by_role("heading", name="What they scored"))
    shown = scored.locator("tr", has_text="out_of_band").locator("td").last.inner_text()
    assert " ".join(shown.split()) == "0.3125 (0.2345 to 0.4041) floor 0.0321, n = 128"
    _photograph(page, "drifting-versions")
    for address in (f"/registry/compare?version={MODEL}/1&version=drifting/1", f"/runs/{run.run_id}"):
        page.goto(address)
        for width, height in WIDTHS.items():
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_timeout(60)  # the layout follows in the next frame
            assert page.evaluate(BROKEN) == [], f"{address} at {width} px"


def test_every_metric_stands_in_one_group() -> None:
    names = [name for names in METRIC_GROUPS.values() for name in names]
    assert sorted(names) == sorted(get_args(Metric))


def _keep(page: Page, name: str) -> None:
    """A picture of somebody else's page."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(1500)  # until its charts have settled
    page.screenshot(path=SHOTS / f"{name}.png")
