"""Whether classes are obeyed: against drawings whose class is known, and against scikit-learn's own classifier."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from lwddpm.config import EvaluationConfig
from lwddpm.data.store import Dataset
from lwddpm.evaluation import obedience as module
from lwddpm.evaluation.class_figure import confusion_matrices
from lwddpm.evaluation.inputs import MetricInputs
from lwddpm.evaluation.linear import STRENGTH
from lwddpm.evaluation.obedience import Judges
from lwddpm.evaluation.protocol import evaluate, evaluate_classes
from lwddpm.evaluation.result import MetricRecord

CONFIG = EvaluationConfig(metrics=("ssim_pairs",), num_samples=12)


@pytest.fixture
def extract(tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, np.ndarray], torch.Tensor]:
    """Features that tell the class of every real slice, and nothing else of it."""
    known = {
        image.tobytes(): label
        for split in ("train", "validation", "test")
        for image, label in zip(tiny_dataset.images(split), tiny_dataset.labels(split), strict=True)
    }
    # no file of these features stays beside the real ones
    monkeypatch.setattr(module, "cached", lambda path, make, **how: make())
    monkeypatch.setattr("lwddpm.evaluation.inputs.cached", lambda path, make, **how: make())

    def features(name: str, images: np.ndarray) -> torch.Tensor:
        assert name == "fd_lite0"
        rng = np.random.default_rng(0)
        rows = [np.eye(8)[known[image.tobytes()]] + 0.05 * rng.standard_normal(8) for image in images]
        return torch.tensor(np.array(rows), dtype=torch.float32)

    return features


def _drawings(dataset: Dataset, codes: list[int]) -> np.ndarray:
    """Real slices of some classes, as if they were drawn."""
    labels, images = dataset.labels("train"), dataset.images("train")
    return np.stack([images[np.flatnonzero(labels == code)[0]] for code in codes])


def test_obedience_is_the_share_that_comes_out_as_asked(
    tiny_dataset: Dataset, extract: Callable[[str, np.ndarray], torch.Tensor]
) -> None:
    names, codes = tiny_dataset.label_names, [0, 1, 2, 3] * 3
    asked: list[str | None] = [names[code] for code in codes]
    asked[1], asked[2], asked[3] = names[0], None, names[0]  # two are not what they were asked for, one was for none
    config = CONFIG.model_copy(update={"num_samples": 12})
    result = evaluate(_drawings(tiny_dataset, codes), tiny_dataset, config, extract=extract, asked=asked)
    record = {record.name: record for record in result.records}["obedience_lite0"]
    assert (record.n, record.value) == (11, pytest.approx(9 / 11))
    assert record.floor == pytest.approx(1)
    assert record.parts[names[0]] == pytest.approx(3 / 5)
    assert record.parts[names[2]] == 1
    assert record.floor_parts == pytest.approx(dict.fromkeys(names, 1))
    assert result.metrics()["eval/obedience_lite0_floor"] == pytest.approx(1)
    assert result.confusion is not None
    assert result.confusion.generated[0] == pytest.approx((0.6, 0.2, 0, 0.2))
    assert np.array(result.confusion.real) == pytest.approx(np.eye(4))
    assert confusion_matrices(result.confusion).axes[0].get_title() == "synthetic"
    assert "| class | obedience_lite0" in result.table()


def test_nothing_is_said_where_no_class_was_asked_for(
    tiny_dataset: Dataset, extract: Callable[[str, np.ndarray], torch.Tensor]
) -> None:
    drawn = _drawings(tiny_dataset, [0, 1] * 6)
    for asked in (None, [None] * 12):
        result = evaluate(drawn, tiny_dataset, CONFIG, extract=extract, asked=asked)
        assert [record.name for record in result.records] == ["ssim_pairs"]
        assert result.confusion is None


@pytest.mark.parametrize("num_classes", [2, 3])
def test_judges_are_logistic_regression_on_folds_that_no_group_straddles(num_classes: int) -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(num_classes, size=200)
    features = torch.tensor(rng.standard_normal((200, 6)) * 3 + 5 + 2 * classes[:, None] * [1, 0, -1, 0, 0, 0])
    groups = np.arange(200) // 4
    judges = Judges.of(features, classes, groups)
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(features.numpy(), classes, groups)
    for number, (seen, unseen) in enumerate(folds):
        assert not set(groups[seen]) & set(groups[unseen])
        mean, spread = features[seen].mean(0), features[seen].numpy().std(0)
        scaled = ((features - mean) / torch.from_numpy(spread)).numpy()
        expected = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=200).fit(
            scaled[seen], classes[seen]
        )
        agreement = (judges.judge(features)[number] == expected.predict(scaled)).mean()
        assert agreement > 0.98
        np.testing.assert_array_equal(judges.predicted[unseen], judges.judge(features)[number][unseen])


def test_a_class_drawn_as_another_is_far_from_its_own_slices(tiny_dataset: Dataset, monkeypatch) -> None:
    """Slices of the right class are nearer within the class than those of a wrong one, at equal n."""
    monkeypatch.setattr(module, "cached", lambda path, make, **how: make())
    monkeypatch.setattr("lwddpm.evaluation.inputs.cached", lambda path, make, **how: make())
    monkeypatch.setattr(module, "FEWEST", 2)
    labels, images = tiny_dataset.labels("train"), tiny_dataset.images("train")
    rows = np.concatenate([np.flatnonzero(labels == code)[:3] for code in range(4)])
    names = tiny_dataset.label_names

    def features(name: str, given: np.ndarray) -> torch.Tensor:
        return torch.tensor(given.reshape(len(given), -1)[:, ::16] / 255.0, dtype=torch.float32)

    def within(asked: list[str | None]) -> float:
        result = evaluate(images[rows], tiny_dataset, CONFIG, extract=features, asked=asked)
        return {record.name: record.value for record in result.records}["fd_lite0_in_class"]

    right: list[str | None] = [names[label] for label in labels[rows]]
    assert within(right) < within(right[3:] + right[:3])


def test_the_distance_within_classes_has_the_interval_of_a_mean_of_distances(
    tiny_dataset: Dataset, monkeypatch
) -> None:
    """Of classes with 40 drawings or more; its width is that of the spread among other draws of the same slices."""
    monkeypatch.setattr(module, "cached", lambda path, make, **how: make())
    monkeypatch.setattr("lwddpm.evaluation.inputs.cached", lambda path, make, **how: make())
    names = tiny_dataset.label_names[:2]
    rng = np.random.default_rng(0)
    train = [torch.from_numpy(rng.normal(code, 1, (300, 12))) for code in range(2)]

    def measured(num: int) -> MetricRecord:
        slices = [
            module.OfClass(train[code], torch.from_numpy(rng.normal(code, 1.2, (num, 12))), train[code][:num], rows)
            for code, rows in enumerate((np.arange(num), np.arange(num)))
        ]
        monkeypatch.setattr(module, "by_class", lambda *given: zip(names, slices, strict=True))
        inputs = MetricInputs(np.zeros((2 * num, 16, 16), np.uint8), None, tiny_dataset, CONFIG, lambda *given: None)
        (record,) = module._in_class(inputs, np.repeat([0, 1], num))
        return record

    records = [measured(60) for _ in range(100)]
    intervals = [record.interval for record in records if record.interval is not None]
    true = np.mean([record.value for record in records])
    assert len(intervals) == 100
    assert 0.88 <= np.mean([low <= true <= high for low, high in intervals]) <= 1
    spread = np.std([record.value for record in records])
    assert 0.7 <= np.mean([(high - low) / (2 * 1.96) for low, high in intervals]) / spread <= 1.4
    assert measured(39).interval is None


def test_realism_and_diversity_are_told_within_each_class(tiny_dataset: Dataset, monkeypatch) -> None:
    """One class is drawn as real slices of it are, one as a single picture, one as another class: by hand."""
    monkeypatch.setattr("lwddpm.evaluation.inputs.cached", lambda path, make, **how: make())
    monkeypatch.setattr("lwddpm.evaluation.within_classes.FEWEST", 2)
    monkeypatch.setattr("lwddpm.evaluation.within_classes.K", 1)
    monkeypatch.setattr("lwddpm.evaluation.neighbours.K", 1)
    labels, images, names = tiny_dataset.labels("train"), tiny_dataset.images("train"), tiny_dataset.label_names
    rows = [np.flatnonzero(labels == code) for code in range(4)]
    drawn = np.concatenate([images[rows[0][:3]], images[rows[1][[0, 0, 0]]], images[rows[3][:3]], images[rows[3][:3]]])
    asked = [names[code] for code in (0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3)]
    codes = {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}

    def features(name: str, given: np.ndarray) -> torch.Tensor:
        """Classes far apart, slices of one class near each other."""
        far = np.array([100.0 * codes.get(image.tobytes(), 9) for image in given])
        return torch.tensor(np.column_stack([given.reshape(len(given), -1)[:, ::4] / 255.0, far]), dtype=torch.float32)

    found = evaluate_classes(drawn, tiny_dataset, CONFIG, asked=asked, extract=features)
    assert list(found) == [name for name in names if name in found]
    assert found[names[0]].values["precision_lite0"] > 0.5
    assert found[names[1]].values["recall_lite0"] <= 1 / found[names[1]].n
    assert found[names[2]].values == {f"{name}_lite0": 0 for name in ("precision", "recall", "density", "coverage")}
    assert all(of_class.floors.keys() == of_class.values.keys() for of_class in found.values())
