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


@pytest.mark.parametrize(
    ("capabilities", "dim", "expected"),
    [
        ({"amx_bf16": True}, 16, (True, False)),
        ({"amx_bf16": True}, 80, (True, True)),
        ({"amx_bf16": False, "avx512_bf16": True}, 16, (True, False)),
        ({"amx_bf16": False, "avx512_bf16": False}, 80, (False, False)),
        ({}, 80, (False, False)),
        ({}, 16, (False, True)),
    ],
)
def test_a_cpu_uses_its_bf16_units_and_the_layout_that_is_fast_with_them(
    capabilities: dict[str, bool], dim: int, expected: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)  # of a CPU that may not be this one
    chosen = choose_precision(TrainingConfig(), ModelConfig(dim=dim), CPU, num_steps=10**6)
    assert (chosen.bf16, chosen.channels_last) == expected
    assert not chosen.compile


def test_bf16_changes_the_arithmetic_and_not_the_weights() -> None:
    chosen = choose_precision(TrainingConfig(precision="bf16"), ModelConfig(), CPU)
    layer = torch.nn.Conv2d(1, 4, 3)
    with chosen.autocast():
        assert chosen.place(layer)(chosen.place_input(torch.zeros(1, 1, 8, 8))).dtype == torch.bfloat16
    assert layer.weight.dtype == torch.float32
