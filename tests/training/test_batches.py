import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lwddpm.training.batches import BatchLoader, training_draw, validation_draw


def _epoch(seed: int, epoch: int, num_images: int = 10, batch_size: int = 3) -> list[int]:
    steps = num_images // batch_size
    draws = (training_draw(seed, epoch * steps + i, batch_size, num_images, 100, True) for i in range(steps))
    return [int(index) for draw in draws for index in draw.indices]


def test_an_epoch_shows_each_slice_at_most_once_and_epochs_differ() -> None:
    first, second = _epoch(0, 0), _epoch(0, 1)
    assert len(set(first)) == len(first) == 9
    assert first != second
    assert first == _epoch(0, 0)
    assert first != _epoch(1, 0)


def test_over_epochs_every_slice_is_shown() -> None:
    assert {index for epoch in range(5) for index in _epoch(0, epoch)} == set(range(10))


def test_timesteps_are_uniform_and_half_the_slices_are_flipped() -> None:
    draws = [training_draw(0, step, 64, 64, 10, True) for step in range(200)]
    timesteps = np.concatenate([draw.timesteps for draw in draws])
    counts = np.bincount(timesteps, minlength=10)
    expected = len(timesteps) / 10
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # chi-squared, 9 degrees of freedom, p = 0.001
    flips = np.concatenate([draw.flips for draw in draws])
    assert abs(flips.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(flips))
    assert not training_draw(0, 0, 64, 64, 10, False).flips.any()


def test_stratified_timesteps_are_one_from_each_part_of_the_chain_and_uniform() -> None:
    def timesteps(step: int, batch: int = 16, num_timesteps: int = 1000) -> np.ndarray:
        return training_draw(3, step, batch, 64, num_timesteps, True, "stratified").timesteps

    draws = [timesteps(step) for step in range(500)]
    for drawn in draws:
        ordered = np.sort(drawn)
        gaps = np.diff(
            [*ordered, ordered[0] + 1000]
        )  # the parts lie on a circle: the last one ends where the first begins
        assert set(gaps) == {62, 63}
    for values in (np.concatenate(draws), np.array([drawn[5] for drawn in draws])):  # of all, and of one position alone
        counts = np.histogram(values, np.arange(0, 1001, 100))[0]
        expected = len(values) / 10
        assert ((counts - expected) ** 2 / expected).sum() < 27.9  # as above
    assert sorted(np.bincount(timesteps(0, batch=64, num_timesteps=10))) == [6] * 6 + [7] * 4
    assert all(drawn.min() >= 0 and drawn.max() < 1000 for drawn in draws)
    assert np.array_equal(timesteps(7), draws[7]), "of seed and step alone"
    assert not np.array_equal(timesteps(7), timesteps(8))


@pytest.mark.parametrize("kind", ["log_normal", "logit_normal"])
def test_timesteps_of_a_distribution_are_one_from_each_equally_likely_part(kind: str) -> None:
    cdf = np.cumsum([0.1, 0.0, 0.4, 0.25, 0.25])
    draws = [training_draw(3, step, 8, 64, 5, True, kind, cdf).timesteps for step in range(400)]
    for drawn in draws:
        counts = np.bincount(drawn, minlength=5)
        assert (np.abs(counts - 8 * np.diff(cdf, prepend=0)) < 1 + 1e-9).all(), "as even as whole numbers can be"
    for values in (np.concatenate(draws), np.array([drawn[5] for drawn in draws])):
        expected = len(values) * np.array([0.1, 0.4, 0.25, 0.25])
        counts = np.bincount(values, minlength=5)
        assert counts[1] == 0
        assert ((counts[[0, 2, 3, 4]] - expected) ** 2 / expected).sum() < 16.3  # chi-squared, 3 degrees, p = 0.001
    draw, plain = training_draw(3, 4, 8, 64, 5, True, kind, cdf), training_draw(3, 4, 8, 64, 5, True)
    assert np.array_equal(draw.timesteps, draws[4]), "of seed and step alone"
    assert all(np.array_equal(getattr(draw, n), getattr(plain, n)) for n in ("indices", "flips", "noise_seeds"))
    validation = validation_draw(0, 20, 30, 5, cdf)
    assert np.bincount(validation.timesteps, minlength=5).tolist() == [2, 0, 8, 5, 5]


