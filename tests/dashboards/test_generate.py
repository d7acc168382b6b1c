"""Slices on demand: beside what they resemble, by two versions, and a region of a slice drawn anew."""

from playwright.sync_api import Page, expect

from .browser import IN_BROWSER, photograph
from .world import MODEL, World

pytestmark = IN_BROWSER


def test_slices_are_drawn_beside_their_nearest_training_slice_and_by_two_versions(page: Page) -> None:
    page.goto(f"/generate?model={MODEL}/2")
    page.get_by_label("Slices", exact=True).fill("3")
    page.get_by_label("Steps").fill("2")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.locator(".beside li")).to_have_count(3)
    expect(page.locator(".beside li").first).to_contain_text("SSIM")
    photograph(page, "generate")
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
    photograph(page, "versions")
    page.get_by_label("Slices", exact=True).fill("64")
    page.get_by_label("Steps").fill("1000")
    page.get_by_role("button", name="Draw from both").click()
    expect(page.locator("[data-state]")).to_contain_text("drawing")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("[data-state]")).to_have_text("Cancelled.")


def test_a_region_is_painted_on_a_slice_and_drawn_anew(page: Page, world: World) -> None:
    page.goto(f"/generate?model={MODEL}/2")
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
    photograph(page, "edit")
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
