"""The Pareto front against brute force, and the rules by which ways to draw are recommended."""

import math
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwddpm.evaluation.tradeoff import DISTANCE, METRICS, PRECISION, RECALL, Tradeoff, Way, front, noise_of

FEW = st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 3.0, math.inf, math.nan])  # ties are likely
POINTS = st.lists(st.tuples(FEW, FEW), max_size=12)


@given(POINTS, st.booleans(), st.booleans())
def test_the_front_is_what_no_other_point_dominates(points: list[tuple[float, float]], right: bool, up: bool) -> None:
    def better(a: tuple[float, float], b: tuple[float, float]) -> bool:
        gains = [(1 if more else -1) * (x - y) for more, x, y in zip((right, up), a, b, strict=True)]
        return min(gains) >= 0 and max(gains) > 0

    finite = [index for index, point in enumerate(points) if all(map(math.isfinite, point))]
    wanted = [i for i in finite if not any(better(points[j], points[i]) for j in finite)]
    found = front(points, (right, up))
    assert sorted(found) == wanted
    assert [points[i] for i in found] == sorted(points[i] for i in found)


def _way(
    label: str,
    calls: int,
    *,
    fd: Iterable[float] = (50.0, 50.5, 49.5),
    precision: Iterable[float] = (0.60, 0.61, 0.59),
    recall: Iterable[float] = (0.40, 0.41, 0.39),
    nearest: float = 25.0,
    copies: bool = False,
    weights: str = "model",
) -> Way:
    values = dict.fromkeys(METRICS, (0.5, 0.51, 0.49))
    values |= {DISTANCE: tuple(fd), PRECISION: tuple(precision), RECALL: tuple(recall)}
    return Way(
        label=label, varied="guidance", sampling={}, words="", weights=weights, network_calls=calls, values=values,
        nearest=(nearest,) * 3, copies=copies,
    )  # fmt: skip


def _measured(*ways: Way) -> Tradeoff:
    return Tradeoff(
        model_uri="m", dataset_version="v", simulated=True, image_size=16, n=300, num_reference=600,
        sampling_seeds=(0, 1, 2), floors={}, nearest_floor=20.0, ways=ways,
    )  # fmt: skip


def _chosen(*ways: Way) -> dict[str, str]:
    return {aim: chosen.label for aim, chosen in _measured(*ways).recommended.items()}


SHARP = _way("sharp", 20, precision=(0.80, 0.81, 0.79), recall=(0.30, 0.31, 0.29))
VARIED = _way("varied", 20, precision=(0.50, 0.51, 0.49), recall=(0.50, 0.51, 0.49))
CLOSE = _way("close", 20, fd=(30.0, 30.5, 29.5))


def test_each_aim_has_its_measure() -> None:
    assert _chosen(SHARP, VARIED, CLOSE) == {"realistic": "sharp", "balanced": "close", "diverse": "varied"}


def test_a_difference_within_noise_goes_to_the_cheaper_way() -> None:
    cheap = _way("cheap", 5, precision=(0.795, 0.805, 0.785), recall=(0.30, 0.31, 0.29))
    dear = _way("dear", 40, precision=(0.81, 0.82, 0.80), recall=(0.30, 0.31, 0.29))
    assert _chosen(SHARP, VARIED, CLOSE, cheap, dear)["realistic"] == "cheap"
    why = _measured(SHARP, VARIED, CLOSE, cheap, dear).recommended["realistic"].why
    assert "dear has 0.81, no more than noise, in 40 calls" in why
    worse = _way("worse", 1, precision=(0.70, 0.71, 0.69), recall=(0.30, 0.31, 0.29))
    assert _chosen(SHARP, VARIED, CLOSE, worse)["realistic"] == "sharp"
    # as many calls: the better of the two
    assert _chosen(_way("a", 9), _way("b", 9, fd=(49.9, 50.4, 49.4)))["balanced"] == "b"


def test_noise_is_two_standard_errors_of_a_difference_pooled_over_all_ways() -> None:
    ways = [_way("a", 1, precision=(0.5, 0.6, 0.7)), _way("b", 1, precision=(0.5, 0.5, 0.5))]
    assert noise_of(ways, PRECISION) == pytest.approx(2 * math.sqrt(2 * (0.01 + 0) / 2 / 3))
    # of a distance in proportion: ten times as far, the same noise
    near, far = ([_way("a", 1, fd=[scale * x for x in (1.0, 1.1, 1.2)])] for scale in (10, 100))
    assert noise_of(near, DISTANCE) == pytest.approx(noise_of(far, DISTANCE))


def test_collapse_and_noise_are_not_bought_by_one_measure_alone() -> None:
    collapsed = _way("one picture", 1, precision=(0.99, 0.99, 0.99), recall=(0.01, 0.01, 0.01))
    scattered = _way("noise", 1, precision=(0.01, 0.01, 0.01), recall=(0.99, 0.99, 0.99))
    assert _chosen(SHARP, VARIED, CLOSE, collapsed)["realistic"] == "sharp"
    assert _chosen(SHARP, VARIED, CLOSE, scattered)["diverse"] == "varied"


@pytest.mark.parametrize(
    "barred",
    [
        {"copies": True},
        {"nearest": math.nan},
        {"weights": "snapshots/epoch_4"},
        {"recall": (0.9, 0.9, math.nan)},
        {"fd": (1.0, 1.0, math.inf)},
    ],
)
def test_copies_infinities_and_other_weights_are_never_recommended(barred: dict[str, object]) -> None:
    best: dict[str, object] = {"fd": (1.0, 1.0, 1.0), "precision": (0.9, 0.9, 0.9), "recall": (0.9, 0.9, 0.9)}
    tempting = _way("tempting", 1, **(best | barred))  # type: ignore[arg-type]
    assert "tempting" not in _chosen(SHARP, VARIED, CLOSE, tempting).values()
    assert _chosen(tempting) == {}
    assert set(_chosen(SHARP, VARIED, CLOSE, _way("fine", 1, **best)).values()) == {"fine"}  # type: ignore[arg-type]
