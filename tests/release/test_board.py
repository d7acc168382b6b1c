"""The gate on the board, in a real browser: what is shown, what is refused, and that the server refuses it too."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest
from mlflow.tracking import MlflowClient
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from lwddpm.release.policy import load_policy, set_policy
from lwddpm.release.promotion import promote
from lwddpm.tracking import attachments, registry, registry_log
from lwddpm.tracking.registry import RegisteredVersion
from lwddpm_board.stores import Stores

from ..dashboards.browser import IN_BROWSER, launched, photograph
from ..dashboards.conftest import Board, serving
from .conftest import POLICY, figure

Make = Callable[..., RegisteredVersion]

pytestmark = IN_BROWSER


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def board(release_store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    folder = tmp_path_factory.mktemp("board")
    with serving(Stores(release_store, f"sqlite:///{folder}/optuna.db", (), folder)) as found:
        yield found


@pytest.fixture
def page(browser: Browser, board: Board) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=board.url, reduced_motion="reduce")
    made, problems = context.new_page(), []
    made.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)

    def said(message: ConsoleMessage) -> None:
        expected = ("status of 409", "Blocked script execution")
        if message.type in ("error", "warning") and not any(part in message.text for part in expected):
            problems.append(message.text)

    made.on("console", said)
    made.on("pageerror", lambda error: problems.append(str(error)))
    yield made
    context.close()
    assert not problems


def _policy(name: str, tmp_path: Path, more: str = "") -> None:
    path = tmp_path / "house.yaml"
    path.write_text(POLICY + more)
    set_policy(name, load_policy(str(path)), "house rules", "Ada")


def _ask(board: Board, name: str, **more: str) -> tuple[int, dict[str, object]]:
    """What a script without the page gets."""
    wanted = {"name": name, "version": 1, "alias": "champion", "reason": "by script", "by": "Eve"} | more
    request = urllib.request.Request(
        f"{board.url}/api/registry/promote", json.dumps(wanted).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


def test_a_failed_gate_disables_the_button_says_why_and_binds_scripts(
    page: Page, board: Board, register: Make, name: str, tmp_path: Path
) -> None:
    version = register(name, figure("fd_lite0", 50.0, (48.0, 52.0), floor=10.0))
    _policy(name, tmp_path)
    page.goto(f"/registry/{name}/{version.version}")
    expect(page.locator(".findings li.failed")).to_contain_text("fd_lite0 (evaluation) at most 3 times its floor")
    expect(page.locator(".findings li.failed")).to_contain_text("it must look like the data")
    expect(page.locator(".findings li.missing").first).to_contain_text("none is stored with this version")
    expect(page.get_by_role("button", name="Promote version 1")).to_be_disabled()
    expect(page.get_by_text("cannot be promoted until every rule has passed")).to_be_visible()
    photograph(page, "gate-failed")
    page.evaluate("document.querySelector('[data-promote] button').disabled = false")
    page.get_by_label("Reason").fill("the button was only hidden")
    page.get_by_role("button", name="Promote version 1").click()
    expect(page.locator("[data-error]")).to_contain_text("the gate refuses it")
    status, said = _ask(board, name)
    assert (status, str(said["error"]).partition(":")[0]) == (409, "the gate refuses it")
    assert registry.find_version(f"{name}/1").aliases == ["candidate"]


def test_a_passed_gate_promotes_with_an_approver_and_stands_in_the_log(
    page: Page, board: Board, audited: Make, name: str, tmp_path: Path
) -> None:
    trainer = attachments.trainer_of(audited(name))
    assert trainer
    _policy(name, tmp_path, "approver: true\n")
    page.goto(f"/registry/{name}/1")
    button = page.get_by_role("button", name="Promote version 1")
    expect(button).to_be_enabled()
    page.get_by_label("Reason").fill("audit clear")
    page.get_by_label("Approver").fill(trainer)
    button.click()
    expect(page.locator("[data-error]")).to_contain_text("somebody other than the trainer approves: failed")
    page.get_by_label("Approver").fill("Dr. Ben")
    button.click()
    expect(page.locator(".history li").first).to_contain_text("approved by Dr. Ben")
    assert registry.find_version(f"{name}@champion").version == 1
    expect(page.locator(".findings li.passed")).to_have_count(5)
    photograph(page, "gate-passed")
    page.get_by_role("link", name="log", exact=True).click()
    kinds = [entry["kind"] for entry in registry_log.entries(name)][::-1]
    assert page.locator("tbody td[data-label=Kind]").all_inner_texts() == kinds
    expect(page.get_by_text("The log is whole.")).to_be_visible()
    photograph(page, "registry-log")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export JSON lines").click()
    exported = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
    assert exported == registry_log.entries(name)


def test_an_override_and_a_log_with_a_fault_are_shown(page: Page, register: Make, name: str, tmp_path: Path) -> None:
    register(name)
    _policy(name, tmp_path)
    promote(f"{name}/1", "the challenge closes tonight", by="Ada", approver="Dr. Ben", override=True)
    page.goto(f"/registry/{name}/1")
    expect(page.locator("header .alert")).to_contain_text("OVERRIDE by Dr. Ben")
    expect(page.locator("header .alert")).to_contain_text("the challenge closes tonight")
    expect(page.locator(".history")).to_contain_text("against the policy")
    photograph(page, "gate-override")
    page.goto("/registry")
    expect(page.locator("section", has=page.get_by_role("heading", name=name))).to_contain_text(
        "promoted against its policy"
    )
    MlflowClient().delete_registered_model_alias(name, "champion")
    page.goto(f"/registry/{name}/log")
    expect(page.get_by_text("alias champion: the log moved it to version 1, it is at none")).to_be_visible()
    photograph(page, "registry-log-fault")
    page.goto(f"/registry/{name}/1/dossier.html")
    expect(page.get_by_role("heading", name=f"{name} version 1")).to_be_visible()
    background = page.evaluate("getComputedStyle(document.querySelector('.override')).borderLeftStyle")
    assert background == "solid"  # its own styles are let through
    photograph(page, "dossier")


def test_a_policy_that_cannot_be_told_promotes_nothing(page: Page, board: Board, audited: Make, name: str) -> None:
    audited(name)
    set_policy(name, load_policy("research"), "house rules", "Ada")
    MlflowClient().delete_registered_model_tag(name, registry_log.GATE)
    page.goto(f"/registry/{name}/1")
    expect(page.get_by_text("The gate cannot be told, so nothing is promoted")).to_be_visible()
    expect(page.get_by_role("button", name="Promote version 1")).to_be_disabled()
    assert _ask(board, name)[0] == 422


def test_the_log_is_no_run_of_the_list(page: Page, audited: Make, name: str) -> None:
    audited(name)
    page.goto("/runs")
    assert not any("log of" in text for text in page.locator("tbody th").all_inner_texts())
