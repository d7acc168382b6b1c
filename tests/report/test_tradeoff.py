"""A trade-off on disk: whatever was measured can be drawn, and is told."""

import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Annotation

from lwddpm.evaluation.copying import COPIED_SHARE
from lwddpm.evaluation.figure_style import LIGHT, THEMES
from lwddpm.evaluation.tradeoff import DISTANCE, METRICS, OBEDIENCE, PRECISION, RECALL, Tradeoff, Way
from lwddpm.report.tradeoff import draw, drawings, write
from lwddpm.report.tradeoff_along import curves
from lwddpm.report.tradeoff_style import PLANES


def _measured(num: int, *, nearest: float = 25.0, label: str = "way") -> Tradeoff:
    rng = np.random.default_rng(0)
    ways = tuple(
        Way(
            label=f"{label} {index}",
            varied="guidance" if index else "preset",
            sampling={},
            words="ddim, 5 steps",
            weights="model" if index < 6 else "snapshots/epoch_4",
            network_calls=(5, 10, 20)[index % 3],
            values={name: tuple(rng.uniform(0.2, 0.8, 2) * (100 if name == DISTANCE else 1)) for name in METRICS},
            nearest=(nearest, nearest),
            copies=nearest < 20,
        )
        for index in range(num)
    )
    return Tradeoff(
        model_uri="models:/m/1", dataset_version="v" * 16, simulated=True, image_size=16, n=9, num_reference=20,
        sampling_seeds=(0, 1), floors=dict.fromkeys(METRICS, 0.9), nearest_floor=20.0, ways=ways,
    )  # fmt: skip


@pytest.mark.parametrize("key", PLANES)
def test_the_recommended_ways_are_named_where_they_are_and_no_name_covers_another(key: str) -> None:
    measured = _measured(8)
    figure = draw(measured, key, LIGHT)
    (axes,) = figure.axes
    named = [text for text in axes.texts if isinstance(text, Annotation)]
    across, up, _ = PLANES[key]
    ways = {way.label: way for way in measured.ways}
    wanted = {aim: ways[chosen.label] for aim, chosen in measured.recommended.items()}
    assert sorted(aim for text in named for aim in text.get_text().split(" + ")) == sorted(wanted)
    for text in named:
        way = wanted[text.get_text().split(" + ")[0]]  # type: ignore[index]
        assert text.xy[1] == way.mean(up)
        assert text.xy[0] == (way.network_calls if across == "network_calls" else way.mean(across))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in named]
    inside = axes.get_window_extent()
    for index, box in enumerate(boxes):
        assert inside.x0 <= box.x0 <= box.x1 <= inside.x1
        assert not any(box.overlaps(other) for other in boxes[:index])


