from collections.abc import Sequence
from typing import Literal

import pytest
import torch
from torch import nn

from lwddpm.config import DiffusionConfig, ModelConfig, SamplingConfig, TrainingConfig
from lwddpm.diffusion.sampling import generate
from lwddpm.models.build import build_model
from lwddpm.models.precision import (
    DrawingNetwork,
    Precision,
    choose_precision,
    drawing_precision,
    settled_precision,
)

CPU = torch.device("cpu")
MODEL = ModelConfig(dim=16, dim_mults=(1, 2))


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


@pytest.fixture
def trained() -> nn.Module:
    """A small network whose last layer is not zero, as it is in an untrained one."""
    torch.manual_seed(1)
    network = build_model(MODEL).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize(
    ("asked", "capabilities", "expected"),
    [
        ("auto", {"amx_bf16": True}, "bf16"),
        ("auto", {}, "fp32"),
        ("fp32", {"amx_bf16": True}, "fp32"),
        ("bf16", {}, "bf16"),
    ],
)
def test_drawing_takes_bf16_where_the_cpu_multiplies_it(
    asked: Literal["auto", "fp32", "bf16"],
    capabilities: dict[str, bool],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert settled_precision(asked, CPU) == expected


@pytest.mark.parametrize("dim", [16, 80])
def test_drawing_in_float32_is_the_plain_network(dim: int) -> None:
    chosen = drawing_precision("fp32", ModelConfig(dim=dim), CPU, num_calls=10**9)
    assert chosen == Precision("cpu", bf16=False, channels_last=False, compile=False)


def test_drawing_in_bf16_keeps_float32_outside_of_the_network(trained: nn.Module) -> None:
    x, t = torch.randn(3, 1, 16, 16), torch.tensor([0, 50, 99])
    drawn = DrawingNetwork(trained, drawing_precision("bf16", MODEL, CPU))(x, t)
    exact = trained(x, t)
    assert drawn.dtype == torch.float32
    assert not torch.equal(drawn, exact)  # it is computed otherwise
    assert (drawn - exact).norm() < 0.03 * exact.norm()  # bf16 has 8 bits: 0.004 an operation


@pytest.mark.parametrize("sampler", ["dpmsolver++", "sde-dpmsolver++"])
def test_in_bf16_a_slice_is_the_same_in_any_batch(trained: nn.Module, sampler: Literal["dpmsolver++"]) -> None:
    network = DrawingNetwork(trained, drawing_precision("bf16", MODEL, CPU))
    diffusion = DiffusionConfig(prediction_type="v_prediction", num_train_timesteps=100)

    def drawn(indices: Sequence[int], batch_size: int) -> torch.Tensor:
        sampling = SamplingConfig(sampler=sampler, num_inference_steps=5, batch_size=batch_size)
        return generate(network, diffusion, sampling, indices, 16, CPU)

    whole = drawn(range(8), 8)
    for size in (1, 3, 5):
        assert torch.equal(drawn(range(8), size), whole)
    assert torch.equal(drawn([5, 2], 64), whole[[5, 2]])
    assert not torch.equal(whole[0], whole[1])


def test_a_compiled_network_sees_one_batch_size_and_stays_in_its_mode() -> None:
    class Network(nn.Module):
        compiled, sizes = 0, set[int]()

        def compile(self) -> None:  # type: ignore[override]
            self.compiled += 1

        def forward(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            self.sizes.add(len(x))
            assert len(timesteps) == len(x)
            return 2 * x + timesteps[:, None, None, None]

    network = Network().eval()
    drawing = DrawingNetwork(network, Precision("cpu", bf16=False, channels_last=False, compile=True), batch_size=4)
    for size in (4, 1, 3):
        x, t = torch.randn(size, 1, 2, 2), torch.arange(size)
        torch.testing.assert_close(drawing(x, t), 2 * x + t[:, None, None, None])
    assert (network.sizes, network.compiled, drawing.training) == ({4}, 1, False)
