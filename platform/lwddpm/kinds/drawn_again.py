"""Images beside what a model draws for the marks that they bear."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lwddpm.cluster.generate import draw_indices
from lwddpm.cluster.session import Session
from lwddpm.config import EditConfig, RuleBroken, SamplingConfig, WorkersConfig, check_asked, check_steps, shown
from lwddpm.data.edit_source import bring_to_size
from lwddpm.diffusion.editing import Edit
from lwddpm.errors import LwddpmError
from lwddpm.evaluation.figures import tile
from lwddpm.families import SAMPLER
from lwddpm.kinds.edits import again
from lwddpm.marks.mark import Mark
from lwddpm.training.stored_model import SavedModel, read_saved_model

# Grey levels by which an image that was drawn on another machine may differ: there, sums are rounded in another order.
TOLERANCE = 1
CONFIRMED, ROUNDED, DIFFERS, UNUSABLE = "confirmed", "confirmed within rounding", "differs", "model unusable"


@dataclass
class Drawn:
    """A marked image and what has been found out about it.

    Attributes:
        pixels: uint8 [H, W]; None where it is no 8-bit grey picture.
        num_different, max_difference: pixels that are not as drawn, and by how many grey levels; None: not compared.
    """

    pixels: np.ndarray | None
    mark: Mark
    state: str = ""
    message: str = ""
    num_different: int | None = None
    max_difference: int | None = None

    def found(self, state: str, message: str) -> None:
        self.state, self.message = state, message

    @property
    def how(self) -> str:
        """Seed and number, in words."""
        first, last = self.mark.index, self.mark.index + self.mark.tiles - 1
        edited = f", EDITED: {self.mark.edit.words()}" if self.mark.edit is not None else ""
        return f"seed {self.mark.sampling.seed}, " + (
            f"index {first}{edited}" if first == last else f"indices {first} to {last}{edited}"
        )

    @property
    def indices(self) -> range:
        return range(self.mark.index, self.mark.index + self.mark.tiles)

    @property
    def batches(self) -> range:
        """The images of the batches that it was drawn in."""
        size = self.mark.sampling.batch_size
        return range(self.indices.start // size * size, min(-(-self.indices.stop // size) * size, self.mark.count))


def compare_with_model(images: Sequence[Drawn], name: str, folder: Path, source: EditConfig | None = None) -> None:
    """Draw images of one model again, those of equal settings together, and find out which are the same.

    Args:
        name: of the model, for messages.
        folder: its files.
        source: what edited ones were made from.
    """
    try:
        saved = read_saved_model(folder)
        given = [bring_to_size(source, saved.image_size)] if source is not None else []
    except LwddpmError as error:
        for image in images:
            image.found(UNUSABLE, str(error))
        return
    groups: dict[str, list[Drawn]] = {}
    for image in images:
        edited = image.mark.edit.model_dump_json() if image.mark.edit is not None else ""
        groups.setdefault(image.mark.sampling.model_dump_json() + edited, []).append(image)
    with Session(WorkersConfig()) as session:

        def draw(sampling: SamplingConfig, indices: Sequence[int], edit: Edit | None) -> dict[int, np.ndarray]:
            drawn = draw_indices(folder, sampling, indices, session, description=f"drawing again, {name}", edit=edit)
            return dict(zip(indices, drawn, strict=True))

        for group in groups.values():
            sampling = group[0].mark.sampling
            if impossible := _why_impossible(sampling, saved):
                for image in group:
                    image.found(DIFFERS, f"its mark asks for what the model cannot do ({impossible})")
                continue
            try:
                edit = again(group[0].mark.edit, given, saved)
            except LwddpmError as error:
                for image in group:
                    image.found(DIFFERS, f"{image.mark.words()}: {error}")
                continue
            fitting = [image for image in group if _has_size(image, saved.image_size, name)]
            fitting = [image for image in fitting if _asked_for(image, saved, edit, name)]
            wanted = sorted({index for image in fitting for index in image.indices})
            drawn = draw(sampling, wanted, edit) if wanted else {}
            for image in fitting:
                _compare(image, drawn, name)
                if image.state == ROUNDED:  # in its own batch it may come out to the last bit
                    _compare(image, draw(sampling, image.batches, edit), name)


def _why_impossible(sampling: SamplingConfig, saved: SavedModel) -> str:
    if (saved.diffusion is None) != (sampling.sampler == SAMPLER):
        return f"{sampling.sampler} is no sampler of it"
    try:
        check_asked(sampling, saved.conditions, "sampling")
        if saved.diffusion is not None:
            check_steps(sampling, saved.diffusion, "sampling")
    except RuleBroken as broken:
        return str(broken)
    if saved.conditions is None and sampling.condition_guidance != 1:
        return "sampling.condition_guidance takes conditions"
    if saved.conditions is None and sampling.guidance != 1 and "unconditional" in sampling.guidance_from:
        return f"sampling.guidance_from: {sampling.guidance_from} takes conditions"
    return ""


def _asked_for(image: Drawn, saved: SavedModel, edit: Edit | None, name: str) -> bool:
    """Whether its model is asked for what the mark says, by its settings and number."""
    said, vocabulary, sampling = image.mark.conditions, saved.conditions, image.mark.sampling
    if said is None:
        return True
    asked = {}
    if vocabulary is not None:
        numbers = (edit or Edit()).asked_as([image.mark.index])
        asked = vocabulary.values(vocabulary.assigned(sampling.conditions, sampling.like, numbers)[0])
    if said == asked:
        return True
    image.found(DIFFERS, f"is not what its mark says, {shown(said)}: {name} draws {shown(asked)} for {image.how}")
    return False


def _has_size(image: Drawn, image_size: int, name: str) -> bool:
    expected = _picture(image.mark, np.zeros((image.mark.tiles, image_size, image_size), np.uint8)).shape
    found = image.pixels.shape if image.pixels is not None else None
    if found == expected:
        return True
    is_now = f"{found[1]} x {found[0]} pixels" if found else "no 8-bit grey picture"
    image.found(DIFFERS, f"is not what {name} draws, {expected[1]} x {expected[0]} pixels: it is {is_now}")
    return False


def _picture(mark: Mark, slices: np.ndarray) -> np.ndarray:
    return slices[0] if mark.tiles == 1 else tile(slices)


def _compare(image: Drawn, drawn: dict[int, np.ndarray], name: str) -> None:
    assert image.pixels is not None
    expected = _picture(image.mark, np.stack([drawn[index] for index in image.indices]))
    differences = np.abs(image.pixels.astype(np.int16) - expected)
    num, most = int((differences > 0).sum()), int(differences.max())
    image.num_different, image.max_difference = num, most
    count = f"{num:,} of {differences.size:,} pixels differ"
    if not num:
        image.found(CONFIRMED, f"SYNTHETIC, drawn by {name}, {image.how}: confirmed, all pixels are the same")
    elif most <= TOLERANCE:
        image.found(
            ROUNDED,
            f"SYNTHETIC, drawn by {name}, {image.how}: confirmed within rounding, {count} by {most} grey level",
        )
    else:
        image.found(DIFFERS, f"is not what {name} draws for {image.how}: {count}, by up to {most} grey levels")
