"""Sections `tracking` and `registry`: where runs are logged, and under which name models are kept."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lwddpm.config.rule import RuleBroken
from lwddpm.config.section import Section, is_last, is_none

LONGEST_NAME = 200  # a run folder is called NAME-DIGEST, and files beside it get suffixes: 255 bytes are the limit
CHAMPION = "champion"  # the alias of the promoted version


class RegistryConfig(Section):
    """How the trained model is registered in MLflow."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=LONGEST_NAME)] = Field(
        "lw-ddpm", description="registered model that gets a new version: letters, digits, . _ -"
    )
    alias: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=LONGEST_NAME)] = Field(
        "candidate", description="points at the new version: small letters, digits, _ -"
    )
    choose: Literal["last", "best"] = Field(
        "last",
        exclude_if=is_last,
        description="which model is evaluated and registered: the last, or the best of it and of the snapshots, by "
        "fd_lite0 of other samples against validation slices",
    )
    gate: Annotated[str, Field(min_length=1, max_length=LONGEST_NAME * 5)] | None = Field(
        None,
        exclude_if=is_none,
        description="policy that versions must pass to be promoted: a shipped one, research or clinical, or a file's "
        "path; default: that of the registered model, if it has one",
    )

    @model_validator(mode="after")
    def _champions_are_promoted(self) -> "RegistryConfig":
        if self.gate is not None and self.alias == CHAMPION:
            rule = f"with a gate, {CHAMPION} is given by a promotion alone"
            raise RuleBroken("alias", rule, self.alias, "leave it out, then: lwddpm models promote")
        return self


class TrackingConfig(Section):
    """Where runs are logged."""

    uri: str | None = Field(
        None,
        description="of an MLflow server or store; default: MLFLOW_TRACKING_URI, else SQLite in the working folder",
    )
    experiment: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]*$", max_length=LONGEST_NAME)] = Field(
        "lw-ddpm", description="MLflow experiment of the runs: letters, digits, space, . _ -"
    )