@pytest.mark.parametrize("measured", [_measured(2), _measured(7, nearest=3.0), _measured(9, label="<b>&")])
def test_few_copies_and_strange_names_are_drawn_and_told(measured: Tradeoff, tmp_path: Path) -> None:
    page = write(measured, tmp_path / "t").read_text()
    for theme in THEMES:
        assert {path.stem for path in (tmp_path / "t" / "figures" / theme.name).iterdir()} == set(PLANES)
    assert "<b>&" not in page.replace("<b>realistic", "").replace("<b>balanced", "").replace("<b>diverse", "")
    assert ("None: every way returns copies" in page) == (not measured.recommended)
    with (tmp_path / "t" / "tradeoff.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(measured.ways) + 1
    for row, way in zip(rows, measured.ways, strict=False):
        assert float(row[PRECISION]) == pytest.approx(way.mean(PRECISION), rel=1e-5)
        assert float(row[f"{RECALL}_sd"]) == pytest.approx(np.std(way.values[RECALL], ddof=1), rel=1e-4)
        assert row["copies"] == str(way.copies)


def _conditional() -> Tradeoff:
    """Guidance from two sources, and unguided, of a model that is told one of three classes."""
    classes = {"glioma_tumor": 12, "no_tumor": 11, "a_class_of_a_long_name": 14}
    rng = np.random.default_rng(0)
    names = (*METRICS, OBEDIENCE, COPIED_SHARE)

    def values() -> dict[str, tuple[float, ...]]:
        return {name: tuple(rng.uniform(0.2, 0.8, 2) * (100 if name == DISTANCE else 1)) for name in names}

    asked = [(1.0, "guide"), (2.0, "guide"), (3.0, "guide"), (2.0, "unconditional"), (3.0, "unconditional")]
    ways = tuple(
        Way(
            label=f"guidance {weight:g} {source}",
            varied="preset" if index == 1 else "guidance" if source == "guide" else "guidance_unconditional",
            sampling={"sampler": "ddim", "num_inference_steps": 5, "guidance_from": source}
            | ({} if weight == 1 else {"guidance": weight}),
            words="", weights="model", network_calls=5 if weight == 1 else 10, values=values(), nearest=(25.0, 25.0),
            copies=False, by_class={name: values() for name in classes},
        )
        for index, (weight, source) in enumerate(asked)
    )  # fmt: skip
    measured = _measured(2)
    floors = dict.fromkeys(names, 0.9)
    return measured.model_copy(
        update={"ways": ways, "class_n": classes, "class_floors": dict.fromkeys(classes, floors), "floors": floors}
    )


def test_curves_along_guidance_begin_unguided_and_keep_sources_apart() -> None:
    found = curves(_conditional(), "guidance")
    assert [(curve.label, [x for x, _ in curve.points]) for curve in found] == [
        ("away from the guide", [1.0, 2.0, 3.0]),
        ("away from no class", [1.0, 2.0, 3.0]),
    ]
    assert found[0].points[0][1] is found[1].points[0][1]
    assert curves(_conditional(), "num_inference_steps") == []  # one value alone is no curve


def test_guidance_of_the_conditions_has_a_curve_of_its_own_that_begins_at_the_preset() -> None:
    measured = _conditional()
    preset = measured.ways[1]
    further = tuple(
        preset.model_copy(update={
            "label": f"of the conditions {weight}", "varied": "condition_guidance",
            "sampling": preset.sampling | {"condition_guidance": weight},
        })
        for weight in (3.0, 5.0)
    )  # fmt: skip
    measured = measured.model_copy(update={"ways": (preset, *measured.ways[:1], *measured.ways[2:], *further)})
    (curve,) = curves(measured, "condition_guidance")
    assert [(x, way.label) for x, way in curve.points] == [
        (1.0, preset.label), (3.0, "of the conditions 3.0"), (5.0, "of the conditions 5.0"),
    ]  # fmt: skip
    assert all(way.varied != "condition_guidance" for each in curves(measured, "guidance") for _, way in each.points)
    assert curves(_conditional(), "condition_guidance") == []


@pytest.mark.parametrize("key", ["along_guidance", *(f"classes_{key}" for key in PLANES)])
def test_each_class_has_a_panel_on_the_scale_of_all(key: str) -> None:
    measured = _conditional()
    figure = {drawn.key: drawn for drawn in drawings(measured)}[key].draw(LIGHT)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    rows = len(measured.classes) + 1
    assert len(panels) == (5 * rows if key == "along_guidance" else len(measured.classes))
    for column in range(5) if key == "along_guidance" else [slice(None)]:
        of_one = panels[column::5] if isinstance(column, int) else panels
        assert len({axes.get_ylim() for axes in of_one}) == 1
        low, high = of_one[0].get_ylim()
        drawn = np.concatenate([line.get_ydata() for axes in of_one for line in axes.lines]).astype(float)
        assert low <= np.nanmin(drawn) <= np.nanmax(drawn) <= high
    if key == "classes_precision_recall":
        way = measured.ways[0]
        places = [tuple(line.get_xydata()[0]) for line in panels[1].lines if len(line.get_xydata()) == 1]
        assert (way.mean(RECALL, "no_tumor"), way.mean(PRECISION, "no_tumor")) in places


def test_figures_by_class_are_on_the_page_and_in_a_table(tmp_path: Path) -> None:
    measured = _conditional()
    page = write(measured, tmp_path / "t").read_text()
    assert page.count("<details>") == 3
    with (tmp_path / "t" / "tradeoff_by_class.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 * (len(measured.ways) + 1)
    row = next(row for row in rows if (row["class"], row["way"]) == ("no_tumor", "guidance 3 guide"))
    assert float(row[OBEDIENCE]) == pytest.approx(measured.ways[2].mean(OBEDIENCE, "no_tumor"), rel=1e-5)
    assert row["n"] == "11"
    assert Tradeoff.model_validate(measured.model_dump(mode="json", exclude={"recommended"})) == measured
    write(_measured(2), tmp_path / "t")
    assert not (tmp_path / "t" / "tradeoff_by_class.csv").exists()  # of the model before
