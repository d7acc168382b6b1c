"""Files of checkpoints and models: JSON and safetensors, read with distrust and where possible by their checksums.

What is read may come from anywhere: nothing in it is run, and nothing is allocated before the size of a file fits the
network that its config describes. Zeros where a disk lost a block are valid weights: a checkpoint's checksums tell
(`sha256sum -c SHA256SUMS` too).
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lwddpm.errors import CheckpointError
from lwddpm.version import code_version

FORMAT = 2  # of what is written; raise it with every change that earlier versions cannot read
CHECKSUMS = "SHA256SUMS"
_MAX_CONFIG = 1_000_000  # bytes of a config or state file
_HEADER = 512  # bytes that the header of a safetensors file may take for each tensor, and once more


_CodeVersion = Annotated[str, Field(max_length=100)]


class DamagedCheckpointError(CheckpointError):
    """A checkpoint or model is not what was written: cut short, overwritten, in part missing, or of another network.

    What cannot be read at the moment, or not by this version, is a CheckpointError but not damaged.
    """


class Written(BaseModel):
    """What both JSON files begin with.

    Attributes:
        format: see the module's docstring; a file without it has format 1.
        code_version: of the code that wrote it (`version.code_version`); None: not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    format: int = FORMAT
    code_version: _CodeVersion | None = None


class _Origin(BaseModel):
    """The same of a file that may have been written by any version."""

    format: int = 1
    code_version: _CodeVersion | None = None


_Json = TypeVar("_Json", bound=Written)


def read_json_file(path: Path, kind: type[_Json]) -> _Json:
    content = _read_small(path)
    try:
        origin = _Origin.model_validate_json(content)  # first of all: what a later version wrote may have other keys
        if origin.format > FORMAT:
            raise CheckpointError(
                f"{path}: format must be at most {FORMAT}, got {origin.format}, written by lwddpm "
                f"{origin.code_version or 'of a later version'}; upgrade lwddpm (here {code_version()}) to read it"
            )
        return kind.model_validate_json(content).model_copy(update={"format": origin.format})
    except ValidationError as error:
        raise DamagedCheckpointError(f"{path}: {' '.join(str(error).split())}") from None


def _read_small(path: Path) -> bytes:
    """The content of a config, state or checksum file."""
    with _reading(path):
        size = path.stat().st_size
        if size > _MAX_CONFIG:
            raise DamagedCheckpointError(f"{path}: must be at most {_MAX_CONFIG:,} bytes, has {size:,}")
        return path.read_bytes()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Tell a file that is not there from a disk that does not answer."""
    try:
        yield
    except FileNotFoundError:
        message = f"{path.parent}: {path.name} is missing: not a whole model or checkpoint"
        raise DamagedCheckpointError(message) from None
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror or error}); try again when the disk answers, or move "
            f"{path.parent} away to do without it"
        ) from None


def write_checksums(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    with ThreadPoolExecutor() as pool:
        digests = pool.map(sha256_of, (folder / name for name in names))
        lines = [f"{digest}  {name}\n" for digest, name in zip(digests, names, strict=True)]
    (folder / CHECKSUMS).write_text("".join(lines))


def verify(folder: Path, names: Iterable[str] | None = None) -> None:
    """Compare files, by default all, with the checksums written with them; what an earlier version wrote has none.

    Raises:
        DamagedCheckpointError: a file is missing, or other than it was written.
        CheckpointError: the disk does not answer.
    """
    file = folder / CHECKSUMS
    if not file.exists():
        return
    lines = _read_small(file).decode(errors="replace").splitlines()
    expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in expected if names is None else names:
        with _reading(folder / name):
            digest = sha256_of(folder / name)
        if digest != expected.get(name):
            raise DamagedCheckpointError(f"{folder / name}: is not what was written: SHA-256 differs from {CHECKSUMS}")


def sha256_of(path: Path) -> str:
    """Of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tensors(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the names, shapes and types of `expected`, all finite; only the sizes of those are looked at.

    Raises:
        CheckpointError: anything else.
    """
    with _reading(path):
        least = sum(tensor.numel() * tensor.element_size() for tensor in expected.values())
        most = least + _HEADER * (len(expected) + 1)
        size = path.stat().st_size
        if not least <= size <= most:
            raise DamagedCheckpointError(
                f"{path}: does not fit the network of its config, which takes {least:,} to {most:,} bytes; has {size:,}"
            )
        try:
            tensors: dict[str, Tensor] = load_file(path)
        except SafetensorError as error:
            raise DamagedCheckpointError(f"{path}: cannot be read: {error}") from None
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors or name not in expected:
            what = "is missing" if name not in tensors else "is not part of it"
            raise DamagedCheckpointError(f"{path}: does not fit the network of its config: {name} {what}")
        tensor, wanted = tensors[name], expected[name]
        if (tensor.shape, tensor.dtype) != (wanted.shape, wanted.dtype):
            raise DamagedCheckpointError(
                f"{path}: does not fit the network of its config: {name} must be {wanted.dtype} {list(wanted.shape)}, "
                f"is {tensor.dtype} {list(tensor.shape)}"
            )
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise DamagedCheckpointError(f"{path}: weights must be finite, {name} is not; use an earlier checkpoint")
    return tensors
