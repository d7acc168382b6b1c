"""What a training makes of its dataset's columns, and what of it the network is told."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lwddpm.conditions import Category, Number
from lwddpm.config import TrainJob
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError, DataError
from lwddpm.jobfile import load_job
from lwddpm.kinds.train import check_dataset
from lwddpm.training.batches import training_draw
from lwddpm.training.denoising import DenoisingStep
from lwddpm.training.loop import train
from lwddpm.training.reporter import RecordingReporter
from lwddpm.training.schedule import Schedule
from lwddpm.training.stored_model import load_guide, load_model
from lwddpm.training.vocabulary import BalancedOrder, available, told_of, vocabulary_of, with_dropout

CPU = torch.device("cpu")
LABELLED = "model.conditions=[label]"
Build = Callable[..., TrainJob]


def _with_columns(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, **columns: list[object]) -> Dataset:
    """The dataset as if its training slices had other columns."""
    read = Dataset.column
    manifest = dataset.manifest.model_copy(update={"columns": ("plane", "sequence", "position_mm")})
    monkeypatch.setattr(Dataset, "column", lambda self, split, name: columns.get(name) or read(self, split, name))
    return Dataset(dataset.path, manifest)


def test_the_vocabulary_is_what_the_training_slices_have(
    tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    num = tiny_dataset.num("train")
    planes: list[object] = [("axial", "coronal", None)[i % 3] for i in range(num)]
    positions: list[object] = [None if i % 5 == 0 else float(i) for i in range(num)]
    dataset = _with_columns(tiny_dataset, monkeypatch, plane=planes, sequence=["T1"] * num, position_mm=positions)
    vocabulary = vocabulary_of(dataset, ("label", "plane", "position_mm"), 0.2)
    assert vocabulary is not None
    label, plane, position = vocabulary.conditions
    assert isinstance(label, Category)
    assert isinstance(position, Number)
    assert plane.name == "plane"
    assert label.values == tuple(sorted(dataset.label_names))
    assert vocabulary.counts("label") == dict(Counter(dataset.column("train", "label")))
    known = np.array([value for value in positions if value is not None], float)
    assert (position.mean, position.spread) == (pytest.approx(known.mean()), pytest.approx(known.std()))
    told = told_of(dataset, "train", vocabulary)
    assert told.shape == (num, 3)
    assert [vocabulary.values(row)["plane"] for row in told] == planes
    assert np.isnan(told[:, 2]).tolist() == [value is None for value in positions]
    assert sum(combination.count for combination in vocabulary.combinations) == num
    assert set(available(dataset)) == {"label", "plane", "position_mm"}, "sequence has one value"


def test_a_condition_that_the_dataset_lacks_or_that_says_nothing_is_refused(
    tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"plane: must have two or more values.*lacks it; it has: label .glioma"):
        vocabulary_of(tiny_dataset, ("plane",), 0.1)
    num = tiny_dataset.num("train")
    columns = {"plane": ["axial"] * num, "sequence": ["T1"] * num, "position_mm": [1.0] * num}
    dataset = _with_columns(tiny_dataset, monkeypatch, **columns)
    with pytest.raises(DataError, match="has one value of it: T1"):
        vocabulary_of(dataset, ("label", "sequence"), 0.1)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.conditions=[plane]"], "plane is a column of volumes"),
        (["model.conditions=[label,label]"], "each may be named once"),
        (["model.conditions=[subject_id]"], "model.conditions"),
        (["training.condition_dropout=0.2"], "training.condition_dropout: is for models with conditions"),
        (["training.sampling=balanced"], "training.sampling: is for models with conditions"),
        (["evaluation.conditions={label: a}"], "evaluation.conditions: is for models with conditions"),
        ([LABELLED, "training.condition_dropout=0", "evaluation.guidance=2"], "condition_dropout is 0"),
        (["evaluation.condition_guidance=3"], "evaluation.condition_guidance: .*the model has no conditions"),
        ([LABELLED, "training.condition_dropout=0", "evaluation.condition_guidance=3"], "condition_dropout is 0"),
        ([LABELLED, "evaluation.condition_guidance=3", "evaluation.guidance=2"], "training.guide_epoch is null"),
        (
            [LABELLED, "evaluation.guidance=2", "evaluation.guidance_from=unconditional_guide"],
            "training.guide_epoch is null",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(tiny_job: Build, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_job(*overrides)


def test_an_unknown_class_is_refused_before_training(tiny_job: Build, tiny_dataset: Dataset) -> None:
    job = tiny_job(LABELLED, "evaluation.conditions={label: gliom_tumor}")
    with pytest.raises(ConfigError, match=r"one of glioma_tumor, .*got 'gliom_tumor'; did you mean glioma_tumor"):
        check_dataset(job, tiny_dataset)
    check_dataset(tiny_job(LABELLED, "evaluation.conditions={label: {no_tumor: 2, glioma_tumor: 1}}"), tiny_dataset)


def test_the_dropout_has_a_default_and_unconditional_jobs_keep_their_digests(tiny_job: Build) -> None:
    assert tiny_job(LABELLED).training.condition_dropout == 0.1
    assert tiny_job(LABELLED, "training.condition_dropout=0").training.condition_dropout == 0
    plain, nulls = tiny_job(), tiny_job("model.conditions=[]", "training.condition_dropout=null")
    assert plain.digest() == nulls.digest()
    assert not {"conditions", "condition_dropout", "sampling", "like", "guidance_from"} & {
        key for section in plain.model_dump().values() if isinstance(section, dict) for key in section
    }
    assert tiny_job(LABELLED).training_digest() != plain.training_digest()
    # run folders of trainings from before there were conditions are still those of their jobs
    assert load_job("kaggle_small", ["data.source=X", "data.path=D"]).training_digest() == "e1b86b9f"  # type: ignore[union-attr]


def test_conditions_are_lost_with_their_probability_and_by_seed_and_step_alone() -> None:
    told = np.zeros((20_000, 2), np.float32)
    lost = np.isnan(with_dropout(told, 3, 5, 0.2))
    both, each = lost.all(1).mean(), lost.mean(0)
    assert both == pytest.approx(0.2 + 0.8 * 0.04, abs=0.01)
    assert each == pytest.approx(1 - 0.8**2, abs=0.01)
    assert np.isnan(with_dropout(told[:, :1], 3, 5, 0.2)).mean() == pytest.approx(0.2, abs=0.01)
    np.testing.assert_array_equal(lost, np.isnan(with_dropout(told, 3, 5, 0.2)))
    assert (lost != np.isnan(with_dropout(told, 3, 6, 0.2))).any()
    assert not np.isnan(with_dropout(told, 3, 5, 0.0)).any()
    assert np.isnan(with_dropout(told, 3, 5, 1.0)).all()


def test_balanced_classes_come_equally_often_and_use_all_their_slices() -> None:
    classes = np.array([0] * 60 + [1] * 25 + [2] * 10 + [np.nan] * 5, np.float32)
    order = BalancedOrder(classes)
    steps = 4 * (len(classes) // 8)
    rows = np.concatenate([order.batch(7, step, 8) for step in range(steps)])
    shares = np.array([(classes[rows] == code).mean() for code in range(3)])
    assert shares == pytest.approx(1 / 3, abs=0.02)
    assert len(np.unique(rows)) == 95
    small = Counter(rows[classes[rows] == 2].tolist())
    assert max(small.values()) - min(small.values()) <= 4, "the end of an epoch is left out"
    np.testing.assert_array_equal(BalancedOrder(classes).batch(7, 30, 8), order.batch(7, 30, 8))
    assert (BalancedOrder(classes).batch(8, 30, 8) != order.batch(7, 30, 8)).any()


def test_the_network_is_told_the_class_of_each_slice(tiny_job: Build, tiny_dataset: Dataset) -> None:
    """Flips, noise and order stay those of the unconditional training."""
    told: list[torch.Tensor | None] = []

    def step(*overrides: str) -> DenoisingStep:
        job = tiny_job(*overrides)
        made = DenoisingStep(job, tiny_dataset, Schedule.of(job.training, tiny_dataset.num("train")), CPU)
        made.distribute()
        made.network.register_forward_pre_hook(lambda m, a, k: told.append(k.get("given")), with_kwargs=True)
        return made

    conditional, plain = step(LABELLED, "training.condition_dropout=0"), step()
    first, other = conditional.take(0)["train/loss"], plain.take(0)["train/loss"]
    assert torch.equal(first, other), "of an untrained network the last layer is zero"
    assert told[1] is None
    assert told[0] is not None
    draw = training_draw(0, 0, 8, tiny_dataset.num("train"), 1000, True)
    expected = [
        conditional.vocabulary.classes.values.index(tiny_dataset.column("train", "label")[i])  # type: ignore[union-attr]
        for i in draw.indices
    ]
    assert told[0][:, 0].tolist() == expected
    before = conditional.model.condition_embedding.weight.detach().clone()  # type: ignore[union-attr,operator]
    for number in (1, 2, 3):  # layers that start at zero let no gradient through at first
        conditional.take(number)
    moved = conditional.model.condition_embedding.weight - before  # type: ignore[union-attr,operator]
    assert (moved.abs().sum(0) > 0).tolist() == [False, True, True, True, True], "no sample was told nothing"


def test_a_trained_model_carries_its_vocabulary(tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path) -> None:
    job = tiny_job(LABELLED, "training.guide_epoch=0.5", "training.sampling=balanced")
    train(job, tiny_dataset, tmp_path, RecordingReporter(), CPU)
    model, saved = load_model(tmp_path / "model")
    assert saved.conditions is not None
    assert saved.conditions.dropout == 0.1
    assert model.vocabulary == saved.conditions  # type: ignore[union-attr]
    assert saved.parameters == sum(p.numel() for p in model.parameters())
    assert load_guide(tmp_path / "model") is not None
