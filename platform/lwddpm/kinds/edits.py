"""What an edit begins with, read and put into the terms of samplers and of marks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from lwddpm.config import EditConfig
from lwddpm.data.edit_source import Given
from lwddpm.diffusion.editing import Between, Edit, Inpainting, variation
from lwddpm.errors import ConfigError
from lwddpm.marks.edited import Edited, pixels_sha256
from lwddpm.training.stored_model import SavedModel


@dataclass(frozen=True)
class Planned:
    """One edit: how it is drawn, and what the marks of its images say of it."""

    edit: Edit
    edited: Edited


def check_family(how: str, saved: SavedModel) -> None:
    """Refuse what a GAN cannot do: it draws from a latent in one pass, and has no way from a slice back to one.

    Raises:
        ConfigError: names the setting and what a GAN can.
    """
    if saved.diffusion is None and how != "between":
        raise ConfigError(
            f"edit.{how}: takes a diffusion model, which denoises a slice that is given; the model is a GAN, which "
            "draws from random numbers alone; name another model, or take edit.between"
        )


def planned(config: EditConfig, given: Given | None, saved: SavedModel) -> Iterator[Planned]:
    """The edits of a section `edit`: one, or one for each strength.

    Args:
        given: what `data.edit_source` has read; None for a way between drawings.
    """
    if config.between is not None:
        assert config.frames is not None
        yield between(config.between, config.frames)
        return
    assert given is not None
    if given.mask is not None:
        yield inpainting(given)
    for strength in config.strength or ():
        yield varied(given, strength, saved)


def inpainting(given: Given) -> Planned:
    assert given.mask is not None
    edited = Edited(how="inpainting", source_sha256=pixels_sha256(given.source), mask_sha256=pixels_sha256(given.mask))
    return Planned(Inpainting(torch.from_numpy(given.source), torch.from_numpy(given.mask)), edited)


def varied(given: Given, strength: float, saved: SavedModel) -> Planned:
    edited = Edited(how="variation", source_sha256=pixels_sha256(given.source), strength=strength)
    return Planned(variation(torch.from_numpy(given.source), strength, _timesteps(saved)), edited)


def between(seeds: tuple[int, int], frames: int) -> Planned:
    return Planned(Between(seeds, frames), Edited(how="between", seeds=seeds, frames=frames))


def again(edited: Edited | None, sources: Sequence[Given], saved: SavedModel) -> Edit | None:
    """The edit that a mark tells of; None: it tells of none.

    Args:
        sources: what may be the source, with the mask; those with other pixels are passed over.

    Raises:
        ConfigError: the source or the mask is not among them, or the model is a GAN.
    """
    if edited is None:
        return None
    if edited.how == "between":
        assert edited.seeds is not None
        assert edited.frames is not None
        return Between(edited.seeds, edited.frames)
    check_family("inpaint" if edited.how == "inpainting" else "variations", saved)
    given = next((given for given in sources if pixels_sha256(given.source) == edited.source_sha256), None)
    if given is None:
        raise ConfigError(
            f"its source has pixels of SHA-256 {(edited.source_sha256 or '')[:12]}, and --source has others"
        )
    if edited.how == "variation":
        assert edited.strength is not None
        return variation(torch.from_numpy(given.source), edited.strength, _timesteps(saved))
    if given.mask is None:
        raise ConfigError("it takes the mask too to draw its region again: name it with --mask")
    if pixels_sha256(given.mask) != edited.mask_sha256:
        raise ConfigError(f"its mask has pixels of SHA-256 {(edited.mask_sha256 or '')[:12]}, and --mask has others")
    return inpainting(given).edit


def _timesteps(saved: SavedModel) -> int:
    assert saved.diffusion is not None
    return saved.diffusion.num_train_timesteps
