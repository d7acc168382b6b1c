import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from lwddpm.evaluation.similarity import ssim, ssim_nearest, ssim_pairs


def scikit_image(a, b):
    return structural_similarity(
        a / 255, b / 255, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )


def smooth(n, size, seed):
    """Blurred noise with dark borders: as hard to tell apart as slices, and no two alike."""
    noise = np.random.default_rng(seed).standard_normal((n, size, size))
    blurred = gaussian_filter(noise, (0, size / 12, size / 12))
    stretched = 128 + 70 * blurred / blurred.std((1, 2), keepdims=True)
    stretched[:, :4] = stretched[:, -4:] = 0
    return stretched.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [16, 33, 128])
def test_agrees_with_scikit_image(size):
    a, b = smooth(6, size, 0), smooth(6, size, 1)
    b[0] = 255 - a[0]  # negative covariance
    b[1] = a[1] // 2
    b[2], a[2] = 0, 255
    assert ssim(a, b).tolist() == pytest.approx([scikit_image(x, y) for x, y in zip(a, b, strict=True)], abs=1e-12)


def test_is_one_for_equal_images_only_and_symmetric():
    a, b = smooth(20, 32, 0), smooth(20, 32, 1)
    assert ssim(a, a).tolist() == pytest.approx([1] * 20)
    assert ssim(a, b).max() < 0.999
    torch.testing.assert_close(ssim(a, b), ssim(b, a))


def test_nearest_recalls_the_exhaustive_search():
    queries, bank = smooth(40, 64, 0), smooth(150, 64, 1)
    brute = torch.stack([ssim(np.broadcast_to(q, bank.shape), bank) for q in queries])
    value, index = ssim_nearest(queries, bank)
    exact, expected = brute.max(dim=1)
    assert (index == expected).float().mean() >= 0.95
    torch.testing.assert_close(value, brute.gather(1, index[:, None])[:, 0])  # an SSIM in full, never the shortcut's
    assert (exact - value).max() < 0.01
    full, _ = ssim_nearest(queries, bank, shortlist=len(bank))
    torch.testing.assert_close(full, exact)


def test_nearest_finds_copies_at_any_place_in_the_bank():
    bank, done = smooth(300, 32, 0), []
    value, index = ssim_nearest(bank, bank, on_batch=done.append)
    assert index.tolist() == list(range(300))
    assert value.min() > 1 - 1e-9
    assert sum(done) == 300


def test_nearest_in_a_bank_smaller_than_the_shortlist():
    value, index = ssim_nearest(smooth(3, 32, 0), smooth(1, 32, 1))
    assert index.tolist() == [0, 0, 0]
    assert value.tolist() == pytest.approx([scikit_image(q, smooth(1, 32, 1)[0]) for q in smooth(3, 32, 0)])


def test_pairs_never_pair_an_image_with_itself_and_follow_the_seed():
    images = smooth(4, 32, 0)
    values = ssim_pairs(images, num_pairs=300, seed=0)
    possible = {round(float(ssim(images[[i]], images[[j]])), 9) for i in range(4) for j in range(i)}
    assert {round(float(v), 9) for v in values} == possible
    assert torch.equal(values, ssim_pairs(images, num_pairs=300, seed=0))
    assert not torch.equal(values, ssim_pairs(images, num_pairs=300, seed=1))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8), np.uint8), "S >= 11"),
        (np.zeros((2, 16, 16)), np.zeros((2, 16, 16)), "uint8"),
        (np.zeros((2, 16, 16), np.uint8), np.zeros((3, 16, 16), np.uint8), "equal shapes"),
    ],
)
def test_misuse_is_refused(first, second, message):
    with pytest.raises(ValueError, match=message):
        ssim(first, second)


def test_empty_bank_and_single_image_are_refused():
    images = smooth(2, 16, 0)
    with pytest.raises(ValueError, match="bank"):
        ssim_nearest(images, images[:0])
    with pytest.raises(ValueError, match="2 images"):
        ssim_pairs(images[:1], num_pairs=3, seed=0)
