import pytest
import torch
from torch import nn

from lwddpm.training.ema import ExponentialMovingAverage, PowerFunctionAverage, power_of


def test_it_follows_the_recurrence_with_warm_up() -> None:
    model = nn.Linear(3, 2, bias=False)
    ema = ExponentialMovingAverage(model, decay=0.9)
    expected = model.weight.detach().clone().double()
    for n in range(200):
        with torch.no_grad():
            model.weight.normal_()
        ema.update(model, n)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * model.weight.detach().double()
    torch.testing.assert_close(ema.model.weight.double(), expected, rtol=0, atol=1e-6)


def test_it_is_a_copy_that_takes_no_gradient() -> None:
    model = nn.Linear(3, 2)
    ema = ExponentialMovingAverage(model, decay=0.5)
    assert not any(p.requires_grad for p in ema.model.parameters())
    assert all(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        model.weight.zero_()
    assert ema.model.weight.abs().sum() > 0


@pytest.mark.parametrize("length", [0.05, 0.1, 0.25])
def test_a_power_function_average_reaches_back_its_share_of_the_training(length: float) -> None:
    """Weights that are one for one step only: what is left of each step is its weight in the average."""
    steps = 4000
    model = nn.Linear(steps, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(7.0)  # the initial weights, of which nothing may be left
    average = PowerFunctionAverage(model, length)
    for n in range(steps):
        with torch.no_grad():
            model.weight.zero_()[0, n] = 1
        average.update(model, n)
    weights = average.model.weight[0]
    assert weights.sum() == pytest.approx(1)
    time = (torch.arange(steps, dtype=torch.float64) + 1) / steps
    mean = (weights * time).sum()
    spread = ((weights * (time - mean) ** 2).sum()).sqrt()
    assert float(spread) == pytest.approx(length, rel=5e-3)
    expected = time ** power_of(length)  # Karras et al. 2024, eq. 1
    torch.testing.assert_close(weights, expected / expected.sum(), rtol=0.05, atol=1e-5)


def test_the_power_of_a_length_is_that_of_the_paper() -> None:
    """Karras et al. 2024, section 3.1: gamma = 16.97 for 5 %, 6.94 for 10 %."""
    assert power_of(0.05) == pytest.approx(16.97, abs=0.005)
    assert power_of(0.10) == pytest.approx(6.94, abs=0.005)
