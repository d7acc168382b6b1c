"""What a conditional model can be asked for, and which image of a drawing is asked for what.

A condition is a column of the dataset: a category (its names) or a number (its mean and spread). A network is given one
number for each: of a category its position among the names, of a number its distance from the mean in standard
deviations, and NaN, the null token, where nothing is said. Everything here is settled in training and stored with the
model, so that drawing needs no dataset, and image i is asked for what (model, settings, i) say.
"""

import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

NULL = math.nan
Value = str | float | None  # of one condition of one image; None: the null token
# What a drawing says of a condition: a value for all images, or categories with their shares.
Asked = str | float | None | Mapping[str, int]
Like = Literal["train", "balanced"]

_LARGEST_TOTAL = 2**16  # of shares, so that an order's period stays short
_QUANTILES = np.linspace(0.05, 0.95, 10)  # of a number: no extreme value of a slice is stored
_Text = Annotated[str, Field(min_length=1, max_length=500)]
_Count = Annotated[int, Field(ge=1, lt=2**31)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Category(_Record):
    """A condition that is one of some names."""

    kind: Literal["category"] = "category"
    name: _Text
    values: Annotated[tuple[_Text, ...], Field(min_length=2, max_length=1000)]

    def encoded(self, value: Any) -> float:
        """What the network is given of a value; NaN for None and for what is no value of it."""
        return float(self.values.index(value)) if value in self.values else NULL

    def decoded(self, code: float) -> Value:
        return None if math.isnan(code) else self.values[int(code)]


class Number(_Record):
    """A condition that is a number; the network is given it in standard deviations from the mean."""

    kind: Literal["number"] = "number"
    name: _Text
    mean: float
    spread: Annotated[float, Field(gt=0)]

    def encoded(self, value: Any) -> float:
        return NULL if value is None else (float(value) - self.mean) / self.spread

    def decoded(self, code: float) -> Value:
        return None if math.isnan(code) else round(code * self.spread + self.mean, 3)


Condition = Annotated[Category | Number, Field(discriminator="kind")]


class Combination(_Record):
    """Training slices that share their categories.

    Attributes:
        codes: position of each category's value, in the order of the conditions; -1 where a slice has none.
        count: number of slices.
        numbers: of each number the quantiles 0.05, 0.15 to 0.95, encoded; empty where slices have none.
    """

    codes: Annotated[tuple[int, ...], Field(max_length=20)]
    count: _Count
    numbers: Annotated[tuple[tuple[float, ...], ...], Field(max_length=20)] = ()


class Vocabulary(_Record):
    """The conditions of a model.

    Attributes:
        conditions: in the order in which the network is given them.
        combinations: how often categories occur together among the training slices.
        dropout: share of training samples that the network was told nothing of; 0: it never learnt to draw so.
    """

    conditions: Annotated[tuple[Condition, ...], Field(min_length=1, max_length=20)]
    combinations: Annotated[tuple[Combination, ...], Field(min_length=1)]
    dropout: Annotated[float, Field(ge=0, le=1)]

    @model_validator(mode="after")
    def _combinations_are_of_the_conditions(self) -> "Vocabulary":
        sizes, numbers = [len(category.values) for category in self.categories], len(self.conditions)
        numbers -= len(sizes)
        for combination in self.combinations:
            known = len(combination.codes) == len(sizes) and len(combination.numbers) == numbers
            if not known or any(not -1 <= c < n for c, n in zip(combination.codes, sizes, strict=True)):
                raise ValueError("combinations must be of the conditions")
            if any(len(quantiles) not in (0, len(_QUANTILES)) for quantiles in combination.numbers):
                raise ValueError(f"a number has {len(_QUANTILES)} quantiles")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(condition.name for condition in self.conditions)

    @property
    def categories(self) -> tuple[Category, ...]:
        return tuple(condition for condition in self.conditions if isinstance(condition, Category))

    def condition(self, name: str) -> Category | Number:
        return self.conditions[self.names.index(name)]

    @property
    def classes(self) -> Category | None:
        """The condition that is told as "the class" of an image: the first one that is a category."""
        return next(iter(self.categories), None)

    def counts(self, name: str) -> dict[str, int]:
        """Training slices of each value of a category."""
        category = self.condition(name)
        assert isinstance(category, Category)
        position, counts = self.categories.index(category), Counter[int]()
        for combination in self.combinations:
            counts[combination.codes[position]] += combination.count
        return {value: counts[code] for code, value in enumerate(category.values)}

    def assigned(self, asked: Mapping[str, Asked], like: Like, indices: Sequence[int]) -> np.ndarray:
        """What each image of a drawing is asked for, as the network is given it: float32 [N, C].

        Images 0 to n - 1 have the right shares for every n: the order is that in which the method of Webster and
        Sainte-Lague gives out seats, class by class, and within a class by the next category. Numbers spread over their
        quantiles by the van der Corput sequence.

        Args:
            asked: what is said of some conditions. Of the others, each image gets what training slices have that share
                its categories; nothing, where there are no such slices.
            like: shares of the classes where nothing is said of them: of the training slices, or equal ones.
            indices: numbers of the images.
        """
        return np.array([self._of_image(asked, like, index) for index in indices], np.float32).reshape(
            -1, len(self.conditions)
        )

    def values(self, codes: Sequence[float]) -> dict[str, Value]:
        """The conditions of one image by name, from what the network is given [C]."""
        return {
            condition.name: condition.decoded(float(code))
            for condition, code in zip(self.conditions, codes, strict=True)
        }

    def labels(self, asked: Mapping[str, Asked], like: Like, count: int) -> list[str | None] | None:
        """The label that each of the first images of a drawing is asked for; None where `label` is no condition."""
        if "label" not in self.names:
            return None
        told = [self.values(codes)["label"] for codes in self.assigned(asked, like, range(count))]
        return [None if label is None else str(label) for label in told]

    def _of_image(self, asked: Mapping[str, Asked], like: Like, index: int) -> list[float]:
        matching, codes = self.combinations, dict[str, float]()
        for position, category in enumerate(self.categories):
            present: Counter[int] = Counter()
            for combination in matching:
                present[combination.codes[position]] += combination.count
            given = asked.get(category.name, present)
            if isinstance(given, Mapping):
                if given is present:
                    shares = dict(sorted(present.items()))
                    if like == "balanced" and category == self.classes:
                        shares = {code: 1 for code in shares if code >= 0}
                else:
                    shares = {category.values.index(value): share for value, share in given.items()}
                code, index = _seat(tuple(shares), tuple(shares.values()), index) if shares else (-1, index)
            else:
                code = -1 if given is None else category.values.index(str(given))
            codes[category.name] = NULL if code < 0 else float(code)
            matching = tuple(c for c in matching if c.codes[position] == code)
        for position, number in enumerate(c for c in self.conditions if isinstance(c, Number)):
            codes[number.name] = NULL
            if number.name in asked:
                codes[number.name] = number.encoded(asked[number.name])
            elif len(matching) == 1 and matching[0].numbers[position]:
                codes[number.name] = float(np.interp(_van_der_corput(index), _QUANTILES, matching[0].numbers[position]))
        return [codes[name] for name in self.names]


def quantiles(codes: np.ndarray) -> tuple[float, ...]:
    """What is stored of the encoded values of a number, float [N]; NaNs do not count."""
    known = codes[~np.isnan(codes)]
    return tuple(float(value) for value in np.quantile(known, _QUANTILES)) if len(known) else ()


def _seat(parties: tuple[int, ...], shares: tuple[int, ...], index: int) -> tuple[int, int]:
    """Who gets seat number `index` of an endless parliament, and as whose own seat of which number."""
    order, ranks, per_period = _period(shares)
    rounds, place = divmod(index, len(order))
    party = int(order[place])
    return parties[party], int(rounds * per_period[party] + ranks[place])


@functools.lru_cache(maxsize=256)
def _period(shares: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One period of the order: parties, the number of each seat among its party's, and the seats of each party.

    The first n seats are those that Webster's method gives n seats to: party k gets its seat j at (j + 1/2) / share.
    """
    total = sum(shares)
    if total > _LARGEST_TOTAL:
        shares = tuple(max(1, round(share * _LARGEST_TOTAL / total)) for share in shares)
    divisor = math.gcd(*shares)
    seats = np.array([share // divisor for share in shares])
    parties = np.repeat(np.arange(len(seats)), seats)
    numbers = np.concatenate([np.arange(count) for count in seats])
    order = np.argsort((numbers + 0.5) / seats[parties], kind="stable")
    return parties[order], numbers[order], seats


def _van_der_corput(index: int) -> float:
    """The bits of an index mirrored at the point, in (0, 1)."""
    value, weight = 0.0, 0.5
    index += 1
    while index:
        index, bit = divmod(index, 2)
        value, weight = value + bit * weight, weight / 2
    return value
