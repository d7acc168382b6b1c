"""An evaluation on the board: groups of metrics, warnings, classes; of a run, of a version, of two."""

import json
from pathlib import Path
from typing import get_args

from playwright.sync_api import Page, expect

from lwddpm.config import Metric
from lwddpm.tracking import registry
from lwddpm.tracking.store import connect
from lwddpm_board.pages import METRIC_GROUPS

from .browser import BROKEN, IN_BROWSER, WIDTHS, photograph, tile
from .world import MODEL, World

pytestmark = IN_BROWSER


def test_an_evaluation_is_told_in_groups_with_its_warnings_and_by_class(page: Page, world: World) -> None:
    connect(world.tracking)
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
    assert tile(page, "out_of_band").split() == ["0.3125", "floor", "0.0321"]
    photograph(page, "drifting-run")
    page.goto("/runs")
    expect(page.get_by_role("row", name="drifting").get_by_text("warning")).to_be_visible()
    page.goto(f"/registry/compare?version={MODEL}/1&version=drifting/1")
    expect(page.locator(".alert")).to_contain_text(["version 1 of drifting: intensities: 30%"])
    scored = page.locator("section", has=page.get_by_role("heading", name="What they scored"))
    shown = scored.locator("tr", has_text="out_of_band").locator("td").last.inner_text()
    assert " ".join(shown.split()) == "0.3125 (0.2345 to 0.4041) floor 0.0321, n = 128"
    photograph(page, "drifting-versions")
    for address in (f"/registry/compare?version={MODEL}/1&version=drifting/1", f"/runs/{run.run_id}"):
        page.goto(address)
        for width, height in WIDTHS.items():
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_timeout(60)  # the layout follows in the next frame
            assert page.evaluate(BROKEN) == [], f"{address} at {width} px"


def test_every_metric_stands_in_one_group() -> None:
    names = [name for names in METRIC_GROUPS.values() for name in names]
    assert sorted(names) == sorted(get_args(Metric))