def test_stratified_timesteps_leave_all_other_draws_as_they_are() -> None:
    uniform, stratified = (training_draw(0, 4, 8, 64, 100, True, kind) for kind in ("uniform", "stratified"))
    for name in ("indices", "flips", "noise_seeds"):
        assert np.array_equal(getattr(uniform, name), getattr(stratified, name))


def test_a_share_of_a_batch_has_the_noise_of_the_whole() -> None:
    images = np.random.default_rng(0).integers(256, size=(20, 8, 8), dtype=np.uint8)
    draw = training_draw(3, 5, 6, 20, 100, True)
    whole = BatchLoader(images, torch.device("cpu")).load(draw)
    parts = [BatchLoader(images, torch.device("cpu")).load(draw.part(i, i + 2)) for i in (0, 2, 4)]
    for together, shares in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(together, torch.cat(shares))


def test_loaded_slices_are_the_images_in_the_range_of_the_model() -> None:
    images = np.random.default_rng(0).integers(256, size=(20, 8, 8), dtype=np.uint8)
    images[:, 0, 0], images[:, 0, 1] = 0, 255
    draw = training_draw(0, 0, 20, 20, 100, True)
    x_0, timesteps, noise = BatchLoader(images, torch.device("cpu")).load(draw)
    assert x_0.shape == noise.shape == (20, 1, 8, 8)
    assert (x_0.min(), x_0.max()) == (-1, 1)
    assert torch.equal(timesteps, torch.from_numpy(draw.timesteps))
    for loaded, index, flipped in zip(x_0[:, 0].numpy(), draw.indices, draw.flips, strict=True):
        expected = images[index, :, ::-1] if flipped else images[index]
        np.testing.assert_allclose((loaded + 1) * 127.5, expected, atol=1e-4)


def test_loaded_slices_have_the_tone_of_the_model() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    loader = BatchLoader(images, torch.device("cpu"), gamma=0.5)
    x_0 = loader.slices(training_draw(0, 0, 1, 1, 20, False))
    np.testing.assert_allclose(x_0[0, 0], 2 * np.sqrt(images[0] / 255) - 1, atol=1e-6)


def test_noise_is_standard_normal_and_never_repeats() -> None:
    images = np.zeros((64, 32, 32), np.uint8)
    loader = BatchLoader(images, torch.device("cpu"))
    noise = torch.cat([loader.load(training_draw(0, step, 64, 64, 10, False))[2] for step in range(4)])
    assert abs(noise.mean()) < 0.01
    assert abs(noise.var() - 1) < 0.02
    flat = noise.flatten(1)
    correlation = (flat @ flat.T / flat.shape[1]).fill_diagonal_(0)
    assert correlation.abs().max() < 0.2


def test_validation_covers_the_timesteps_evenly_and_stays_the_same() -> None:
    draw = validation_draw(0, 10, 30, 1000)
    assert sorted(draw.timesteps) == list(range(50, 1000, 100))
    assert len(set(draw.indices)) == 10
    again = validation_draw(0, 10, 30, 1000)
    assert all(np.array_equal(a, b) for a, b in zip(vars(draw).values(), vars(again).values(), strict=True))


def test_memory_does_not_grow_with_the_dataset(tmp_path: Path) -> None:
    """Anonymous memory of a process that trains from a 1 GiB split stays that of a few batches."""
    path = tmp_path / "images.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(65536, 128, 128)).flush()  # sparse on disk
    code = f"""
import numpy as np, torch
from lwddpm.training.batches import BatchLoader, training_draw
def anonymous_mib():
    return next(int(l.split()[1]) / 1024 for l in open("/proc/self/status") if l.startswith("RssAnon"))
loader = BatchLoader(np.load({str(path)!r}, mmap_mode="r"), torch.device("cpu"))
loader.load(training_draw(0, 0, 32, 65536, 1000, True))
before = anonymous_mib()
for step in range(1, 100):
    loader.load(training_draw(0, step, 32, 65536, 1000, True))
assert anonymous_mib() - before < 64, (before, anonymous_mib())
"""
    subprocess.run([sys.executable, "-c", code], check=True)
