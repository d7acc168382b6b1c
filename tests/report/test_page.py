"""The report on disk: drawn from data alone, complete, self-contained."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from lwddpm.errors import DataError
from lwddpm.report import data as report_data
from lwddpm.report.data import Curves, Images
from lwddpm.report.drawings import drawings
from lwddpm.report.page import draw
from lwddpm.report.view import view

THEMES = ("light", "dark")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


def with_a_drift(data):
    """A training is warned of its slices' brightness."""
    first, *rest = data.report.trainings
    first = first.model_copy(update={"warnings": ("intensities: 30% of the generated slices lie outside",)})
    return data.model_copy(update={"report": data.report.model_copy(update={"trainings": (first, *rest)})})


@pytest.fixture
def drawn(build, folder):
    """Drawn once for all tests of this file."""
    if not (folder / "report.html").exists():
        data = with_a_drift(build())
        report_data.save(data, folder)
        draw(report_data.load(folder), folder)
    return folder


class Page(HTMLParser):
    """What a browser would fetch, and what a reader sees."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.ids, self.links, self.tags, self.seen = [], set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "srcset", "data", "poster", "action")]
        if tag in ("link", "base"):
            self.fetched.append(attributes.get("href"))
        self.ids |= {attributes["id"]} if "id" in attributes else set()
        self.links += [attributes["href"]] if tag == "a" else []

    def handle_data(self, data):
        self.seen.append(data)


def test_saved_data_come_back_as_they_were(build, tmp_path):
    data = build()
    report_data.save(data, tmp_path)
    back = report_data.load(tmp_path)
    assert back.report == data.report
    assert back.images.keys() == data.images.keys()
    assert all(np.array_equal(back.images[name], images) for name, images in data.images.items())
    assert all(np.allclose(back.curves[key], points) for key, points in data.curves.items())


@pytest.mark.parametrize("file", ["report.json", "images.npz", "curves.parquet"])
def test_missing_and_damaged_data_are_one_clear_error(build, tmp_path, file):
    report_data.save(build(), tmp_path)
    (tmp_path / file).write_bytes(b"{")
    with pytest.raises(DataError, match=r"damaged|format"):
        report_data.load(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(DataError, match=re.escape(file)):
        report_data.load(tmp_path)


@pytest.mark.parametrize("version", [{"schema_version": 1}, {"format": 2}])
def test_data_of_an_earlier_version_are_read_and_drawn(build, tmp_path, version):
    data = build(baseline=False)
    report_data.save(data, tmp_path)
    values = json.loads((tmp_path / "report.json").read_text())
    assert values.pop("format") == 3
    for system in values["systems"]:
        del system["start"], system["network_calls"]
    for measurement in values["measurements"]:
        del measurement["parts"]
    del values["other_starts"], values["gaussian_directions"]
    (tmp_path / "report.json").write_text(json.dumps(version | values))
    loaded = report_data.load(tmp_path)
    bare = [system.model_copy(update={"start": None, "network_calls": None}) for system in data.report.systems]
    assert loaded.report == data.report.model_copy(update={"systems": tuple(bare)})
    content = view(loaded)
    assert content["baseline"] is None
    assert content["diversity"] == []
    assert [row[0].text for row in content["table_1"].rows][3:6] == ["DDPM", "DDIM", "LW-DDPM"]


@pytest.mark.parametrize("version", [0, 4, "2", None])
def test_data_of_an_unknown_format_are_refused_with_a_remedy(build, tmp_path, version):
    report_data.save(build(), tmp_path)
    values = json.loads((tmp_path / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps(values | {"format": version}))
    with pytest.raises(DataError, match=rf"format 1 to 3, got {version}; draw it .* run the comparison compare-test"):
        report_data.load(tmp_path)


def test_every_figure_is_drawn_from_data_alone_light_dark_and_for_print(build, drawn):
    keys = {drawing.key for drawing in drawings(build())}
    assert {"noising", "recovery", "dataset", "samples", "noise", "losses", "epochs", "schedules"} <= keys
    assert {"quality", "steps", "quality_epochs", "sample_size"} <= keys
    for key in keys:
        light, dark = (np.asarray(Image.open(drawn / f"figures/{theme}/{key}.png").convert("L")) for theme in THEMES)
        assert light.shape == dark.shape
        assert light.shape[1] >= 1000, "print wants 200 dpi over a page's width"
        assert light[0, 0] > 250 > 40 > dark[0, 0]
        assert light.std() > 5
        assert (drawn / f"figures/print/{key}.pdf").read_bytes().startswith(b"%PDF")


def test_drawn_again_it_says_the_same_to_the_byte(drawn, tmp_path):
    for name in (report_data.REPORT, report_data.CURVES, report_data.IMAGES):
        (tmp_path / name).write_bytes((drawn / name).read_bytes())
    draw(report_data.load(tmp_path), tmp_path)
    assert (tmp_path / "report.md").read_bytes() == (drawn / "report.md").read_bytes()
    assert (tmp_path / "report.html").read_bytes() == (drawn / "report.html").read_bytes()


def test_the_page_fetches_nothing(drawn):
    text = (drawn / "report.html").read_text()
    page = Page(text)
    assert page.fetched
    assert all(found.startswith("data:image/png;base64,") for found in page.fetched)
    assert "script" not in page.tags
    assert "url(" not in text
    assert "@import" not in text
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))


def test_its_contents_lead_somewhere(drawn):
    page = Page((drawn / "report.html").read_text())
    assert len(page.links) >= 8
    assert {link.removeprefix("#") for link in page.links} <= page.ids


def test_a_warning_of_brightness_stands_in_the_report(drawn):
    text, page = (drawn / "report.md").read_text(), (drawn / "report.html").read_text()
    assert all("30% of the generated slices lie outside" in each for each in (text, page))


def test_names_from_outside_are_text_and_never_markup(build, tmp_path):
    data = build(name="a<script>alert(1)</script>&|", run_id='"><img src=x>', noise=())
    rows = tuple(data.report.group("system"))
    kept = Images({name: images for name, images in data.images.items() if name.startswith("class/")})
    report = data.report.model_copy(update={"measurements": rows})
    draw(data.model_copy(update={"report": report, "curves": Curves(), "images": kept}), tmp_path)
    page = Page((tmp_path / "report.html").read_text())
    assert "script" not in page.tags
    assert "x" not in page.fetched
    assert "a<script>alert(1)</script>&|" in "".join(page.seen)


def test_every_number_says_where_it_is_from(drawn):
    text = (drawn / "report.md").read_text()
    lines = text.splitlines()
    (row,) = [line for line in lines if line.startswith("| LW-DDPM |") and "_70.02_" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[3] == "_70.02_"
    assert cells[5] == "_0.913_"
    assert cells[4].startswith("**29")
    assert "†" in cells[4]
    assert "FID was not computed: no <weights>" in text
    assert "Every network was trained once" in text
    for verdict in ("supports", "cannot decide (one training)"):
        assert f"**{verdict}**" in text
