"""Drawing from a model folder in this process; on workers it is tested with whole jobs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lwddpm.cluster.generate import generate_images, settled
from lwddpm.cluster.session import Session
from lwddpm.config import ONE_PASS, SamplingConfig, WorkersConfig
from lwddpm.diffusion.sampling import generate
from lwddpm.training.stored_model import load_for_drawing, load_model

SAMPLING = SamplingConfig(sampler="dpmsolver++", num_inference_steps=4, batch_size=2)
CAPABILITIES = {"bf16": {"amx_bf16": True}, "fp32": dict[str, bool]()}


@pytest.fixture
def trained_dir(model_dir: Path) -> Path:
    """Weights as after a training: those of an untrained network predict zero in any number format."""
    file, generator = model_dir / "model.safetensors", torch.Generator().manual_seed(0)
    save_file({n: v + 0.05 * torch.randn(v.shape, generator=generator) for n, v in load_file(file).items()}, file)
    return model_dir


@pytest.fixture
def here() -> Session:
    return Session.inside_ray(WorkersConfig(use_gpu=False))


@pytest.mark.parametrize("found", ["bf16", "fp32"])
def test_auto_is_what_the_device_is_fast_at(found: str, here: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: CAPABILITIES[found])
    assert settled(SAMPLING, here).precision == found
    assert settled(SAMPLING.model_copy(update={"precision": "fp32"}), here).precision == "fp32"
    gan = SamplingConfig(**ONE_PASS)
    assert settled(gan, here) == gan


def test_fp32_draws_the_slices_of_the_plain_network_and_auto_those_of_the_device(
    trained_dir: Path, here: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(**settings: str) -> np.ndarray:
        return generate_images(trained_dir, SAMPLING.model_copy(update=settings), 5, here)

    model, saved = load_model(trained_dir)
    plain = generate(model, saved.diffusion, SAMPLING, range(5), 16, "cpu").numpy()
    assert np.array_equal(drawn(precision="fp32"), plain)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: CAPABILITIES["fp32"])
    assert np.array_equal(drawn(), plain)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: CAPABILITIES["bf16"])
    fast = drawn()
    assert np.array_equal(fast, drawn(precision="bf16"))
    difference = np.abs(fast.astype(int) - plain.astype(int))
    assert 0 < difference.mean() < 2


@pytest.mark.parametrize(("sampler", "calls"), [("dpmsolver++", 4), ("heun", 7)])
def test_a_network_is_made_ready_for_the_calls_that_a_drawing_takes(
    trained_dir: Path, here: Session, monkeypatch: pytest.MonkeyPatch, sampler: str, calls: int
) -> None:
    told: list[int] = []

    def load(path: Path, precision: Any, device: Any, batch_size: int, num_calls: int = 0) -> Any:
        told.append(num_calls)
        return load_for_drawing(path, precision, device, batch_size, num_calls)

    monkeypatch.setattr("lwddpm.cluster.generate.load_for_drawing", load)
    sampling = SAMPLING.model_copy(update={"sampler": sampler, "start": "noise", "precision": "fp32"})
    generate_images(trained_dir, sampling, 5, here)
    assert told == [3 * calls]  # of three batches; the network is loaded once
