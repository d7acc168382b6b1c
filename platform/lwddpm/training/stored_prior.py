"""The prior of a model on disk: `prior.safetensors` beside its weights."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lwddpm.diffusion.prior import NUM_DIRECTIONS, Prior, empty_prior
from lwddpm.files import whole_file
from lwddpm.training.stored_files import DamagedCheckpointError, read_tensors

PRIOR_FILE = "prior.safetensors"


def write_prior(folder: Path, prior: Prior) -> None:
    """Put a prior into a model folder, in place of one that is there."""
    with whole_file(folder / PRIOR_FILE) as partial:
        save_file({name: tensor.contiguous().cpu() for name, tensor in prior.tensors().items()}, partial)


def read_prior(folder: Path, image_size: int) -> Prior | None:
    """The prior of a model folder; None where it has none.

    Raises:
        CheckpointError: it is damaged, or of another image size.
    """
    file = folder / PRIOR_FILE
    if not file.exists():
        return None
    try:
        with safe_open(file, "pt") as header:  # the number of directions is all that a file may choose
            directions = int(header.get_slice("directions").get_shape()[0])
    except (SafetensorError, IndexError) as error:
        raise DamagedCheckpointError(f"{file}: cannot be read: {error}") from None
    if not 1 <= directions <= NUM_DIRECTIONS:
        raise DamagedCheckpointError(f"{file}: must have 1 to {NUM_DIRECTIONS} directions, has {directions}")
    return Prior(**read_tensors(file, empty_prior(image_size, directions).tensors()))
