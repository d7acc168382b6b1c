import time

import numpy as np
import pytest

from lwddpm.data.phantom import CANVAS, LABELS, Phantom, load_atlas, simulate
from lwddpm.data.tumours import Tumour, smooth_field


def test_slices_depend_on_seed_and_index_only():
    forwards = [simulate(1, i, 32) for i in range(6)]
    backwards = [simulate(1, i, 32) for i in reversed(range(6))][::-1]
    np.testing.assert_array_equal(forwards, backwards)
    assert len({image.tobytes() for image in forwards}) == 6
    assert (simulate(2, 0, 32) != forwards[0]).any()


@pytest.mark.parametrize("size", [16, 64, 130])
def test_a_head_on_a_dark_background(size):
    images = np.stack([simulate(0, i, size) for i in range(16)])
    assert images.shape == (16, size, size)
    assert images.dtype == np.uint8
    corner = size // 10
    assert images[:, :corner, :corner].mean() < 25
    centre = images[:, size // 3 : -size // 3, size // 3 : -size // 3]
    assert (centre.mean(axis=(1, 2)) > 40).all()
    assert images.max(axis=(1, 2)).min() > 200


def test_source_is_balanced_and_simulated():
    source = Phantom(count=40, seed=0, image_size=32)
    names, fingerprint = source.scan()
    assert source.simulated
    assert fingerprint == source.scan()[1]
    assert names == sorted(names)
    labels = [source.label(name) for name in names]
    assert {label: labels.count(label) for label in LABELS} == dict.fromkeys(LABELS, 10)
    assert len({source.subject_id(name) for name in names}) == 40
    np.testing.assert_array_equal(source.read("no_tumor/000002").image, simulate(0, 2, 32))


@pytest.mark.parametrize("label", LABELS)
def test_tumours_show_where_they_grow(label, monkeypatch):
    """Against the same head with an invisible tumour, pixels change in the tumour and (but for oedema) only there."""
    place, tumours = Tumour.place, []

    def remembered(*args):
        tumours.append(place(*args))
        return tumours[-1]

    monkeypatch.setattr(Tumour, "place", remembered)
    indices = [4 * i + LABELS.index(label) for i in range(12)]
    images = [simulate(0, i, CANVAS).astype(float) for i in indices]
    monkeypatch.setattr(Tumour, "paint", lambda self, head, *signals: head)
    healthy = [simulate(0, i, CANVAS).astype(float) for i in indices]
    if label == "no_tumor":
        assert tumours == []
        np.testing.assert_array_equal(images, healthy)
        return
    seen = 0
    for image, other, tumour in zip(images, healthy, tumours[:12], strict=True):
        other *= np.median(image[tumour.solid < 0.01]) / np.median(other[tumour.solid < 0.01])  # same grey scale
        change = np.abs(image - other)
        inside, outside = tumour.solid > 0.5, (tumour.solid < 0.01) & (tumour.oedema < 0.01)
        assert inside.sum() >= 9
        assert np.median(change[outside]) < 6
        seen += np.median(change[inside]) > 20
    assert seen >= 7


def test_smooth_field_has_unit_variance():
    fields = smooth_field(np.random.default_rng(0), 32, knots=6, channels=400)
    np.testing.assert_allclose(fields.std(axis=0), 1, atol=0.2)
    assert np.abs(np.diff(fields, axis=2)).mean() < 0.3


def test_a_thousand_small_slices_take_seconds():
    load_atlas()
    start = time.process_time()
    for i in range(20):
        simulate(0, i, 64)
    assert time.process_time() - start < 20 * 0.1
