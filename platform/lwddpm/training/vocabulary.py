"""The conditions of a training: what its dataset says of them, and what of it the network is told at each step."""

from collections.abc import Sequence

import numpy as np

from lwddpm.conditions import NULL, Category, Combination, Condition, Number, Vocabulary, quantiles
from lwddpm.data.store import Dataset
from lwddpm.errors import DataError
from lwddpm.training.schedule import batches_per_epoch

_CONDITIONS, _BALANCED = 8, 9  # random streams of a seed, beside those of `batches` and `augmentation`
_NUMBERS = ("position_mm",)


def available(dataset: Dataset) -> dict[str, str]:
    """The conditions that a dataset has, by name, with what they can be, in words; of the training slices."""
    found = {}
    for name in _columns(dataset):
        condition = _condition(name, dataset.column("train", name))
        if isinstance(condition, Category):
            found[name] = ", ".join(condition.values)
        elif condition is not None:
            found[name] = f"number, {condition.mean:.4g} on average, spread {condition.spread:.4g}"
    return found


def vocabulary_of(dataset: Dataset, names: Sequence[str], dropout: float) -> Vocabulary | None:
    """What the conditions of a training can be; None for a training without.

    Args:
        names: `model.conditions`.
        dropout: `training.condition_dropout`.

    Raises:
        DataError: the dataset lacks one of them, or has one value of it.
    """
    if not names:
        return None
    conditions: list[Condition] = []
    for name in names:
        values = dataset.column("train", name) if name in _columns(dataset) else None
        condition = None if values is None else _condition(name, values)
        if condition is None:
            there = "; ".join(f"{name} ({words})" for name, words in available(dataset).items()) or "none"
            only = "lacks it" if values is None else f"has one value of it: {next(iter(_different(values)), None)}"
            raise DataError(
                f"{dataset.path}: model.conditions: {name}: must have two or more values, and the dataset {only}; it "
                f"has: {there}"
            )
        conditions.append(condition)
    bare = Vocabulary.model_construct(conditions=tuple(conditions), combinations=(), dropout=dropout)
    return Vocabulary(
        conditions=bare.conditions, combinations=_combinations(bare, told_of(dataset, "train", bare)), dropout=dropout
    )


def told_of(dataset: Dataset, split: str, vocabulary: Vocabulary) -> np.ndarray:
    """The conditions of all slices of a split as a network is given them, float32 [N, C]; NaN where not known."""
    columns = [
        [condition.encoded(value) for value in dataset.column(split, condition.name)]
        for condition in vocabulary.conditions
    ]
    return np.array(columns, np.float32).reshape(len(columns), -1).T.copy()


def classes_of(vocabulary: Vocabulary) -> int:
    """Which condition is the class of a slice: the position of the first category.

    Raises:
        DataError: none is a category.
    """
    if vocabulary.classes is None:
        raise DataError(
            "training.sampling: balanced: takes a condition that is a category, such as label; leave it out"
        )
    return vocabulary.conditions.index(vocabulary.classes)


def with_dropout(told: np.ndarray, seed: int, step: int, probability: float) -> np.ndarray:
    """The conditions of a global batch, float32 [B, C], some of them taken away (NaN).

    A sample loses all of them with this probability, and where there are several each by itself with the same.
    """
    num, columns = told.shape
    rng = np.random.default_rng([_CONDITIONS, seed, step])
    lost = np.broadcast_to(rng.random((num, 1)) < probability, told.shape)
    if columns > 1:
        lost = lost | (rng.random(told.shape) < probability)
    return np.where(lost, np.float32(NULL), told)


class BalancedOrder:
    """An order of the training slices in which each class comes as often as any other.

    Of a small class slices come several times an epoch, of a large one not all do: each class goes through
    permutations of its own, one after the other. An epoch is as long as it is without.
    """

    def __init__(self, classes: np.ndarray) -> None:
        """`classes`: of the slices, [N]; those that have none (NaN) are left out."""
        self.num = len(classes)
        self._rows = [np.flatnonzero(classes == code) for code in np.unique(classes[~np.isnan(classes)])]
        self._epoch: tuple[tuple[int, int], np.ndarray] | None = None

    def batch(self, seed: int, step: int, batch_size: int) -> np.ndarray:
        """Rows of the global batch of a step (counted from 0), int64 [batch_size]."""
        epoch, position = divmod(step, batches_per_epoch(self.num, batch_size))
        if self._epoch is None or self._epoch[0] != (seed, epoch):
            self._epoch = (seed, epoch), self._order(seed, epoch)
        return self._epoch[1][position * batch_size : (position + 1) * batch_size]

    def _order(self, seed: int, epoch: int) -> np.ndarray:
        each = -(-self.num // len(self._rows))
        places = np.arange(epoch * each, (epoch + 1) * each)
        chosen = []
        for code, rows in enumerate(self._rows):
            for repetition in np.unique(places // len(rows)):
                shuffled = np.random.default_rng([_BALANCED, seed, code, repetition]).permutation(rows)
                chosen.append(shuffled[places[places // len(rows) == repetition] % len(rows)])
        return np.random.default_rng([_BALANCED, seed, len(self._rows), epoch]).permutation(np.concatenate(chosen))


def _columns(dataset: Dataset) -> tuple[str, ...]:
    return ("label", *(name for name in ("plane", "sequence", "position_mm") if name in dataset.manifest.columns))


def _different(values: Sequence[object]) -> list[object]:
    return sorted({value for value in values if value is not None}, key=str)


def _condition(name: str, values: Sequence[object]) -> Category | Number | None:
    """What a column says; None where all slices have the same value."""
    different = _different(values)
    if len(different) < 2:
        return None
    if name in _NUMBERS:
        numbers = np.array([value for value in values if value is not None], float)
        return Number(name=name, mean=float(numbers.mean()), spread=float(numbers.std()))
    return Category(name=name, values=tuple(str(value) for value in different))


def _combinations(vocabulary: Vocabulary, told: np.ndarray) -> tuple[Combination, ...]:
    is_category = np.array([isinstance(condition, Category) for condition in vocabulary.conditions])
    codes = np.where(np.isnan(told[:, is_category]), -1, told[:, is_category]).astype(int)
    found = []
    for row in np.unique(codes, axis=0):
        same = (codes == row).all(1)
        numbers = tuple(quantiles(column) for column in told[same][:, ~is_category].T)
        found.append(Combination(codes=tuple(row.tolist()), count=int(same.sum()), numbers=numbers))
    return tuple(found)
