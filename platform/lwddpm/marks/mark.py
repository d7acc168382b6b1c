"""The mark of a synthetic image: everything that it takes to draw the image again, and to say that it was drawn.

Marks are read from files that may come from anywhere: nothing in them is trusted but by drawing the image again.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lwddpm.config import SamplingConfig
from lwddpm.config.section import is_none
from lwddpm.errors import DataError
from lwddpm.version import code_version

SYNTHETIC = "SYNTHETIC"
NOTICE = "SYNTHETIC: drawn by a generative model; shows no patient; not for diagnosis"
DRAWN = "a synthetic slice of"  # how a reason begins that keeps one from being taken for a scan
FIGURE = f"slices here that are not said to be real are {SYNTHETIC}: drawn by a generative model, not for diagnosis"
MOST_TILES = 64  # slices of a grid
_MAX_TEXT = 10_000  # characters of a mark: several times the longest

_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Name = Annotated[str, Field(max_length=500)]
_Count = Annotated[int, Field(ge=0, lt=2**31)]


class Mark(BaseModel):
    """How an image was drawn. It names no folder of the machine that drew it.

    Attributes:
        model_uri: `models:/NAME/VERSION`, or `training:DIGEST` of a model that was in no registry.
        weights_sha256: of the model's `model.safetensors`; tells which version it is wherever that lies.
        prior_sha256, guide_sha256: of its `prior.safetensors` and its guide's weights, if the drawing made use of them.
        sampling: with the seed; `start` says where drawing really began.
        conditions: what a conditional model was asked for, by name (null: nothing); None: of a grid, and of a model
            without conditions.
        index: the image's number under the seed; of a grid that of its first slice.
        tiles: slices in a grid; 1: the image is one slice.
        count: slices of the drawing that it was part of; with `sampling.batch_size` this says what shared its batch.
        drawn_at: UTC.
        lwddpm: version of the platform that drew it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    synthetic: Literal["SYNTHETIC"] = "SYNTHETIC"
    format: Literal[1] = 1  # raise it with every change that earlier versions cannot read
    model_uri: Annotated[str, Field(pattern=r"^(models:/[^/@\\]{1,200}/[0-9]{1,9}|training:[^/\\\s]{1,100})$")]
    weights_sha256: _Sha256
    prior_sha256: _Sha256 | None = None
    guide_sha256: _Sha256 | None = None
    sampling: SamplingConfig
    conditions: dict[_Name, _Name | float | None] | None = Field(None, exclude_if=is_none)
    index: _Count
    tiles: Annotated[int, Field(ge=1, le=MOST_TILES)] = 1
    count: Annotated[int, Field(ge=1, lt=2**31)]
    drawn_at: datetime
    lwddpm: Annotated[str, Field(max_length=100)] = Field(default_factory=code_version)

    @model_validator(mode="after")
    def _is_part_of_its_drawing(self) -> "Mark":
        if self.index + self.tiles > self.count:
            raise ValueError(f"index {self.index} lies beyond the {self.count} slices of the drawing")
        if (self.prior_sha256 is not None) != uses_prior(self.sampling):
            raise ValueError("prior_sha256 is that of a drawing from a prior, and of no other")
        by_guide = self.sampling.guidance != 1 and self.sampling.guidance_from != "unconditional"
        if (self.guide_sha256 is not None) != by_guide:
            raise ValueError("guide_sha256 is that of a drawing with guidance by a guide, and of no other")
        return self

    def text(self) -> str:
        """JSON in one line, ASCII."""
        return self.model_dump_json()

    def words(self) -> str:
        """One line for people, ASCII."""
        what = f"index {self.index}" if self.tiles == 1 else f"indices {self.index} to {self.index + self.tiles - 1}"
        asked = [f"{name} {value}" for name, value in (self.conditions or {}).items() if value is not None]
        shown = f" {', '.join(asked)}".encode("ascii", "replace").decode() if asked else ""
        return (
            f"{SYNTHETIC} {self.model_uri} seed {self.sampling.seed} {what} weights {self.weights_sha256[:12]}{shown}"
        )


def drawn_by(text: str) -> str:
    """Why a file that bears a mark is no scan. Of the mark's text only a well-formed name of a model is repeated."""
    try:
        uri = parse(text).model_uri
    except DataError:
        uri = ""
    return f"{DRAWN} model {uri}" if uri and uri.isprintable() else f"{DRAWN} a model"


def uses_prior(sampling: SamplingConfig) -> bool:
    return sampling.start == "gaussian" or sampling.calibrate


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def parse(text: str) -> Mark:
    """The mark in a text.

    Raises:
        DataError: it is none that this version understands; says why.
    """
    if len(text) > _MAX_TEXT:
        raise DataError(f"its mark must have at most {_MAX_TEXT:,} characters, has {len(text):,}")
    try:
        return Mark.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"its mark cannot be understood ({where}: {first['msg']})".replace("(: ", "(")) from None
