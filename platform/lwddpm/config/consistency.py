"""Section `consistency`: a model tuned to draw in one to four network calls. And how a job names a model."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from lwddpm.config.rule import RuleBroken
from lwddpm.config.section import PositiveFloat, Section, is_none


def _is_a_model_uri(uri: str) -> str:
    if uri.startswith("models:") and not re.fullmatch(r"models:/[^/@]+(@[^/@]+|/[0-9]+)", uri):
        raise RuleBroken("", "must be models:/NAME@ALIAS, models:/NAME/VERSION or a folder with a saved model", uri)
    return uri


ModelUri = Annotated[
    str,
    Field(description="models:/NAME@ALIAS, models:/NAME/VERSION or a folder with a saved model"),
    AfterValidator(_is_a_model_uri),
]


class ConsistencyConfig(Section):
    """A trained diffusion model learns to see the same clean slice from two noise levels of one way.

    The way leads from the higher level to the lower one: that of a training slice and one noise (easy consistency
    tuning: Geng et al. 2024, arXiv:2406.14548), or with `guidance` the one that the teacher goes (consistency
    distillation: Song et al. 2023, arXiv:2303.01469). The lower level is clean at first and comes closer to the higher
    one as the training goes on.
    """

    teacher: ModelUri
    guidance: PositiveFloat | None = Field(
        None,
        exclude_if=is_none,
        description="follow the teacher, led away from its guide with this weight (1: not led away); default: follow "
        "the noise of training slices",
    )
    halvings: Annotated[float, Field(gt=0, le=16)] = Field(
        6,
        description="how often the distance of the two noise levels, at first the whole of the higher one, is halved",
    )
    huber: PositiveFloat = Field(
        0.03, description="root mean square error of a slice, in [-1, 1], from which on the loss grows linearly"
    )
