"""A report of systems that are told the class: a table with floors, a grid of slices, what comes out as what."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lwddpm.evaluation.copying import COPIED_SHARE
from lwddpm.evaluation.figure_style import LIGHT, render
from lwddpm.evaluation.result import Confusion
from lwddpm.report import by_class, diversity_tables
from lwddpm.report import data as report_data
from lwddpm.report.data import Images, Measurement, ReportData
from lwddpm.report.drawings import drawings
from lwddpm.report.view import view

CLASSES = ("glioma_tumor", "no_tumor")
ABOUT = {"gan": 0.5, "wgan": 0.6, "lsgan": 0.55, "ddpm": 0.7, "ddim": 0.7, "lw_ddpm": 0.9}
Build = Callable[..., ReportData]


def _told(measured: Measurement) -> Measurement:
    """A measurement as of a system that is told the class; obedience as in ABOUT, and a little by seed."""
    if measured.group != "system":
        return measured
    share = ABOUT[measured.system] + 0.01 * measured.sampling_seed
    return measured.model_copy(
        update={
            "values": measured.values
            | {"obedience_lite0": share, "fd_lite0_in_class": 100 * (1 - share)}
            | {"utility_lite0": share / 2, COPIED_SHARE: 0.04},
            "floors": measured.floors
            | {"obedience_lite0": 0.95, "fd_lite0_in_class": 44.5, "utility_lite0": 0.6, COPIED_SHARE: 0.03},
            "parts": measured.parts
            | {"obedience_lite0": dict(zip(CLASSES, (share, share), strict=True))}
            | {"fd_lite0_in_class": dict(zip(CLASSES, (91.5, 8.5), strict=True))}
            | {"utility_lite0": dict(zip(CLASSES, (share, 0.0), strict=True))},
            "confusion": Confusion(
                classes=CLASSES,
                generated=((share, 1 - share), (1 - share, share)),
                real=((0.95, 0.05), (0.05, 0.95)),
            ),
        }
    )


@pytest.fixture
def conditional(build: Build) -> ReportData:
    data = build()
    slices = {f"asked/{name}/{label}": data.images["real"][:4] for name in ABOUT for label in CLASSES}
    slices |= {f"class/{label}": data.images["real"][:8] for label in CLASSES}
    slices["asked/gan/no_tumor"] = data.images["real"][:1]  # a class of which few were drawn
    kept = {name: images for name, images in data.images.items() if not name.startswith("class/")}
    measurements = tuple(map(_told, data.report.measurements))
    report = data.report.model_copy(update={"measurements": measurements})
    return data.model_copy(update={"report": report, "images": Images(kept | slices)})


def test_obedience_stands_beside_its_floor_and_names_the_best(conditional: ReportData) -> None:
    table = diversity_tables.conditional(conditional.report)
    assert table is not None
    assert table.head == ("system", "obedience", "FD within classes", "utility", "copied share")
    cells = {row[0].text: row[1:] for row in table.rows}
    assert [cell.text for cell in cells["real held-out slices"]] == ["0.95", "44.5", "0.60", "0.03"]
    best = next(name for name, row in cells.items() if row[0].strong)
    assert best.startswith("LW-DDPM")
    assert cells[best][0].text.startswith("0.91 ± 0.02")
    assert not any("Gaussian" in name for name in cells)  # which is told no class
    titles = [shown.title for shown in view(conditional)["diversity"]]
    by_class = ["Obedience by class", "FD by class", "Sensitivity by class"]
    assert {"The class that was asked for", *by_class} <= set(titles)


def test_utility_is_better_where_it_is_higher_and_stands_beside_the_copied_share(conditional: ReportData) -> None:
    table = diversity_tables.conditional(conditional.report)
    assert table is not None
    assert "Utility (more is better)" in table.notes[0]
    assert "FD within classes (less is better)" in table.notes[0]
    best = {row[0].text for row in table.rows if row[3].strong}
    assert {name.split(",")[0] for name in best} == {"LW-DDPM"}
    assert {row[4].text for row in table.rows[:-1]} == {"0.04 ± 0.00"}
    without = [m.model_copy(update={"values": {k: v for k, v in m.values.items() if k != "utility_lite0"}}) for m in
               conditional.report.measurements]  # fmt: skip
    table = diversity_tables.conditional(conditional.report.model_copy(update={"measurements": tuple(without)}))
    assert table is not None
    assert table.head == ("system", "obedience", "FD within classes")
    assert "utility" not in table.notes[0].lower()


def test_copies_are_best_in_no_measure_of_classes(conditional: ReportData) -> None:
    """A model that returns training slices teaches well."""
    copied = {COPIED_SHARE: 0.9, "utility_lite0": 0.99, "fd_lite0_in_class": 1.0}
    changed = tuple(
        m.model_copy(update={"values": m.values | copied}) if (m.group, m.system) == ("system", "gan") else m
        for m in conditional.report.measurements
    )
    table = diversity_tables.conditional(conditional.report.model_copy(update={"measurements": changed}))
    assert table is not None
    (row,) = [row for row in table.rows if row[0].text.startswith("GAN")]
    assert "returns training slices" in row[0].text
    assert not any(cell.strong for cell in row)


def test_figures_by_class_are_drawn_and_kept(conditional: ReportData, tmp_path: Path) -> None:
    shown = {drawing.key: drawing for drawing in drawings(conditional)}
    matrices = shown["confusion"].draw(LIGHT)
    panels = [axes for axes in matrices.axes if axes.get_visible()]
    assert len(panels) == len(ABOUT) + 1
    of_gan = by_class.confusions(conditional)["GAN"]
    np.testing.assert_allclose(of_gan, np.array([[0.51, 0.49], [0.49, 0.51]]), atol=1e-9)  # the mean of three seeds
    np.testing.assert_array_equal(panels[-1].images[0].get_array(), [[0.95, 0.05], [0.05, 0.95]])
    (axes,) = shown["asked"].draw(LIGHT).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["glioma\ntumor", "no\ntumor"]
    assert len(axes.get_yticks()) == len(ABOUT) + 1
    assert render(shown["asked"].draw, LIGHT)
    report_data.save(conditional, tmp_path)
    assert report_data.load(tmp_path).report == conditional.report


def test_a_comparison_without_classes_has_none_of_it(build: Build) -> None:
    data = build()
    assert diversity_tables.conditional(data.report) is None
    assert not {"asked", "confusion"} & {drawing.key for drawing in drawings(data)}
    assert "confusion" not in data.report.measurements[0].model_dump()
