"""Model folders: what is evaluated, registered and drawn from. Safetensors and JSON, never pickle.

    <run>/model/               the final model; the same files in a snapshot and in an average (`training.checkpoint`)
        config.json, model.safetensors     the network
        prior.safetensors                  where samplers may start (`diffusion.prior`); not of GANs, nor of 0.1.0
        guide/                             an earlier snapshot for guidance (`diffusion.denoiser`), where one is kept

A folder appears under its name only when it is complete (`files`). Formats as in `training.checkpoint`.
"""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn

from lwddpm.conditions import Vocabulary
from lwddpm.config import DiffusionConfig, ModelConfig
from lwddpm.config.section import is_none
from lwddpm.diffusion.prior import Prior
from lwddpm.errors import CheckpointError
from lwddpm.files import complete_folder
from lwddpm.models.build import build_model
from lwddpm.models.precision import DrawingNetwork, NumberFormat, drawing_precision
from lwddpm.training.stored_files import DamagedCheckpointError, Written, read_json_file, read_tensors
from lwddpm.training.stored_guide import GUIDE_FOLDER, has_guide, write_guide
from lwddpm.training.stored_prior import write_prior

WEIGHTS_FILE = "model.safetensors"


class SavedModel(Written):
    """`config.json` of a model folder: all that is needed to sample, and where the model comes from.

    Attributes:
        image_size: height and width of its slices.
        dataset_simulated: whether it was trained on phantoms.
        step, epoch: optimizer steps and epochs of training.
        parameters: of the network that samples.
        conditions: what slices can be asked for by; None: the model has no conditions.
        ema_length: which of `training.ema_lengths` these weights are the average of; None: that of `ema_decay`.
    """

    model: ModelConfig
    diffusion: DiffusionConfig | None  # None: a GAN's generator
    image_size: Annotated[int, Field(ge=1, le=1024)]
    dataset_version: str
    dataset_simulated: bool
    training_digest: str
    step: int
    epoch: float
    parameters: int
    ema_length: float | None = Field(None, exclude_if=is_none)
    conditions: Vocabulary | None = Field(None, exclude_if=is_none)

    @property
    def draws_without_conditions(self) -> bool:
        """Whether it has conditions and has learnt to draw when told none of them."""
        return self.conditions is not None and self.conditions.dropout > 0


def save_model(
    path: Path, weights: nn.Module, saved: SavedModel, prior: Prior | None = None, guide: Path | None = None
) -> Path:
    """Write a model folder: `model.safetensors`, `config.json` and, where there are, `prior.safetensors` and `guide`.

    Args:
        guide: folder of the weaker model.
    """
    with complete_folder(path) as folder:
        save_file(_tensors(weights), folder / WEIGHTS_FILE)
        if prior is not None:
            write_prior(folder, prior)
        if guide is not None:
            write_guide(folder, guide)
        (folder / "config.json").write_text(saved.model_dump_json(indent=2))
    return path


def read_saved_model(path: Path) -> SavedModel:
    """Read `config.json` of a model folder.

    Raises:
        CheckpointError: it is missing, not JSON, written by a later version, or has keys that this one does not know.
    """
    return read_json_file(path / "config.json", SavedModel)


def load_model(path: Path, device: torch.device | str = "cpu") -> tuple[nn.Module, SavedModel]:
    """Rebuild the network of a model folder, in eval mode, without ever unpickling.

    Raises:
        CheckpointError: a file is missing or damaged, or weights do not fit the config.
    """
    saved = read_saved_model(path)
    file = path / WEIGHTS_FILE
    try:
        with torch.device("meta"):  # a config may claim any size: first see whether the file has it
            expected = build_model(saved.model, saved.image_size, saved.conditions).state_dict()
    except (RuntimeError, TypeError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}/config.json: no network can be that large ({reason})") from None
    tensors = read_tensors(file, expected)
    model = build_model(saved.model, saved.image_size, saved.conditions)
    model.load_state_dict(tensors)
    return model.to(device).eval().requires_grad_(False), saved


def load_for_drawing(
    path: Path, precision: NumberFormat, device: torch.device | str, batch_size: int, num_calls: int = 0
) -> tuple[nn.Module, SavedModel]:
    """`load_model`, ready for samplers: a diffusion network in a number format and layout that are fast here.

    A GAN's slices come straight out of its generator, in one pass, so it draws in float32.

    Args:
        precision: see `models.precision.settled_precision`.
        batch_size: the most slices that it gets at a time.
        num_calls: of the network in the whole drawing, on all workers.
    """
    model, saved = load_model(path, device)
    if saved.diffusion is None:
        return model, saved
    chosen = drawing_precision(precision, saved.model, torch.device(device), num_calls)
    return DrawingNetwork(model, chosen, batch_size), saved


def load_guide(
    path: Path,
    precision: NumberFormat = "fp32",
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    num_calls: int = 0,
) -> nn.Module | None:
    """The guide of a model folder, as `load_for_drawing` returns a network; None where it has none.

    Raises:
        CheckpointError: it is damaged, or not of the model's diffusion process.
    """
    if not has_guide(path):
        return None
    network, weaker = load_for_drawing(path / GUIDE_FOLDER, precision, device, batch_size, num_calls)
    saved = read_saved_model(path)
    if any(getattr(weaker, name) != getattr(saved, name) for name in ("diffusion", "image_size", "conditions")):
        raise DamagedCheckpointError(
            f"{path / GUIDE_FOLDER}: must have the diffusion settings, image size and conditions of the model that it "
            "guides"
        )
    return network


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    # contiguous: a checkpoint is the same bytes whatever memory format the run used
    return {name: value.detach().contiguous().cpu() for name, value in module.state_dict().items()}
