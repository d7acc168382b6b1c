"""The board as a program: exposed, before an MLflow that is silent, and beside the other two dashboards."""

import sys
from pathlib import Path

from playwright.sync_api import Browser, expect

from ..processes import free_port
from .browser import IN_BROWSER, PATIENCE_MS, keep, photograph
from .conftest import running, start_board, stop
from .world import MODEL, STUDY, World

pytestmark = IN_BROWSER


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
            photograph(page, "silent")
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
            photograph(page, "sign-in")
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
        keep(page, "mlflow")
        page.goto(f"{mlflow_url}/#/experiments/{experiment}/runs/{world.runs['first']}")
        expect(page.get_by_text("Trains lw_ddpm, widths 8 x")).to_be_visible()
        page.goto(f"{mlflow_url}/#/models/{MODEL}")
        expect(page.get_by_text("Every slice is synthetic")).to_be_visible()
        page.goto(f"{optuna_url}/dashboard/studies/1")
        expect(page.get_by_text("eval/fd_lite0").first).to_be_visible()
        keep(page, "optuna")
        page.goto(f"{optuna_url}/dashboard/studies/1/note")
        expect(page.get_by_text("asha ends weak trials by eval/fd_lite0")).to_be_visible()
