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
from lwddpm_board import reader_answers, reader_outcome, reader_setup, reader_study
from lwddpm_board.access import Access
from lwddpm_board.app import create_app
from lwddpm_board.class_reading import ClassOutcome, kappa, mean_kappa
from lwddpm_board.shares import Share
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
    run_id = reader_setup.create(stores, version, synthetic, "by hand", dataset, num=8, seed=3)
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
        reader = reader_answers.join(stores, study, name)
        order = study.order(name)
        for position in range(8):
            truth = bool(images[order[position]].min() >= 200)
            reader = reader_answers.join(stores, study, name.upper())  # as after a pause, on another machine
            assert len(reader.answers) == position
            with pytest.raises(ConfigError, match=f"the next one is {position}, got {position + 1}"):
                reader_answers.answer(stores, study, reader, position + 1, True, 1.0)
            if position == 7 and name == "Ada":  # she takes her first answer back
                reader = reader_answers.answer(stores, study, reader, 0, not reader.answers[0], 1.0)
                reader = reader_answers.answer(stores, study, reader, 0, not reader.answers[0], 1.0)
            reader = reader_answers.answer(stores, study, reader, position, truth == (position < knows), 1.5)
        assert reader.finished
        with pytest.raises(ConfigError, match="the answers stand"):
            reader_answers.answer(stores, study, reader, 0, True, 1.0)
    run = stores.client.get_run(study.run_id)
    assert run.data.metrics["reader/accuracy"] == pytest.approx(14 / 16)
    found = next(one for one in reader_outcome.judged(stores, "tiny", 1) if one.run_id == study.run_id)
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
    assert [row["right"] for row in reader_outcome.review(stores, study, ben)] == [True] * 6 + [False] * 2


def test_too_few_slices_are_refused(stores: Stores, dataset: Dataset) -> None:
    version = registry.find_version("models:/tiny/1")
    few = np.zeros((3, SIZE, SIZE), np.uint8)
    with pytest.raises(ConfigError, match="half of 8 must be synthetic, there are 3; ask for 6 at most"):
        reader_setup.create(stores, version, few, "by hand", dataset, num=8, seed=0)


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
            reader_setup.create(stores, version, slices, "by hand", dataset, num=8, seed=0)
    experiment = stores.client.get_experiment_by_name("reader-studies").experiment_id
    (left,) = stores.client.search_runs([experiment], order_by=["attributes.start_time DESC"], max_results=1)
    assert left.info.status == ("FAILED" if ended else "RUNNING")
    assert [study.run_id for study in reader_study.studies(stores)] == before
    with pytest.raises(Missing, match="set up another"):
        reader_study.find(stores, left.info.run_id)
    visitor = TestClient(create_app(stores, Access(None, frozenset({"127.0.0.1"}))), base_url="http://127.0.0.1")
    pages = ("/readers", "/registry", "/registry/tiny/1", f"/readers/{left.info.run_id}")
    assert [visitor.get(page).status_code for page in pages] == [200, 200, 200, 404]


def test_kappa_is_scikit_learns() -> None:
    from sklearn.metrics import cohen_kappa_score

    random = np.random.default_rng(0)
    said = random.integers(3, size=(3, 50))
    said[1, :30] = said[0, :30]
    pairs = [cohen_kappa_score(said[i], said[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert kappa(said[0], said[1], 3) == pytest.approx(pairs[0])
    assert mean_kappa(said, 3) == pytest.approx(np.mean(pairs))
    assert mean_kappa(said[:1], 3) is None
    assert kappa(np.zeros(5, int), np.zeros(5, int), 3) is None  # who always says the same says nothing


def test_real_and_synthetic_slices_are_judged_apart() -> None:
    truth, synthetic = np.array([0, 1, 2, 0, 1, 2]), np.array([False] * 3 + [True] * 3)
    said = np.array([[0, 1, 2, 1, 1, 1], [0, 1, 2, 0, 0, 1]])
    found = ClassOutcome.of(said, truth, synthetic, ("a", "b", "c"))
    assert (found.real.right.right, found.real.right.of) == (6, 6)
    assert (found.synthetic.right.right, found.synthetic.right.of) == (2, 6)
    assert found.real.confusion.tolist() == [[2, 0, 0], [0, 2, 0], [0, 0, 2]]
    assert found.synthetic.confusion.tolist() == [[1, 1, 0], [1, 1, 0], [0, 2, 0]]
    assert found.real.kappa == 1
    assert found.synthetic.kappa is not None
    assert found.synthetic.kappa < 0.5
    assert found.metrics()["reader/right_class_synthetic"] == pytest.approx(2 / 6)


def test_a_study_of_classes_is_balanced_answered_and_shown(
    stores: Stores, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The synthetic slices are told by their grey value, and their class by what they were asked for."""
    from lwddpm.tracking.attachments import finished_readers

    version = registry.find_version("models:/tiny/1")
    split = max(("test", "validation"), key=dataset.num)
    names = sorted({dataset.label_names[code] for code in dataset.labels(split)})[:2]
    asked = [names[index % 2] for index in range(10)]
    synthetic = np.stack([np.full((SIZE, SIZE), 200 + index, np.uint8) for index in range(10)])
    before = finished_readers(version)

    def create(**changed: object) -> str:
        settings = {"num": 8, "seed": 3, "question": "class", "asked": asked} | changed
        return reader_setup.create(stores, version, synthetic, "by hand", dataset, **settings)  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match=r"question: class takes 2 to 9 classes .* got 0; take a model with"):
        create(asked=None)
    with pytest.raises(ConfigError, match="must be synthetic ones of"):
        create(asked=[names[0]] * 9 + names[1:])
    study = reader_study.find(stores, create())
    assert study.classes == tuple(names)
    reader = reader_answers.join(stores, study, "Ada")
    key = reader_study.key(stores, study.run_id)
    assert sorted((entry["synthetic"], entry["class"]) for entry in key) == sorted(
        (kind, name) for kind in (False, True) for name in names for _ in range(2)
    )
    visitor = TestClient(create_app(stores, Access(None, frozenset({"127.0.0.1"}))), base_url="http://127.0.0.1")
    reading = visitor.get(f"/readers/{study.run_id}/{reader.run_id}").text
    assert "Which class?" in reading
    assert all(name.replace("_", " ") in reading for name in names)
    with pytest.raises(ConfigError, match="said: must be from 0 to 1, got 2"):
        reader_answers.answer(stores, study, reader, 0, 2, 1.0)
    for position, item in enumerate(study.order("Ada")):
        right = names.index(key[item]["class"])
        said = 0 if key[item]["synthetic"] else right  # takes all synthetic ones for the first class
        body = {"position": position, "said": said, "seconds": 1.0}
        address = f"/api/readers/{study.run_id}/{reader.run_id}"
        assert visitor.post(address, json=body, headers={"origin": "http://127.0.0.1"}).status_code == 200
    metrics = stores.client.get_run(study.run_id).data.metrics
    assert (metrics["reader/right_class_real"], metrics["reader/right_class_synthetic"]) == (1.0, 0.5)
    assert finished_readers(version) == before  # the gate asks whether slices pass for real ones
    for page in (f"/readers/{study.run_id}", f"/readers/{study.run_id}/{reader.run_id}", "/readers"):
        assert "class" in visitor.get(page).text
    shown = visitor.get(f"/readers/{study.run_id}").text
    assert "100% (" in shown
    assert "50% (" in shown
