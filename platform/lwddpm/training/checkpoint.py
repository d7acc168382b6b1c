"""Training state on disk: safetensors and JSON, never pickle.

    <run>/checkpoints/step_00001200/   weights, EMA, optimizer state, step: what a run continues from, and SHA256SUMS
    <run>/checkpoints/damaged_step_00001200/   one that could not be read, kept for whoever wants to know why
    <run>/snapshots/epoch_70/          a model as it was then
    <run>/averages/ema_0.05/           the averages that were not chosen, of a training with `ema_lengths`
    <run>/model/                       the final model (`training.stored_model`)

A folder appears under its name only when it is complete (`files`).

Formats of both kinds of folder; each version reads the earlier ones and refuses later ones:

    1   first
    2   the JSON files name the code that wrote them
"""

import shutil
from collections.abc import Mapping
from itertools import count
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lwddpm.errors import CheckpointError
from lwddpm.files import complete_folder, link_or_copy, writing
from lwddpm.training.muon import Muon
from lwddpm.training.stored_files import (
    CHECKSUMS,
    Written,
    read_json_file,
    read_tensors,
    verify,
    write_checksums,
)

_STATE = "state.json"
_MOMENTS: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {  # what an optimizer keeps of each parameter
    torch.optim.Adam: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.RMSprop: ("step", "square_avg"),
    Muon: ("momentum_buffer",),
}


class TrainingState(Written):
    """`state.json` of a checkpoint: what it knows besides tensors.

    Attributes:
        step: optimizer steps that are complete.
        training_digest, dataset_version: of the job and of its data; a run continues with no other.
        initial_loss: mean loss of the first report, by which divergence is judged; None before it.
    """

    step: int
    training_digest: str
    dataset_version: str
    initial_loss: float | None


def save_checkpoint(
    run_dir: Path,
    state: TrainingState,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    keep: int,
) -> Path:
    """Write a checkpoint, a file for each module and optimizer, and remove all but the newest `keep`."""
    tensors = tensors_of(modules, optimizers)
    files = {file: {name: value.cpu().contiguous() for name, value in tensors[file].items()} for file in tensors}
    return write_checkpoint(run_dir, state, files, keep)


def tensors_of(
    modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> dict[str, dict[str, Tensor]]:
    """What a checkpoint holds, by file: the tensors themselves, where they are."""
    files = {
        name: {key: value.detach() for key, value in module.state_dict().items()} for name, module in modules.items()
    }
    for name, optimizer in optimizers.items():
        files[name] = {
            f"{index}.{kind}": value
            for index, values in optimizer.state_dict()["state"].items()
            for kind, value in values.items()
        }
    return files


def write_checkpoint(run_dir: Path, state: TrainingState, files: Mapping[str, Mapping[str, Tensor]], keep: int) -> Path:
    """Write a checkpoint of contiguous tensors in the host's memory, and remove all but the newest `keep`.

    Raises:
        JobError: the disk does not take it; the older ones are all still there.
    """
    path = checkpoint_path(run_dir, state.step)
    with complete_folder(path) as folder:
        for name, tensors in files.items():
            save_file(dict(tensors), folder / f"{name}.safetensors")
        (folder / _STATE).write_text(state.model_dump_json(indent=2))
        write_checksums(folder)
    for old in checkpoints(run_dir)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def checkpoint_path(run_dir: Path, step: int) -> Path:
    """The folder of the checkpoint after so many optimizer steps."""
    return run_dir / "checkpoints" / f"step_{step:08d}"


def copy_checkpoint(path: Path, run_dir: Path, training_digest: str) -> None:
    """Let a training go on from a checkpoint of another one that had the same steps up to there.

    Args:
        path: the other's checkpoint; `is_whole`, for it gets new checksums.
        run_dir: of the training that goes on.
        training_digest: of its job.
    """
    state = read_state(path).model_copy(update={"training_digest": training_digest})
    with complete_folder(run_dir / "checkpoints" / path.name) as folder:
        for file in path.iterdir():
            if file.name not in (_STATE, CHECKSUMS):
                link_or_copy(file, folder / file.name)
        (folder / _STATE).write_text(state.model_dump_json(indent=2))
        write_checksums(folder)


def latest_checkpoint(run_dir: Path) -> Path | None:
    """The newest checkpoint of a run that has a state, or None."""
    return next((path for path in checkpoints(run_dir) if (path / _STATE).is_file()), None)


def checkpoints(run_dir: Path) -> list[Path]:
    """Checkpoints of a run, damaged ones too, the newest first."""
    return sorted((path for path in (run_dir / "checkpoints").glob("step_*") if path.is_dir()), reverse=True)


def is_whole(path: Path) -> bool:
    """Whether every file of a checkpoint is there and is what was written, as far as that version kept checksums."""
    try:
        read_state(path)
        verify(path)
    except CheckpointError:
        return False
    return True


def set_aside(path: Path) -> Path:
    """Rename a damaged checkpoint, so that it is neither continued from nor removed.

    Returns:
        Its new path.

    Raises:
        JobError: the disk does not let it be renamed.
    """
    names = (f"damaged_{path.name}" + (f"_{number}" if number else "") for number in count())
    kept = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    with writing(path):
        path.rename(kept)
    return kept


def read_state(path: Path) -> TrainingState:
    """Read `state.json` of a checkpoint.

    Raises:
        DamagedCheckpointError: it is missing, or not what was written.
        CheckpointError: it was written by a later version, or the disk does not answer.
    """
    verify(path, [_STATE])
    return read_json_file(path / _STATE, TrainingState)


def load_checkpoint(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    device: torch.device,
) -> TrainingState:
    """Restore everything in place.

    Raises:
        DamagedCheckpointError: the folder is damaged, or belongs to another network.
        CheckpointError: it was written by a later version, or the disk does not answer.
    """
    state = read_state(path)
    verify(path, [f"{name}.safetensors" for name in (*modules, *optimizers)])
    for name, module in modules.items():
        _restore(module, path / f"{name}.safetensors")
    for name, optimizer in optimizers.items():
        _restore_optimizer(optimizer, path / f"{name}.safetensors", device)
    return state


def _restore_optimizer(optimizer: torch.optim.Optimizer, path: Path, device: torch.device) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    counter = torch.float32 if optimizer.defaults.get("fused") else torch.get_default_dtype()  # as torch counts steps
    expected = {
        f"{index}.{name}": torch.empty((), dtype=counter, device="meta") if name == "step" else parameter
        for index, parameter in enumerate(parameters)
        for name in _MOMENTS[type(optimizer)]
    }
    restored: dict[int, dict[str, Tensor]] = {}
    for key, value in read_tensors(path, expected).items():
        index, _, name = key.partition(".")
        if name != "step":
            # In the parameter's memory format: fused Adam walks both as raw memory and would mix up the elements.
            value = torch.empty_like(parameters[int(index)]).copy_(value)
        restored.setdefault(int(index), {})[name] = value.to(device)
    optimizer.load_state_dict({"state": restored, "param_groups": optimizer.state_dict()["param_groups"]})


def snapshot_path(run_dir: Path, epoch: float) -> Path:
    """The folder of the snapshot after so many epochs."""
    return run_dir / "snapshots" / f"epoch_{epoch:g}"


def _restore(module: nn.Module, path: Path) -> None:
    module.load_state_dict(read_tensors(path, module.state_dict()))
