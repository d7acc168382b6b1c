"""What the training loop relies on, of every step. A new one is a line in STEPS."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lwddpm.config import TrainJob
from lwddpm.data.store import Dataset
from lwddpm.diffusion.sampling import generate
from lwddpm.training.adversarial import AdversarialStep
from lwddpm.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from lwddpm.training.denoising import DenoisingStep
from lwddpm.training.schedule import Schedule
from lwddpm.training.step import TrainingStep

CPU = torch.device("cpu")
GAN = ("model.family=wgan", "adversarial.n_critic=2", "adversarial.gradient_penalty=10")
CLASSES = ("model.conditions=[label]", "training.condition_dropout=0.5", "training.sampling=balanced")
# the class, and what makes a job for it of the smallest one
STEPS: dict[str, tuple[type[TrainingStep], bool, tuple[str, ...]]] = {
    "denoising": (DenoisingStep, False, ()),
    "denoising, with all that is learned beside": (
        DenoisingStep,
        False,
        ("training.loss_weighting=learned", "training.augment=0.5"),
    ),
    "denoising, by Muon": (DenoisingStep, False, ("training.optimizer=muon",)),
    "denoising, on crops in every other step": (
        DenoisingStep,
        False,
        ("training.patches={share: 0.5}", "training.loss_weighting=learned", "training.augment=0.5"),
    ),
    "denoising, told of classes": (DenoisingStep, False, CLASSES),
    "adversarial, told of classes": (AdversarialStep, True, (*GAN, *CLASSES)),
    "adversarial": (AdversarialStep, True, ("model.family=lsgan",)),
    "adversarial, wgan": (AdversarialStep, True, GAN),
}
Build = Callable[..., TrainingStep]


@pytest.fixture(params=STEPS)
def build(
    request: pytest.FixtureRequest,
    tiny_job: Callable[..., TrainJob],
    tiny_gan: Callable[..., TrainJob],
    tiny_dataset: Dataset,
) -> Build:
    """Builds a step that is ready to be taken; arguments are further overrides of its job."""
    kind, is_gan, overrides = STEPS[request.param]

    def make(*more: str, before: Callable[[TrainingStep], object] = lambda step: None) -> TrainingStep:
        job = (tiny_gan if is_gan else tiny_job)(*overrides, *more)
        step = kind(job, tiny_dataset, Schedule.of(job.training, tiny_dataset.num("train"), job.batches_per_step), CPU)
        before(step)
        step.distribute()
        return step

    return make


def _take(step: TrainingStep, *numbers: int) -> list[dict[str, float]]:
    return [{name: value.item() for name, value in step.take(number).items()} for number in numbers]


def _weights(step: TrainingStep) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, module in step.modules.items()
        for key, value in module.state_dict().items()
    }


def test_a_step_returns_the_values_that_it_announces(build: Build) -> None:
    step = build()
    values = step.take(0)
    assert set(values) == set(step.values)
    assert step.values[0] == "train/loss"
    assert all(value.shape == () and value.isfinite() and not value.requires_grad for value in values.values())


def test_the_same_seed_gives_the_same_numbers_and_another_gives_others(build: Build) -> None:
    first, second, other = build(), build(), build("seed=1")
    numbers = _take(first, 0, 1, 2)
    assert _take(second, 0, 1, 2) == numbers
    assert _take(other, 0, 1, 2) != numbers
    expected, weights = _weights(first), _weights(second)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_checkpoint_restores_all_that_the_next_step_depends_on(build: Build, tmp_path: Path) -> None:
    whole = build()
    _take(whole, 0, 1)
    state = TrainingState(step=2, training_digest="d", dataset_version="v", initial_loss=None)
    path = save_checkpoint(tmp_path, state, whole.modules, whole.optimizers, keep=1)
    restored = build("seed=0", before=lambda step: load_checkpoint(path, step.modules, step.optimizers, CPU))
    assert _take(restored, 2, 3) == _take(whole, 2, 3)
    expected, weights = _weights(whole), _weights(restored)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_batch_in_chunks_is_the_batch(build: Build, request: pytest.FixtureRequest) -> None:
    """In float64, where rounding hides nothing; without spectral norm, whose estimate each chunk refines."""
    plain = ("adversarial.discriminator_norm=group",) if isinstance(build(), AdversarialStep) else ()
    request.addfinalizer(lambda: torch.set_default_dtype(torch.float32))
    torch.set_default_dtype(torch.float64)
    whole, chunks = build(*plain), build(*plain, "training.grad_accumulation_steps=4")
    for expected, values in zip(_take(whole, 0, 1, 2), _take(chunks, 0, 1, 2), strict=True):
        assert values == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_checkpoint_holds_every_trained_parameter_once(build: Build) -> None:
    step = build()
    assert {"model", "ema"} <= step.modules.keys()
    assert not step.modules.keys() & step.optimizers.keys()  # both are names of files
    assert step.modules["model"] is step.model
    assert step.modules["ema"] is step.ema.model
    trained = [p for name, module in step.modules.items() if name != "ema" for p in module.parameters()]
    stepped = [p for optimizer in step.optimizers.values() for group in optimizer.param_groups for p in group["params"]]
    assert len({id(p) for p in stepped}) == len(stepped)
    assert {id(p) for p in trained} == {id(p) for p in stepped}
    assert all(p.requires_grad for p in trained)


def test_validating_changes_nothing(build: Build) -> None:
    with_, without = build(), build()
    for step in (with_, without):
        _take(step, 0)
    first = with_.validate()
    assert with_.validate() == first
    assert all(value == value for value in first.values())
    assert _take(with_, 1) == _take(without, 1)
    assert with_.model.training


def test_the_average_follows_the_network_and_draws_slices(build: Build) -> None:
    step = build("training.lr=1e-2")
    before = {name: value.clone() for name, value in step.ema.model.state_dict().items()}
    _take(step, 0, 1)
    moved = step.ema.model.state_dict()
    assert any(not torch.equal(moved[name], before[name]) for name in before)
    assert not any(p.requires_grad for p in step.ema.model.parameters())
    size = step.dataset.manifest.image_size
    images = generate(step.ema.model, step.job.diffusion, step.grid, range(2), size, CPU)
    assert (images.shape, images.dtype) == ((2, size, size), torch.uint8)


def test_the_rate_is_that_of_the_schedule(build: Build) -> None:
    step = build("training.lr=1e-3", "training.warmup_steps=4", "training.lr_schedule=constant")
    assert step.learning_rate(0) == pytest.approx(2.5e-4)
    _take(step, 0)
    rates = [group["lr"] for group in step.optimizers["optimizer"].param_groups]
    assert rates == [step.learning_rate(0)]
