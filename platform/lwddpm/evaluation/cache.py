"""Results that depend on a dataset's real slices alone, kept in files that processes share."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lwddpm.data.store import Dataset
from lwddpm.evaluation.features import EXTRACTION_VERSION, WEIGHTS_SHA256
from lwddpm.files import cache_folder, whole_file

Result = TypeVar("Result")


def cache_file(dataset: Dataset, extractor: str, content: str) -> Path:
    """Path of a result, named by all that a dataset's features depend on: its version and size, the weights, the code.

    Args:
        extractor: `fid` or `fd_lite0`.
        content: which slices, and what of them.
    """
    folder = cache_folder() / "features" / f"{dataset.version}-{dataset.manifest.image_size}px"
    return folder / f"{extractor}-{WEIGHTS_SHA256[extractor][:16]}-v{EXTRACTION_VERSION}-{content}.safetensors"


def cached(
    path: Path,
    make: Callable[[], Result],
    *,
    dump: Callable[[Result], dict[str, Tensor]],
    load: Callable[[dict[str, Tensor]], Result],
) -> Result:
    """The result stored at `path`; where there is none, or it cannot be read, it is made and stored.

    The file appears whole or not at all.

    Args:
        path: must name everything that the result depends on.
        dump: the result as tensors.
        load: the inverse; raises KeyError or ValueError for tensors that another version has written.
    """
    try:
        return load(load_file(path))
    except (FileNotFoundError, SafetensorError, KeyError, ValueError):
        result = make()
    with whole_file(path) as partial:
        save_file(dump(result), partial)
    return result
