"""What the mark of an edited image says of what it was made from: hashes of pixels, never a name."""

import hashlib
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lwddpm.config.section import Seed, is_none

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_FIELDS = {
    "inpainting": {"source_sha256", "mask_sha256"},
    "variation": {"source_sha256", "strength"},
    "between": {"seeds", "frames"},
}


class Edited(BaseModel):
    """How an image was made from another image, or from two seeds.

    Attributes:
        source_sha256: `pixels_sha256` of the source in the model's size.
        mask_sha256: of the mask, 255 where the model has drawn.
        strength: of a variation.
        seeds: of the drawings at both ends of a way; `index` counts its `frames`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    how: Literal["inpainting", "variation", "between"]
    source_sha256: Sha256 | None = Field(None, exclude_if=is_none)
    mask_sha256: Sha256 | None = Field(None, exclude_if=is_none)
    strength: Annotated[float, Field(ge=0, le=1)] | None = Field(None, exclude_if=is_none)
    seeds: tuple[Seed, Seed] | None = Field(None, exclude_if=is_none)
    frames: Annotated[int, Field(ge=2, le=1000)] | None = Field(None, exclude_if=is_none)

    @model_validator(mode="after")
    def _says_what_its_kind_takes(self) -> "Edited":
        given = {name for name, value in self if value is not None} - {"how"}
        if given != _FIELDS[self.how]:
            raise ValueError(f"{self.how} takes {', '.join(sorted(_FIELDS[self.how]))}")
        return self

    @property
    def takes_source(self) -> bool:
        """Whether it takes the source to draw the image again."""
        return self.source_sha256 is not None

    def words(self) -> str:
        """A few words, ASCII."""
        source, mask = (self.source_sha256 or "")[:12], (self.mask_sha256 or "")[:12]
        match self.how:
            case "inpainting":
                return f"region drawn anew in source {source}, mask {mask}"
            case "variation":
                return f"variation of source {source}, strength {self.strength:g}"
            case _:
                first, last = self.seeds or (0, 0)
                return f"on the way from seed {first} to seed {last} in {self.frames} frames"


def pixels_sha256(image: np.ndarray) -> str:
    """SHA-256 of a picture's width, height and pixels, uint8 [H, W], whatever file it lies in; of a mask too, bool."""
    pixels = np.where(image, 255, 0).astype(np.uint8) if image.dtype == bool else image
    digest = hashlib.sha256(b"%d %d " % (pixels.shape[1], pixels.shape[0]))
    digest.update(np.ascontiguousarray(pixels).tobytes())
    return digest.hexdigest()
