"""What synthetic slices are worth where that is known: copies and random classes nothing, good ones all."""

import numpy as np
import pytest

from lwddpm.audit.utility.arms import Arm, arms
from lwddpm.audit.utility.learners import Fit, Slices, first_asked, learn
from lwddpm.audit.utility.result import UtilityResult, result_of
from lwddpm.config import Learner, SamplingConfig, UtilityConfig

NAMES = ("left", "right")


def _slices(num: int, seed: int, blur: float = 1.0) -> Slices:
    """Bright on the left or on the right under noise; features are two blurred views of that."""
    draw = np.random.default_rng(seed)
    labels = np.arange(num) % 2
    images = draw.normal(100, 20, (num, 32, 32))
    for row, label in enumerate(labels):
        images[row, label * 16 : label * 16 + 16] += 40
    means = np.stack([images[:, :16].mean((1, 2)), images[:, 16:].mean((1, 2))], 1) / 40
    features = np.concatenate([means + draw.normal(0, blur, means.shape), draw.normal(0, 1, (num, 6))], 1)
    return Slices(images.clip(0, 255).astype(np.uint8), labels, np.arange(num), features.astype(np.float32))


def _study(synthetic: Slices, train: Slices, learner: Learner = "logistic", **settings: object) -> UtilityResult:
    config = UtilityConfig.model_validate(
        {"learners": [learner], "real_shares": [0.25, 1], "synthetic_ratios": [0, 1], "seeds": 3} | settings
    )
    test = _slices(200, 99)
    fits = {arm: learn(arm, config, train, test, synthetic, 2, "cpu") for arm in arms(config)}
    return result_of(fits, config, train, test, synthetic, NAMES, SamplingConfig())


def test_copies_of_all_training_slices_add_nothing_to_them() -> None:
    train = _slices(120, 0)
    found = _study(train, train).learners[0]
    beside = found.beside_all
    assert beside.num_synthetic == 120
    assert beside.gain is not None
    assert abs(beside.gain.value) < 0.005
    assert beside.p_adjusted is not None
    assert beside.p_adjusted > 0.05
    assert found.synthetic.accuracy.value == pytest.approx(found.real.accuracy.value, abs=0.005)


def test_slices_of_random_classes_teach_chance() -> None:
    synthetic, taught = _slices(400, 1), []
    for seed in range(6):
        labels = np.random.default_rng(seed).permutation(synthetic.labels)
        found = _study(synthetic._replace(labels=labels), _slices(400, 0), seeds=2).learners[0]
        taught.append(found.synthetic.accuracy.value)
        assert found.real.accuracy.low > 0.65
        assert found.on_synthetic.low < 0.55
        assert found.on_synthetic.high > 0.45
    assert np.mean(taught) == pytest.approx(0.5, abs=0.1)


def test_new_slices_of_the_same_kind_are_worth_as_many_real_ones_and_help_a_few() -> None:
    found = _study(_slices(400, 1), _slices(200, 0), synthetic_ratios=[0, 2]).learners[0]
    assert found.synthetic.accuracy.value == pytest.approx(found.real.accuracy.value, abs=0.05)
    few = found.arm(0.25, 2.0)
    assert few.gain is not None
    assert few.gain.high > 0
    assert few.num_real, few.num_synthetic == (50, 100)


@pytest.mark.parametrize("learner", ["logistic", "resnet"])
def test_what_can_be_told_apart_is_learnt_from_synthetic_slices(learner: Learner) -> None:
    synthetic, train = _slices(64, 1, blur=0.01), _slices(64, 0, blur=0.01)
    config = UtilityConfig(learners=(learner,), steps=25, batch_size=16)
    fit = learn(Arm(learner, 0.0, 1.0, 0), config, train, test := _slices(60, 9, blur=0.01), synthetic, 2, "cpu")
    assert (fit.on_real == test.labels).mean() > 0.97


def test_every_mixture_takes_the_same_steps_and_its_seed_alone_decides() -> None:
    train, synthetic, test = _slices(40, 0), _slices(80, 1), _slices(10, 2)
    config = UtilityConfig(steps=3, batch_size=16)
    few, many = (
        learn(Arm("resnet", share, ratio, 0), config, train, test, synthetic, 2, "cpu")
        for share, ratio in ((0.1, 0.0), (1.0, 2.0))
    )
    assert few.steps == many.steps == 3
    again = learn(Arm("resnet", 0.1, 0.0, 0), config, train, test, synthetic, 2, "cpu")
    assert again.on_real.tolist() == few.on_real.tolist()


def test_arms_of_different_length_are_not_compared() -> None:
    config = UtilityConfig(learners=("resnet",), real_shares=(1.0,), synthetic_ratios=(0.0, 1.0), seeds=2)
    slices = _slices(8, 0)
    fits = {arm: Fit(slices.labels, slices.labels, 5 + (arm.ratio > 0)) for arm in arms(config)}
    with pytest.raises(AssertionError, match="same optimizer steps"):
        result_of(fits, config, slices, slices, slices, NAMES, SamplingConfig())


def test_a_class_without_slices_is_never_answered_and_one_without_test_slices_is_left_out() -> None:
    train = _slices(40, 0)
    config = UtilityConfig(learners=("logistic",))
    fit = learn(Arm("logistic", 1.0, 0.0, 0), config, train, _slices(20, 2), train, 3, "cpu")
    assert set(fit.on_real.tolist()) <= {0, 1}
    one = config.model_copy(update={"real_shares": (1.0,), "synthetic_ratios": (0.0, 1.0), "seeds": 2})
    test = _slices(20, 2)
    fits = {arm: learn(arm, one, train, test, train, 3, "cpu") for arm in arms(one)}
    found = result_of(fits, one, train, test, train, (*NAMES, "never"), SamplingConfig())
    assert found.left_out == ("never",)
    assert set(found.learners[0].real.sensitivity) == set(NAMES)


def test_slices_that_were_asked_for_nothing_are_not_learnt_from() -> None:
    slices = _slices(10, 0)
    unasked = slices._replace(labels=np.where(np.arange(10) < 5, -1, slices.labels))
    assert first_asked(unasked, 3).labels.tolist() == slices.labels[5:8].tolist()
