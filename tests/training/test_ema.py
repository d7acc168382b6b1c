import torch
from torch import nn

from lwddpm.training.ema import ExponentialMovingAverage


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
