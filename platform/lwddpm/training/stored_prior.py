"""The prior of a model on disk: `prior.safetensors` beside its weights."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lwddpm.diffusion.prior import MOST_CLASSES, NUM_COMPONENTS, NUM_DIRECTIONS, Prior, empty_prior
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
        with safe_open(file, "pt") as header:  # these two numbers are all that a file may choose
            if "centres" not in header.keys():  # noqa: SIM118 (no mapping)
                raise DamagedCheckpointError(
                    f"{file}: is no prior of this version of lwddpm, which is a mixture; make it again: "
                    "lwddpm models calibrate MODEL --fresh --set data.source=PATH"
                )
            components, directions = (int(length) for length in header.get_slice("centres").get_shape())
            by_class = "classes" in header.keys()  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise DamagedCheckpointError(f"{file}: cannot be read: {error}") from None
    for name, number, limit in (
        ("directions", directions, NUM_DIRECTIONS),
        ("components", components, NUM_COMPONENTS * (MOST_CLASSES + 1 if by_class else 1)),
    ):
        if not 1 <= number <= limit:
            raise DamagedCheckpointError(f"{file}: must have 1 to {limit} {name}, has {number}")
    return Prior(**read_tensors(file, empty_prior(image_size, directions, components, by_class=by_class).tensors()))
