"""Does a conditional model draw the class that it is asked for? A small classifier on frozen features says so.

Logistic regression on EfficientNet-Lite0 features of real training and validation slices, in five folds that no group
of duplicates and no subject straddles. Drawings are judged by all five, real slices by the one that has not seen them:
that share is the floor, what slices of real patients would reach. Beside it, the Frechet distance within each class.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lwddpm.data.store import Dataset
from lwddpm.evaluation.cache import cache_file, cached
from lwddpm.evaluation.distances import frechet_between
from lwddpm.evaluation.features import NETWORKS, WEIGHTS_SHA256
from lwddpm.evaluation.inputs import MetricInputs, record_of
from lwddpm.evaluation.intervals import jackknife, of_mean, of_share
from lwddpm.evaluation.linear import STRENGTH, Linear
from lwddpm.evaluation.result import Confusion, MetricRecord

EXTRACTOR = "fd_lite0"
_SPLITS = ("train", "validation")
_FOLDS = 5
FEWEST = 10  # drawings, and held-out slices, of a class whose Frechet distance is told


class Judges(NamedTuple):
    """Linear classifiers of slices by their features, one for each of F folds of real slices, and K classes.

    Attributes:
        weights, biases: a score is w f + b, and the highest wins; float64 [F, K, D], [F, K].
        predicted, true: class of each real slice by the one that has not seen it, and its own, int64 [N].
    """

    weights: Tensor
    biases: Tensor
    predicted: Tensor
    true: Tensor

    @classmethod
    def of(cls, features: Tensor, classes: np.ndarray, groups: np.ndarray) -> "Judges":
        """Fit them.

        Args:
            features: of real slices, float [N, D].
            classes: from 0, int64 [N].
            groups: slices of one group are in one fold, int64 [N].
        """
        # here: scikit-learn takes a second to import
        from sklearn.model_selection import StratifiedGroupKFold

        values, predicted = features.double().numpy(), torch.full((len(classes),), -1)
        folds = []
        for seen, unseen in StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0).split(values, classes, groups):
            folds.append(Linear.of(values[seen], classes[seen], int(classes.max()) + 1))
            predicted[unseen] = folds[-1](features[unseen])
        weights, biases = zip(*folds, strict=True)
        return cls(torch.stack(list(weights)), torch.stack(list(biases)), predicted, torch.from_numpy(classes))

    def judge(self, features: Tensor) -> np.ndarray:
        """The class of each slice by each of them, int64 [F, N], of features [N, D]."""
        folds = zip(self.weights, self.biases, strict=True)
        return torch.stack([Linear(weights, biases)(features) for weights, biases in folds]).numpy()


def judges_of(inputs: MetricInputs) -> Judges:
    """Those of a dataset with labels, fitted once and cached."""
    dataset = inputs.dataset
    classes = np.concatenate([dataset.labels(split) for split in _SPLITS])
    return cached(
        cache_file(dataset, EXTRACTOR, f"judges-{_FOLDS}-{STRENGTH}"),
        lambda: Judges.of(inputs.all_features(EXTRACTOR, _SPLITS), classes, _groups(dataset)),
        dump=Judges._asdict,
        load=lambda tensors: Judges(**tensors),
    )


def obedience(inputs: MetricInputs, asked: Sequence[str | None]) -> tuple[list[MetricRecord], Confusion | None]:
    """How often drawings are of the class that they were asked for, and how far they are from real ones of it.

    Args:
        asked: the label that each generated slice was asked for; None: for none.

    Returns:
        `obedience_lite0`, `fd_lite0_in_class` and the confusion of classes; nothing where nothing was asked for, or
        real slices are too few for the folds.
    """
    names = inputs.dataset.label_names
    shown = class_codes(inputs.dataset, asked[: inputs.num])
    classes = np.concatenate([inputs.dataset.labels(split) for split in _SPLITS])
    if (shown < 0).all() or np.bincount(classes, minlength=len(names)).min() < _FOLDS:
        return [], None
    drawn, told = inputs.features(EXTRACTOR), shown >= 0
    judges = judges_of(inputs)
    verdicts, wanted = judges.judge(drawn[torch.from_numpy(told)]), shown[told]
    hits, found = verdicts == wanted, (judges.predicted == judges.true).numpy()
    recall = {name: found[classes == k].mean() for k, name in enumerate(names)}
    parts = {name: float(hits[:, wanted == k].mean()) for k, name in enumerate(names) if (wanted == k).any()}
    share = float(hits.mean())
    records = [
        _record(
            "obedience_lite0",
            inputs,
            value=share,
            interval=of_share(round(share * len(wanted)), len(wanted)),
            floor=float(np.mean([recall[names[k]] for k in wanted])),
            parts=parts,
            floor_parts={name: float(recall[name]) for name in parts},
            n=len(wanted),
            num_reference=len(classes),
            protocol=f"share of {len(wanted)} generated slices that come out as the class they were asked for, by "
            f"logistic regression on {NETWORKS[EXTRACTOR]} features of {len(classes)} training and validation slices, "
            f"{_FOLDS} folds by group; floor: real slices of the same classes, by the fold that has not seen them",
        )
    ]
    records += _in_class(inputs, shown)
    return records, Confusion(
        classes=names,
        generated=_shares(np.tile(wanted, len(verdicts)), verdicts.ravel(), len(names)),
        real=_shares(classes, judges.predicted.numpy(), len(names)),
    )


def class_codes(dataset: Dataset, asked: Sequence[str | None]) -> np.ndarray:
    """The number of each label that slices were asked for, int64 [N]; -1 where it is none of the dataset's."""
    names = dataset.label_names
    return np.array([names.index(label) if label in names else -1 for label in asked], int)


