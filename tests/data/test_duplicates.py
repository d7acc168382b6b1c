import io
import itertools

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from lwddpm.data.duplicates import (
    candidate_pairs,
    connected_groups,
    correlation,
    equal_links,
    perceptual_hashes,
    verified_pairs,
)
from lwddpm.data.phantom import simulate

RNG = np.random.default_rng(0)
SIZE = 64


@pytest.fixture(scope="module")
def slices():
    return np.stack([simulate(0, i, SIZE) for i in range(24)])


def test_hash_is_the_dct_hash_and_its_mirror(slices):
    hashes = perceptual_hashes(slices)
    for image, (plain, mirrored) in zip(slices, hashes, strict=True):
        for view, bits in ((image, plain), (image[:, ::-1], mirrored)):
            low = dctn(view.astype(np.float64), type=2)[:16, :16]
            # scipy scales all coefficients by 4; their order about the median is the same
            expected = np.packbits((low > np.median(low)).ravel()).view(np.uint64)
            assert np.bitwise_count(expected ^ bits).sum() <= 2  # ties at float32 precision


def distance(one, two):
    return int(np.bitwise_count(one ^ two).sum())


def test_candidates_are_exactly_those_of_brute_force():
    plain = RNG.integers(0, 2**63, (120, 4), dtype=np.uint64)
    for copy in range(40, 80):  # 0..39 bits away from slice copy - 40
        plain[copy] = plain[copy - 40]
        for bit in RNG.choice(256, copy - 40, replace=False):
            plain[copy, bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    mirrored = RNG.integers(0, 2**63, (120, 4), dtype=np.uint64)
    mirrored[100] = plain[3]
    mirrored[2] = plain[101]
    hashes = np.stack([plain, mirrored], axis=1)
    expected = set()
    for i, j in itertools.combinations(range(120), 2):
        expected |= {(i, j, side) for side in (0, 1) if distance(plain[i], hashes[j, side]) <= 16}
    found = {tuple(row) for row in candidate_pairs(hashes).tolist()}
    assert found == expected
    assert (3, 100, 1) in found
    assert len(found) >= 17


def recompressed(image):
    file = io.BytesIO()
    Image.fromarray(image).resize((180, 180), Image.Resampling.BICUBIC).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file).resize((SIZE, SIZE), Image.Resampling.LANCZOS))


ALTERATIONS = {
    "noise": lambda x: np.clip(x + RNG.normal(0, 4, x.shape), 0, 255).astype(np.uint8),
    "recompression": recompressed,
    "mirror": lambda x: x[:, ::-1],
    "mirror and recompression": lambda x: recompressed(x[:, ::-1]),
    "brightness": lambda x: (x * 0.8 + 10).astype(np.uint8),
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_altered_copies_are_found_and_others_are_not(slices, name):
    images = np.concatenate([slices, [ALTERATIONS[name](image) for image in slices]])
    pairs = verified_pairs(candidate_pairs(perceptual_hashes(images)), lambda wanted: images[wanted], SIZE)
    groups = connected_groups(len(images), pairs[:, :2])
    np.testing.assert_array_equal(groups[24:], groups[:24])
    assert groups.max() + 1 == 24


def test_verification_refuses_what_only_hashes_alike():
    ramp = np.tile(np.linspace(0, 255, SIZE).astype(np.uint8), (SIZE, 1))
    step = np.where(ramp > 250, 255, 0).astype(np.uint8)
    images = np.stack([ramp, step, ramp])
    pairs = verified_pairs(np.array([[0, 1, 0], [0, 2, 0]]), lambda wanted: images[wanted], SIZE)
    assert pairs.tolist() == [[0, 2, 0]]


def test_correlation_agrees_with_numpy_and_takes_flat_slices():
    one, two = RNG.normal(size=(2, 5, 8, 8))
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(one, two, strict=True)]
    np.testing.assert_allclose(correlation(one, two), expected)
    flat = np.zeros((1, 8, 8))
    assert correlation(flat, flat + 3)[0] == 1
    assert correlation(flat, one[:1])[0] == 0


def test_groups_are_connected_components_in_order():
    links = equal_links(["a", None, "b", "a", None, "b", "c"])
    assert links.tolist() == [[0, 3], [2, 5]]
    np.testing.assert_array_equal(connected_groups(7, links, np.array([[5, 6]])), [0, 1, 2, 0, 3, 2, 2])
    np.testing.assert_array_equal(connected_groups(3), [0, 1, 2])
