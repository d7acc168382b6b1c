import pytest
import torch

from lwddpm.config import ModelConfig, TrainingConfig
from lwddpm.training.precision import choose_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("value", ["fp32", "bf16"])
def test_what_is_asked_for_is_taken(value: str) -> None:
    config = TrainingConfig(precision=value, channels_last=True, compile=True)
    chosen = choose_precision(config, ModelConfig(dim=8), CPU)
    assert (chosen.bf16, chosen.channels_last, chosen.compile) == (value == "bf16", True, True)


def test_small_networks_on_a_cpu_stay_in_float32() -> None:
    chosen = choose_precision(TrainingConfig(), ModelConfig(dim=16), CPU, num_steps=10**6)
    assert (chosen.bf16, chosen.channels_last, chosen.compile) == (False, False, False)


def test_bf16_changes_the_arithmetic_and_not_the_weights() -> None:
    chosen = choose_precision(TrainingConfig(precision="bf16"), ModelConfig(), CPU)
    layer = torch.nn.Conv2d(1, 4, 3)
    with chosen.autocast():
        assert chosen.place(layer)(chosen.place_input(torch.zeros(1, 1, 8, 8))).dtype == torch.bfloat16
    assert layer.weight.dtype == torch.float32
