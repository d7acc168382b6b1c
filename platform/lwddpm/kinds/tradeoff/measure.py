"""Every way to draw, sampled with every seed and measured; what an earlier attempt has measured is read."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lwddpm.config import CLASS_MEASURES, EvaluationConfig, TradeoffJob
from lwddpm.data.store import Dataset
from lwddpm.errors import JobError
from lwddpm.evaluation.copying import COPIED_SHARE, NEAR, Copying, nearest_distances
from lwddpm.evaluation.obedience import class_codes
from lwddpm.evaluation.protocol import evaluate_classes
from lwddpm.evaluation.result import EvaluationResult
from lwddpm.evaluation.subset import random_subset
from lwddpm.evaluation.tradeoff import DISTANCE, IN_CLASS, Tradeoff, Way
from lwddpm.kinds.compare.kept import MeasurementCache
from lwddpm.kinds.saved_model import labels_of
from lwddpm.kinds.tradeoff.plan import PlannedWay, TradeoffPlan
from lwddpm.progress import say
from lwddpm.training.stored_model import read_saved_model
from lwddpm.training.stored_presets import Preset, words_of
from lwddpm.wording import counted


def measure(job: TradeoffJob, plan: TradeoffPlan, dataset: Dataset, cache: MeasurementCache, n: int) -> Tradeoff:
    """Every way of a plan with every seed, n slices each."""
    config, measurer = job.tradeoff, _Measurer(job, dataset, cache, n)
    for label, reason in plan.left_out.items():
        say(f"left out: {label}: {reason}")
    total = plan.calls(n, len(config.sampling_seeds))
    say(
        f"{counted(len(plan.ways), 'way')} to draw, {len(config.sampling_seeds)} samplings of {n} each: {total:,} calls"
    )
    ways, pace = [], _Pace(total)
    for number, way in enumerate(plan.ways, start=1):
        samplings = []
        for seed in config.sampling_seeds:
            known = cache.has(way.model_dir, way.evaluation(config, seed))
            if not known:
                say(f"way {number} of {len(plan.ways)}: {way.label}, sampling seed {seed}{pace.left()}")
            began = time.monotonic()
            samplings.append(measurer.sampling(way, seed))
            pace.passed(way.network_calls * n, None if known else time.monotonic() - began)
        ways.append(_way(way, samplings))
    return Tradeoff(
        model_uri=job.model_uri,
        dataset_version=dataset.version,
        simulated=dataset.manifest.simulated,
        image_size=dataset.manifest.image_size,
        n=n,
        num_reference=measurer.num_reference,
        sampling_seeds=config.sampling_seeds,
        floors=measurer.floors,
        nearest_floor=float(np.median(measurer.usual)),
        ways=tuple(ways),
        left_out=plan.left_out,
        class_floors=measurer.class_floors,
        class_n=measurer.class_n,
    )


class _Sampling(NamedTuple):
    """Figures of one way with one seed; as in `evaluation.tradeoff.Way`."""

    values: dict[str, float]
    by_class: dict[str, dict[str, float]]
    nearest: float
    copies: bool


class _Measurer:
    """Measures samplings of one model.

    Attributes:
        usual: distances of held-out slices to their nearest training slice.
        floors, class_floors, class_n, num_reference: as in `evaluation.tradeoff.Tradeoff`, once a way is measured.
    """

    def __init__(self, job: TradeoffJob, dataset: Dataset, cache: MeasurementCache, n: int) -> None:
        self.config, self.dataset, self.cache, self.n = job.tradeoff, dataset, cache, n
        self.train = dataset.images("train")
        held_out = random_subset(np.concatenate([dataset.images("validation"), dataset.images("test")]), n)
        self.usual = nearest_distances(held_out, self.train)
        self._limit = NEAR * float(np.median(self.usual))
        self.floors = {COPIED_SHARE: float((self.usual < self._limit).mean())}
        self.class_floors: dict[str, dict[str, float]] = {}
        self.class_n: dict[str, int] = {}
        self.num_reference = 0

    def sampling(self, way: PlannedWay, seed: int) -> _Sampling:
        """A way with a seed.

        Raises:
            JobError: a metric cannot be computed.
        """
        evaluation = way.evaluation(self.config, seed)
        result = self.cache.evaluation(way.model_dir, evaluation)
        if result.unavailable:
            missing = result.unavailable[0]
            raise JobError(f"{missing.name} cannot be measured: {missing.reason}")
        for record in result.records:
            if record.floor is not None:
                self.floors[record.name] = record.floor
            if record.name == DISTANCE:
                self.num_reference = record.num_reference or 0
        samples = self.cache.samples(way.model_dir, evaluation, self.n)
        distances = nearest_distances(samples, self.train)
        near = distances < self._limit
        looked = Copying(int(near.sum()), len(near), int((self.usual < self._limit).sum()), len(self.usual))
        values = {record.name: record.value for record in result.records} | {COPIED_SHARE: looked.share}
        asked = labels_of(evaluation, read_saved_model(way.model_dir), self.n)
        by_class = {} if asked is None else self._by_class(result, samples, evaluation, asked, near)
        return _Sampling(values, by_class, float(np.median(distances)), looked.copies)

    def _by_class(
        self,
        result: EvaluationResult,
        samples: np.ndarray,
        evaluation: EvaluationConfig,
        asked: Sequence[str | None],
        near: np.ndarray,
    ) -> dict[str, dict[str, float]]:
        """Realism and diversity within each class, beside what the evaluation says by class.

        Args:
            near: which slices are near to a training slice, bool [n].
        """
        found = evaluate_classes(samples, self.dataset, evaluation, asked=asked, extract=self.cache.features)
        told, codes = {record.name: record for record in result.records}, class_codes(self.dataset, asked)
        by_class = {}
        for name, of_class in found.items():
            values, floors = dict(of_class.values), dict(of_class.floors)
            for source in CLASS_MEASURES:
                metric = DISTANCE if source == IN_CLASS else source
                if source in told and name in told[source].parts:
                    values[metric], floors[metric] = told[source].parts[name], told[source].floor_parts[name]
            values[COPIED_SHARE] = float(near[codes == self.dataset.label_names.index(name)].mean())
            by_class[name] = values
            self.class_floors[name], self.class_n[name] = floors, of_class.n
        return by_class


def _way(way: PlannedWay, samplings: list[_Sampling]) -> Way:
    return Way(
        label=way.label,
        varied=way.varied,
        sampling=Preset.of(way.sampling, way.network_calls, {}, "").sampling,
        words=words_of(way.sampling),
        weights=way.weights,
        network_calls=way.network_calls,
        values=_together([sampling.values for sampling in samplings]),
        nearest=tuple(sampling.nearest for sampling in samplings),
        copies=any(sampling.copies for sampling in samplings),
        by_class={
            name: _together([sampling.by_class[name] for sampling in samplings if name in sampling.by_class])
            for name in samplings[0].by_class
        },
    )


def _together(samplings: list[dict[str, float]]) -> dict[str, tuple[float, ...]]:
    """The values of each metric, one for each sampling."""
    return {name: tuple(values[name] for values in samplings if name in values) for name in samplings[0]}


class _Pace:
    """How long the rest takes, by the calls that were made in this attempt."""

    def __init__(self, total: int) -> None:
        self._left, self._made, self._seconds = total, 0, 0.0

    def passed(self, calls: int, seconds: float | None) -> None:
        self._left -= calls
        if seconds is not None:
            self._made, self._seconds = self._made + calls, self._seconds + seconds

    def left(self) -> str:
        if not self._made:
            return ""
        minutes = self._seconds / self._made * self._left / 60
        return f"; about {max(1, round(minutes))} min left"
