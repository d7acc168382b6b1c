import pytest
import torch
from timm.optim.muon import zeropower_via_newtonschulz
from torch import nn

from lwddpm.config import ModelConfig
from lwddpm.models.build import build_model
from lwddpm.training.muon import Muon, is_matrix, orthogonalized


@pytest.mark.parametrize("shape", [(3, 24, 216), (1, 216, 24), (2, 16, 16)])
def test_singular_vectors_stay_and_singular_values_come_near_one(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    of_result = left.mT @ orthogonalized(matrices) @ right.mT
    diagonal = of_result.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(of_result, torch.diag_embed(diagonal), rtol=0, atol=1e-4)
    certain = values > 0.02 * values.amax(-1, keepdim=True)  # five iterations do not bring smaller ones up to 1
    assert diagonal[certain].min() > 0.65
    assert diagonal.max() < 1.25


def test_it_is_the_iteration_over_whole_matrices() -> None:
    matrix = torch.randn(24, 216, generator=torch.Generator().manual_seed(1))
    theirs = zeropower_via_newtonschulz(matrix, 5, [(3.4445, -4.7750, 2.0315)], dtype=torch.float32)
    torch.testing.assert_close(orthogonalized(matrix[None])[0], theirs, rtol=0, atol=1e-5)


def test_a_step_is_the_update_of_the_docstring() -> None:
    generator = torch.Generator().manual_seed(2)
    kernel = nn.Parameter(torch.randn(16, 8, 3, 3, generator=generator))
    alike = nn.Parameter(torch.randn(16, 8, 3, 3, generator=generator))  # of one shape: updated together
    first, second = torch.randn(2, 16, 8, 3, 3, generator=generator)
    optimizer = Muon([kernel, alike], lr=0.01, momentum=0.9)
    expected, momentum = kernel.detach().clone(), torch.zeros_like(first)
    for gradient in (first, second):
        kernel.grad, alike.grad = gradient.clone(), torch.zeros_like(gradient)
        optimizer.step()
        momentum = 0.9 * momentum + 0.1 * gradient
        update = orthogonalized((0.9 * momentum + 0.1 * gradient).reshape(1, 16, 72))
        expected -= 0.01 * 0.2 * 72**0.5 * update.reshape(16, 8, 3, 3)
    torch.testing.assert_close(kernel.detach(), expected)


def test_an_update_is_as_large_as_one_of_adam() -> None:
    """So that both take the same learning rate: a root mean square of 0.2 lr or a little less."""
    kernel = nn.Parameter(torch.zeros(32, 64, 3, 3))
    kernel.grad = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(3)) * 1e-4
    Muon([kernel], lr=0.01).step()
    assert 0.15 * 0.01 < kernel.detach().square().mean().sqrt().item() < 0.25 * 0.01


def test_a_parameter_without_gradient_stays_and_one_whose_gradient_is_zero_too() -> None:
    unused, still = nn.Parameter(torch.ones(16, 16)), nn.Parameter(torch.ones(16, 16))
    still.grad = torch.zeros(16, 16)
    Muon([unused, still], lr=0.1).step()
    assert torch.equal(unused, torch.ones(16, 16))
    assert torch.equal(still, torch.ones(16, 16))


def test_the_memory_layout_changes_nothing() -> None:
    kernels, gradient = torch.randn(2, 16, 8, 3, 3, generator=torch.Generator().manual_seed(4))
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        parameter = nn.Parameter(kernels.clone(memory_format=memory_format))
        parameter.grad = gradient.clone(memory_format=memory_format)
        Muon([parameter], lr=0.1).step()
        results.append(parameter.detach().contiguous())
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_vectors_and_narrow_matrices_are_left_to_adam() -> None:
    network = build_model(ModelConfig(dim=32, dim_mults=(1, 3), patch=2, head_skip=True), 32)
    taken = {name: tuple(p.shape) for name, p in network.named_parameters() if is_matrix(p)}
    left = {name: tuple(p.shape) for name, p in network.named_parameters() if not is_matrix(p)}
    assert all(len(shape) == 1 or min(shape[:2]) < 8 for shape in left.values())
    assert (96, 96, 3, 3) in taken.values()
    assert sum(torch.Size(shape).numel() for shape in taken.values()) > 0.98 * sum(
        p.numel() for p in network.parameters()
    )
