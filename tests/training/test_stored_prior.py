from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from lwddpm.diffusion.prior import fit_prior
from lwddpm.errors import CheckpointError
from lwddpm.training.stored_prior import PRIOR_FILE, read_prior, write_prior


@pytest.fixture
def prior():
    images = torch.randint(0, 256, (100, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return fit_prior(images)


def test_what_is_read_is_what_was_written(tmp_path, prior):
    write_prior(tmp_path, prior)
    read = read_prior(tmp_path, 16)
    assert read is not None
    assert all(torch.equal(tensor, read.tensors()[name]) for name, tensor in prior.tensors().items())
    assert (tmp_path / PRIOR_FILE).stat().st_size < 8_000  # small: of 3 directions of 16x16


def test_a_folder_without_one_has_none(tmp_path):
    assert read_prior(tmp_path, 16) is None


def _of_another_size(file, tensors):
    return 32


def _cut_short(file, tensors):
    file.write_bytes(file.read_bytes()[:-100])


def _not_finite(file, tensors):
    tensors["mean"][3, 3] = float("nan")
    save_file(tensors, file)


def _of_many_directions(file, tensors):
    tensors["directions"], tensors["centres"] = torch.zeros(17, 16, 16), torch.zeros(1, 17)
    save_file(tensors, file)


def _something_else(file, tensors):
    save_file({"weights": torch.zeros(3)}, file)


def _of_no_dimension(file, tensors):
    save_file(tensors | {"centres": torch.tensor(1.0)}, file)


@pytest.mark.parametrize(
    "damage", [_of_another_size, _cut_short, _not_finite, _of_many_directions, _something_else, _of_no_dimension]
)
def test_a_damaged_one_is_refused(tmp_path, prior, damage):
    write_prior(tmp_path, prior)
    file = tmp_path / PRIOR_FILE
    size = damage(file, load_file(file)) or 16
    with pytest.raises(CheckpointError, match=PRIOR_FILE):
        read_prior(tmp_path, size)


def test_one_of_an_earlier_format_says_how_to_make_it_again(tmp_path, prior):
    write_prior(tmp_path, prior)
    tensors = load_file(tmp_path / PRIOR_FILE)
    one_gaussian = {name: tensors[name] for name in ("mean", "directions", "deviations", "trust")}
    save_file(one_gaussian, tmp_path / PRIOR_FILE)
    with pytest.raises(CheckpointError, match=r"make it again: lwddpm models calibrate MODEL --fresh"):
        read_prior(tmp_path, 16)


def test_components_of_classes_are_read_back(tmp_path, prior):
    components = len(prior.weights)
    by_class = replace(prior, classes=torch.arange(components))
    write_prior(tmp_path, by_class)
    found = read_prior(tmp_path, prior.mean.shape[0])
    assert found is not None
    assert found.classes is not None
    assert found.classes.tolist() == list(range(components))
