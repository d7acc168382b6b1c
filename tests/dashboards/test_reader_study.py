"""Reader studies against a real MLflow: what is kept, in which order, and what comes out."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta
from starlette.testclient import TestClient

from lwddpm.data.store import Dataset, open_dataset
from lwddpm.errors import ConfigError
from lwddpm.tracking import registry
from lwddpm.tracking.store import connect
from lwddpm_board import reader_study
from lwddpm_board.access import Access
from lwddpm_board.app import create_app
from lwddpm_board.reader_study import Share
from lwddpm_board.stores import Missing, Stores

from .world import SIZE, World

pytestmark = pytest.mark.timeout(600)  # the world that it reads is trained first


@pytest.mark.parametrize(("right", "of"), [(0, 8), (8, 8), (13, 20), (1, 3)])
def test_the_interval_is_that_of_clopper_and_pearson(right: int, of: int) -> None:
    low, high = Share(right, of).interval
    assert low == pytest.approx(beta.ppf(0.025, right, of - right + 1) if right else 0)
    assert high == pytest.approx(beta.ppf(0.975, right + 1, of - right) if right < of else 1)


def test_readers_who_answer_alike_are_as_good_as_one() -> None:
    right = np.random.default_rng(0).random(40) < 0.7
    for readers in (1, 2, 5):
        pooled = Share.of_slices(np.tile(right, (readers, 1)))
        assert pooled.interval == pytest.approx(Share(int(right.sum()), 40).interval)


@pytest.mark.parametrize("alike", [0.0, 0.3, 0.9])
def test_the_interval_of_several_readers_covers_the_truth_as_often_as_it_says(alike: float) -> None:
    """Some slices are hard for everybody: chances to be right are 0.7 on average, and more or less so by slice."""
    random = np.random.default_rng(1)
    covered, taken_as_independent = [], []
    for _ in range(1000):
        easy = random.random(40) < 0.7
        chance = (1 - alike) * 0.7 + alike * easy
        pooled = Share.of_slices(random.random((4, 40)) < chance)
        for coverage, share in ((covered, pooled), (taken_as_independent, Share(pooled.right, pooled.of))):
            low, high = share.interval
            coverage.append(low <= 0.7 <= high)
    assert np.mean(covered) > 0.94
    if alike == 0.9:
        assert np.mean(taken_as_independent) < 0.8


@pytest.fixture
def stores(world: World, tmp_path: Path) -> Stores:
    connect(world.tracking)
    return Stores(world.tracking, world.storage, (), tmp_path)


@pytest.fixture
def dataset(world: World) -> Dataset:
    return open_dataset(str(world.folder / "dataset"))


@pytest.fixture
def study(stores: Stores, dataset: Dataset) -> reader_study.Study:
    """Eight slices; the synthetic ones are told by their grey value, 200 and more."""
    synthetic = np.stack([np.full((SIZE, SIZE), 200 + index, np.uint8) for index in range(10)])
    version = registry.find_version("models:/tiny/1")
    run_id = reader_study.create(stores, version, synthetic, "by hand", dataset, num=8, seed=3)
    return reader_study.find(stores, run_id)


def test_it_is_balanced_shuffled_and_made_of_held_out_slices(
    stores: Stores, study: reader_study.Study, dataset: Dataset
) -> None:
    images = reader_study.images(stores, study)
    is_synthetic = [bool((image == image[0, 0]).all() and image[0, 0] >= 200) for image in images]
    assert sum(is_synthetic) == 4
    assert is_synthetic != sorted(is_synthetic)
    larger = max(("test", "validation"), key=dataset.num)
    held_out = {image.tobytes() for image in dataset.images(larger)}
    real = [image for image, synthetic in zip(images, is_synthetic, strict=True) if not synthetic]
    assert {image.tobytes() for image in real} <= held_out
    assert len({image.tobytes() for image in images}) == 8
    orders = {tuple(study.order(name)) for name in ("Ada", "Ben", "ada")}
    assert len(orders) == 2  # each reader's own; the name's spelling does not matter
    assert all(sorted(order) == list(range(8)) for order in orders)


def test_answers_are_kept_corrected_and_counted(stores: Stores, study: reader_study.Study) -> None:
    images = reader_study.images(stores, study)
    for name, knows in (("Ada", 8), ("Ben", 6)):
        reader = reader_study.join(stores, study, name)
        order = study.order(name)
        for position in range(8):
            truth = bool(images[order[position]].min() >= 200)
            reader = reader_study.join(stores, study, name.upper())  # as after a pause, on another machine
            assert len(reader.answers) == position
            with pytest.raises(ConfigError, match=f"the next one is {position}, got {position + 1}"):
                reader_study.answer(stores, study, reader, position + 1, True, 1.0)
            if position == 7 and name == "Ada":  # she takes her first answer back
                reader = reader_study.answer(stores, study, reader, 0, not reader.answers[0], 1.0)
                reader = reader_study.answer(stores, study, reader, 0, not reader.answers[0], 1.0)
            reader = reader_study.answer(stores, study, reader, position, truth == (position < knows), 1.5)
        assert reader.finished
        with pytest.raises(ConfigError, match="the answers stand"):
            reader_study.answer(stores, study, reader, 0, True, 1.0)
    run = stores.client.get_run(study.run_id)
    assert run.data.metrics["reader/accuracy"] == pytest.approx(14 / 16)
    found = next(one for one in reader_study.judged(stores, "tiny", 1) if one.run_id == study.run_id)
    assert (found.finished, found.begun) == (2, 2)
    assert found.pooled is not None
    assert (found.pooled.right, found.pooled.of) == (14, 16)
    assert Share(7, 8).interval[0] <= found.pooled.interval[0] < Share(14, 16).interval[0]  # of eight slices, not 16
    low, high = found.pooled.interval
    assert (run.data.metrics["reader/accuracy_low"], run.data.metrics["reader/accuracy_high"]) == (low, high)
    assert run.data.tags["lwddpm.model"] == "tiny"
    assert run.data.tags["lwddpm.model_version"] == "1"
    ben = next(one for one in reader_study.readers(stores, study) if one.name == "Ben")
    assert stores.client.get_run(ben.run_id).data.metrics["reader/accuracy"] == pytest.approx(6 / 8)
    assert [row["right"] for row in reader_study.review(stores, study, ben)] == [True] * 6 + [False] * 2


def test_too_few_slices_are_refused(stores: Stores, dataset: Dataset) -> None:
    version = registry.find_version("models:/tiny/1")
    few = np.zeros((3, SIZE, SIZE), np.uint8)
    with pytest.raises(ConfigError, match="half of 8 must be synthetic, there are 3; ask for 6 at most"):
        reader_study.create(stores, version, few, "by hand", dataset, num=8, seed=0)


@pytest.mark.parametrize("ended", [False, True])
def test_a_study_whose_setting_up_was_interrupted_is_none(
    ended: bool, stores: Stores, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, slices = registry.find_version("models:/tiny/1"), np.zeros((4, SIZE, SIZE), np.uint8)
    before = [study.run_id for study in reader_study.studies(stores)]

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stores.client, "log_batch", interrupted)  # the first thing after the run itself
        if not ended:  # as after a kill
            patch.setattr(stores.client, "set_terminated", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            reader_study.create(stores, version, slices, "by hand", dataset, num=8, seed=0)
    experiment = stores.client.get_experiment_by_name("reader-studies").experiment_id
    (left,) = stores.client.search_runs([experiment], order_by=["attributes.start_time DESC"], max_results=1)
    assert left.info.status == ("FAILED" if ended else "RUNNING")
    assert [study.run_id for study in reader_study.studies(stores)] == before
    with pytest.raises(Missing, match="set up another"):
        reader_study.find(stores, left.info.run_id)
    visitor = TestClient(create_app(stores, Access(None, frozenset({"127.0.0.1"}))), base_url="http://127.0.0.1")
    pages = ("/readers", "/registry", "/registry/tiny/1", f"/readers/{left.info.run_id}")
    assert [visitor.get(page).status_code for page in pages] == [200, 200, 200, 404]