class OfClass(NamedTuple):
    """Features of the slices of one class: those of training, and as many drawings as held-out slices, [N, D] each.

    Attributes:
        rows: which drawings they are, int64.
    """

    train: Tensor
    drawn: Tensor
    held_out: Tensor
    rows: np.ndarray


def by_class(inputs: MetricInputs, shown: np.ndarray, fewest: int) -> Iterator[tuple[str, OfClass]]:
    """The classes that have enough slices, drawn and held out, to be measured by themselves.

    Args:
        shown: the class that each generated slice was asked for, as `class_codes` gives it.
        fewest: of each kind.
    """
    dataset, drawn = inputs.dataset, inputs.features(EXTRACTOR)
    train, of_train = inputs.all_features(EXTRACTOR, ("train",)), dataset.labels("train")
    held_out = inputs.all_features(EXTRACTOR, ("validation", "test"))
    of_held_out = np.concatenate([dataset.labels("validation"), dataset.labels("test")])
    for code, name in enumerate(dataset.label_names):
        rows = [np.flatnonzero(classes == code) for classes in (of_train, shown, of_held_out)]
        n = min(len(rows[1]), len(rows[2]))
        if n >= fewest and len(rows[0]) >= 2:
            chosen = np.sort(np.random.default_rng(0).choice(rows[2], n, replace=False))
            yield name, OfClass(train[rows[0]], drawn[rows[1][:n]], held_out[chosen], rows[1][:n])


def _in_class(inputs: MetricInputs, shown: np.ndarray) -> list[MetricRecord]:
    """The Frechet distances within the classes, of as many drawings as held-out slices each, and their mean."""
    values, floors, intervals, counts = {}, {}, [], []
    for name, slices in by_class(inputs, shown, FEWEST):
        values[name], floors[name] = (
            frechet_between(slices.train, features) for features in (slices.drawn, slices.held_out)
        )
        counts.append(len(slices.drawn))

        def without(rows: np.ndarray, of: OfClass = slices) -> float:
            return frechet_between(of.train, of.drawn[torch.from_numpy(rows)])

        intervals.append(jackknife(values[name], without, counts[-1]))
    if not values:
        return []
    each = ", ".join(f"{name} {n} (floor {floors[name]:.1f})" for name, n in zip(values, counts, strict=True))
    return [
        _record(
            "fd_lite0_in_class",
            inputs,
            value=float(np.mean(list(values.values()))),
            floor=float(np.mean(list(floors.values()))),
            interval=of_mean(intervals),
            parts=values,
            floor_parts=floors,
            n=sum(counts),
            num_reference=inputs.dataset.num("train"),
            protocol=f"mean over classes of the squared Fréchet distance of {NETWORKS[EXTRACTOR]} features, training "
            f"slices of a class against generated ones that were asked for it: {each}; floor: as many held-out slices",
        )
    ]


def _groups(dataset: Dataset) -> np.ndarray:
    """Groups of training and validation slices; they straddle no splits, so no two splits share a number."""
    found, first = [], 0
    for split in _SPLITS:
        groups = np.unique(dataset.groups(split), return_inverse=True)[1] + first
        first += int(groups.max(initial=-1)) + 1
        found.append(groups)
    return np.concatenate(found)


def _shares(true: np.ndarray, predicted: np.ndarray, num: int) -> tuple[tuple[float, ...], ...]:
    counts = np.zeros((num, num))
    np.add.at(counts, (true, predicted), 1)
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)
    return tuple(tuple(float(share) for share in row) for row in shares)


def _record(name: str, inputs: MetricInputs, **values: object) -> MetricRecord:
    network = {"extractor": NETWORKS[EXTRACTOR], "weights_sha256": WEIGHTS_SHA256[EXTRACTOR]}
    return record_of(name, inputs, reference="train", **network, **values)
