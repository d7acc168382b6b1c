"""One version on the board: what it scored, promoting it, its files."""

import hashlib
from pathlib import Path

from playwright.sync_api import Page, expect

from lwddpm.tracking import model_files, registry
from lwddpm.tracking.store import connect

from .browser import IN_BROWSER, photograph
from .world import MODEL, World

pytestmark = IN_BROWSER


def test_the_registry_shows_promotes_and_hands_out(page: Page, world: World) -> None:
    connect(world.tracking)
    page.goto("/registry")
    versions = registry.list_versions(MODEL)
    listed = page.locator("section", has=page.get_by_role("heading", name=MODEL))
    assert listed.locator("tbody th").all_inner_texts() == [f"version {version.version}" for version in versions]
    photograph(page, "registry")
    listed.get_by_role("link", name="version 2").click()
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
    photograph(page, "version")
