"""A model that returns training slices must not win; one that is only blurred, or good, is left alone."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from lwddpm.config import EvaluationConfig
from lwddpm.data.phantom import simulate
from lwddpm.data.store import Dataset
from lwddpm.evaluation.copying import COPIES, copying, nearest_distances, nearest_median
from lwddpm.evaluation.protocol import evaluate
from lwddpm.evaluation.result import EvaluationResult

NUM, SIZE = 200, 32


@pytest.fixture(scope="module")
def sets() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, held-out and further real slices."""
    images = np.stack([simulate(0, index, SIZE) for index in range(4 * NUM)])
    return images[: 2 * NUM], images[2 * NUM : 3 * NUM], images[3 * NUM :]


def _noisy(images: np.ndarray, levels: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, levels, images.shape)
    return (images + noise).round().clip(0, 255).astype(np.uint8)


def test_the_distance_is_the_root_mean_square_to_the_nearest(sets: tuple[np.ndarray, ...]) -> None:
    train, held_out, _ = sets
    wanted = [min(np.sqrt(((a.astype(float) - b) ** 2).mean()) for b in train) for a in held_out[:5]]
    assert nearest_distances(held_out[:5], train) == pytest.approx(wanted, rel=1e-4)
    assert nearest_median(train[:10], train) == 0


@pytest.mark.parametrize("share", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("change", ["exact", "noisy"])
def test_copies_among_the_slices_are_found(share: float, change: str, sets: tuple[np.ndarray, ...]) -> None:
    train, held_out, others = sets
    count = round(share * NUM)
    copied = train[:count] if change == "exact" else _noisy(train[:count], 3)
    found = copying(np.concatenate([copied, others[: NUM - count]]), held_out, train)
    assert found.copies
    assert COPIES in str(found.warning)


@pytest.mark.parametrize("change", ["real", "blurred", "noise", "mean"])
def test_what_is_no_copy_is_left_alone(change: str, sets: tuple[np.ndarray, ...]) -> None:
    train, held_out, others = sets
    images = {
        "real": others,
        "blurred": np.stack([gaussian_filter(image, 2) for image in others]),
        "noise": np.random.default_rng(1).integers(256, size=others.shape, dtype=np.uint8),
        "mean": np.repeat(train.mean(0).round().astype(np.uint8)[None], NUM, axis=0),
    }[change]
    found = copying(images, held_out, train)
    assert not found.copies
    assert found.warning is None


def test_an_evaluation_warns_of_copies_that_beat_the_floor(tiny_dataset: Dataset) -> None:
    config = EvaluationConfig(metrics=("ssim_pairs",), num_samples=60)
    warned = evaluate(np.array(tiny_dataset.images("train")), tiny_dataset, config).warnings
    assert any(COPIES in warning for warning in warned)
    held_out = np.concatenate([tiny_dataset.images("validation"), tiny_dataset.images("test")])
    assert not any(COPIES in warning for warning in evaluate(held_out, tiny_dataset, config).warnings)


def test_every_evaluation_tells_the_copied_share_with_its_floor(tiny_dataset: Dataset) -> None:
    config = EvaluationConfig(metrics=("ssim_pairs",), num_samples=60)
    train = np.array(tiny_dataset.images("train"))
    held_out = np.concatenate([tiny_dataset.images("validation"), tiny_dataset.images("test")])
    num = len(held_out)
    half = np.concatenate([train[: num // 2], held_out[: num - num // 2]])
    looked = copying(half, held_out, train)
    result = evaluate(half, tiny_dataset, config)
    assert result.copied is not None
    assert (result.copied.value, result.copied.floor) == (looked.near / num, looked.expected / num)
    assert result.copied.value >= num // 2 / num
    assert result.copied.interval is not None
    assert result.copied.interval[0] < result.copied.value < result.copied.interval[1]
    assert [record.name for record in result.records] == ["ssim_pairs"]  # as asked for
    assert result.metrics()["eval/copied_share"] == result.copied.value
    assert result.metrics()["eval/copied_share_floor"] == result.copied.floor
    assert result.num_slices()["eval/copied_share"] == num
    assert "| copied_share |" in result.table()
    assert EvaluationResult.model_validate_json(result.model_dump_json()) == result


def test_copies_of_training_slices_outside_the_reference_count(tiny_dataset: Dataset) -> None:
    train = np.array(tiny_dataset.images("train"))
    config = EvaluationConfig(metrics=("ssim_pairs",), num_samples=60, num_reference=5)
    result = evaluate(train, tiny_dataset, config)
    assert result.copied is not None
    assert (result.copied.value, result.copied.num_reference) == (1, len(train))


def test_distances_do_not_depend_on_how_many_training_slices_are_compared_at_a_time(
    sets: tuple[np.ndarray, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    train, held_out, _ = sets
    whole = nearest_distances(held_out, train)
    monkeypatch.setattr("lwddpm.evaluation.copying._TRAIN_AT_ONCE", 64)
    assert nearest_distances(held_out, train) == pytest.approx(whole, rel=1e-5)


def test_an_evaluation_of_an_earlier_version_has_no_copied_share(tiny_dataset: Dataset) -> None:
    held_out = np.concatenate([tiny_dataset.images("validation"), tiny_dataset.images("test")])
    result = evaluate(held_out, tiny_dataset, EvaluationConfig(metrics=("ssim_pairs",)))
    earlier = EvaluationResult.model_validate(result.model_dump(mode="json", exclude={"copied"}))
    assert earlier.copied is None
    assert "eval/copied_share" not in earlier.metrics() | earlier.num_slices()
    assert "copied_share" not in earlier.table()
