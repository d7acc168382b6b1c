"""The board's view of a dataset of pictures: slices, copies, what was rejected."""

import re

from playwright.sync_api import Page, expect

from lwddpm.data.manifest import read_manifest
from lwddpm.data.remarks import remarks

from .browser import IN_BROWSER, photograph, tile
from .world import World

pytestmark = IN_BROWSER


def test_a_dataset_shows_its_slices_copies_and_rejected_files(page: Page, world: World) -> None:
    page.goto("/datasets")
    photograph(page, "datasets")
    page.get_by_role("link", name="dataset", exact=True).click()
    assert tile(page, "slices") == "44"
    assert tile(page, "exact copies") == "4"
    assert tile(page, "label conflicts") == "1"
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
    photograph(page, "dataset")
    page.get_by_label("Class").select_option("no_tumor")
    expect(page.locator("#page .sheet small").first).to_have_text("no_tumor")
