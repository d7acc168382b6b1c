import pytest
import torch
from safetensors.torch import load_file, save_file

from lwddpm.data.store import Dataset
from lwddpm.evaluation import cache
from lwddpm.evaluation.cache import cache_file, cached
from lwddpm.evaluation.distances import ReferenceStatistics


def statistics(path, features):
    return cached(
        path,
        lambda: ReferenceStatistics.of(features()),
        dump=ReferenceStatistics.to_tensors,
        load=ReferenceStatistics.from_tensors,
    )


def random_features(seed):
    return torch.randn(30, 8, generator=torch.Generator().manual_seed(seed))


def test_cache_is_filled_once_and_gives_the_same_distance(tmp_path):
    a, b, path, calls = random_features(0), random_features(1), tmp_path / "deep" / "a.safetensors", []

    def features():
        calls.append(1)
        return a

    first = statistics(path, features)
    second = statistics(path, features)
    assert len(calls) == 1
    assert first.distance(b) == second.distance(b) == ReferenceStatistics.of(a).distance(b)
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("damage", ["half a file", "another format"])
def test_damaged_cache_is_made_again(tmp_path, damage):
    path = tmp_path / "a.safetensors"
    if damage == "half a file":
        path.write_bytes(b"half a fi")
    else:
        save_file({"sum": torch.zeros(8), "outer": torch.zeros(8, 8), "num": torch.tensor(30)}, path)
    assert statistics(path, lambda: random_features(0)).num == 30
    assert all(tensor.dtype in (torch.float64, torch.int64) for tensor in load_file(path).values())


def test_a_failure_leaves_no_cache(tmp_path):
    def fails():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        statistics(tmp_path / "a.safetensors", fails)
    assert list(tmp_path.iterdir()) == []


def test_files_of_other_weights_slices_or_code_have_other_names(tiny_dataset: Dataset, monkeypatch):
    names = {cache_file(tiny_dataset, extractor, "train-8") for extractor in ("fid", "fd_lite0")}
    names.add(cache_file(tiny_dataset, "fid", "train-9"))
    monkeypatch.setitem(cache.WEIGHTS_SHA256, "fid", "0" * 64)
    names.add(cache_file(tiny_dataset, "fid", "train-8"))
    monkeypatch.setattr(cache, "EXTRACTION_VERSION", cache.EXTRACTION_VERSION + 1)
    names.add(cache_file(tiny_dataset, "fid", "train-8"))
    assert len(names) == 5
