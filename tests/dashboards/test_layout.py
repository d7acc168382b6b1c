"""What holds for all pages: the keyboard reaches everything, and long values are shown whole."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from lwddpm.tracking import registry
from lwddpm.tracking.store import connect

from .browser import IN_BROWSER, WIDTHS, photograph
from .world import MODEL, STUDY, World

pytestmark = IN_BROWSER


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


def test_long_values_are_shown_whole(page: Page, world: World) -> None:
    """In text that wraps, not in boxes that scroll sideways, and no row of tiles with an empty end."""
    connect(world.tracking)
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
    photograph(page, "long-version")
    page.goto("/registry")
    photograph(page, "long-registry")
    page.goto(f"/runs/{run_id}")
    photograph(page, "long-run")
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
