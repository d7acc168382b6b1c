"""The Gaussian baseline against NumPy's covariance and SciPy's matrix root."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from lwddpm.diffusion.gaussian import SliceGaussian, fit_gaussian
from lwddpm.diffusion.streams import noise_streams

SIZE = 6


def slices(num: int) -> Tensor:
    """Slices whose pixels vary together, uint8 [num, SIZE, SIZE]."""
    random = np.random.default_rng(3)
    mixed = random.normal(size=(num, 8)) @ random.normal(size=(8, SIZE * SIZE)) * 9 + 6 * random.normal(
        size=(num, SIZE * SIZE)
    )
    return torch.from_numpy((mixed + 128).clip(0, 255).astype(np.uint8)).reshape(num, SIZE, SIZE)


def moments(images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    flat = images.flatten(1).numpy() / 127.5 - 1
    return flat.mean(0), np.cov(flat, rowvar=False)


@pytest.mark.parametrize("num", [20, 36, 37, 400])
def test_mean_and_covariance_are_those_of_the_slices(num: int) -> None:
    images = slices(num)
    fitted = fit_gaussian(images)
    mean, covariance = moments(images)
    axes = fitted.axes.flatten(1).double().numpy()
    assert len(axes) == min(num - 1, SIZE * SIZE)
    np.testing.assert_allclose(fitted.mean.flatten(), mean, atol=1e-6)
    np.testing.assert_allclose(axes.T @ axes, covariance, atol=1e-6)


def test_the_directions_of_largest_variance_are_kept_with_their_variance() -> None:
    images = slices(30)
    kept = fit_gaussian(images, most_directions=3).axes.flatten(1).double()
    largest = np.linalg.eigvalsh(moments(images)[1])[::-1][:3]
    np.testing.assert_allclose((kept @ kept.T).numpy(), np.diag(largest), atol=1e-6)


def test_slices_that_are_alike_leave_few_directions() -> None:
    images = slices(3).repeat(10, 1, 1)
    fitted = fit_gaussian(images)
    assert len(fitted.axes) == 2
    assert fitted.draw(range(50), 0).float().std() > 1
    with pytest.raises(ValueError, match="2 or more slices, got 1"):
        fit_gaussian(images[:1])


def test_a_slice_is_the_mean_and_the_root_of_the_covariance_times_the_samplers_noise() -> None:
    images = slices(200)
    mean, covariance = moments(images)
    noise = torch.stack([torch.randn(1, SIZE, SIZE, generator=stream) for stream in noise_streams(7, range(5))])
    expected = mean + noise.flatten(1).double().numpy() @ scipy.linalg.sqrtm(covariance).real
    pixels = ((expected.clip(-1, 1) + 1) * 127.5).reshape(5, SIZE, SIZE)
    assert np.abs(fit_gaussian(images).draw(range(5), 7).numpy() - pixels).max() <= 0.51


def test_a_slice_depends_on_the_seed_and_its_number_alone() -> None:
    fitted = fit_gaussian(slices(40))
    many = fitted.draw(range(150), 1)
    assert torch.equal(fitted.draw([149, 3], 1), many[[149, 3]])
    assert not torch.equal(fitted.draw(range(150), 2), many)
    assert fitted.draw([], 1).shape == (0, SIZE, SIZE)


def test_many_slices_have_the_moments() -> None:
    generator = torch.Generator().manual_seed(0)
    axes = (
        torch.linalg.qr(torch.randn(16, 2, generator=generator)).Q.T.reshape(2, 4, 4)
        * torch.tensor([0.2, 0.1])[:, None, None]
    )
    drawn = SliceGaussian(torch.full((4, 4), 0.1), axes).draw(range(4000), 0).flatten(1).double() / 127.5 - 1
    assert (drawn.mean(0) - 0.1).abs().max() < 0.01
    expected = axes.flatten(1).double().T @ axes.flatten(1).double()
    assert (drawn.T.cov() - expected).abs().max() < 0.002
