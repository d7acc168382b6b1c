"""A trade-off on disk: whatever was measured can be drawn, and is told."""

import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Annotation

from lwddpm.evaluation.figure_style import LIGHT, THEMES
from lwddpm.evaluation.tradeoff import DISTANCE, METRICS, PRECISION, RECALL, Tradeoff, Way
from lwddpm.report.tradeoff import FIGURES, draw, write


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


@pytest.mark.parametrize("key", FIGURES)
def test_the_recommended_ways_are_named_where_they_are_and_no_name_covers_another(key: str) -> None:
    measured = _measured(8)
    figure = draw(measured, key, LIGHT)
    (axes,) = figure.axes
    named = [text for text in axes.texts if isinstance(text, Annotation)]
    across, up, _ = FIGURES[key]
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
        assert {path.stem for path in (tmp_path / "t" / "figures" / theme.name).iterdir()} == set(FIGURES)
    assert "<b>&" not in page.replace("<b>realistic", "").replace("<b>balanced", "").replace("<b>diverse", "")
    assert ("None: every way returns copies" in page) == (not measured.recommended)
    with (tmp_path / "t" / "tradeoff.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(measured.ways) + 1
    for row, way in zip(rows, measured.ways, strict=False):
        assert float(row[PRECISION]) == pytest.approx(way.mean(PRECISION), rel=1e-5)
        assert float(row[f"{RECALL}_sd"]) == pytest.approx(np.std(way.values[RECALL], ddof=1), rel=1e-4)
        assert row["copies"] == str(way.copies)
