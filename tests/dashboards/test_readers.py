"""A reader study as its readers meet it."""

from playwright.sync_api import Page, expect

from .browser import IN_BROWSER, photograph
from .world import MODEL, World

pytestmark = IN_BROWSER


def test_a_reader_study_is_taken_with_two_keys_and_goes_on_where_it_stopped(page: Page, world: World) -> None:
    page.goto(f"/readers?model={MODEL}/2")
    page.get_by_label("Slices in all").fill("6")
    page.get_by_role("button", name="Set up").click()
    page.get_by_label("Your name").fill("Grace")
    page.get_by_role("button", name="Begin or go on").click()
    expect(page.get_by_text("1 of 6", exact=True)).to_be_visible()  # two pages further: a form, then its answer
    photograph(page, "reading")
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
    photograph(page, "reader")
    page.get_by_role("link", name="6 slices").click()
    client = world.client
    experiment = client.get_experiment_by_name("reader-studies")
    (reader,) = client.search_runs([experiment.experiment_id], "tags.`lwddpm.reader` = 'Grace'")
    assert reader.info.status == "FINISHED"
    right = round(6 * reader.data.metrics["reader/accuracy"])
    expect(page.get_by_role("row", name="Grace")).to_contain_text(f"{right} of 6")
    low, high = reader.data.metrics["reader/accuracy_low"], reader.data.metrics["reader/accuracy_high"]
    expect(page.get_by_role("row", name="Grace")).to_contain_text(f"({low:.0%} to {high:.0%})")
    photograph(page, "reader-study")
