"""Jobs about one dataset or model."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from lwddpm.config.consistency import ModelUri
from lwddpm.config.data import DataConfig
from lwddpm.config.edit import EditConfig, check_between, count_of
from lwddpm.config.evaluation import EvaluationConfig
from lwddpm.config.notify import NotifyConfig
from lwddpm.config.sampling import SamplingConfig
from lwddpm.config.section import PositiveInt, Section, Seed, hex_digest, is_none
from lwddpm.config.tracking import LONGEST_NAME, TrackingConfig
from lwddpm.config.training import WorkersConfig

JobName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=LONGEST_NAME,
        description="of runs and folders: letters, digits, . _ -; default: the file's name without its ending",
    ),
]
# A job of many runs, each called after it: the rest of their names says which system, variant or trial.
NameOfMany = Annotated[JobName, Field(max_length=100)]


class Job(Section):
    """What every kind of job has."""

    incidental = frozenset({"output", "offline", "workers", "tracking", "notify"})
    # Dotted keys of settings and sections that make no number of the job's own MLflow run, beside the incidental ones.
    unrecorded: ClassVar[frozenset[str]] = frozenset()
    # Sections of settings for sampling a model that is there already.
    following_preset: ClassVar[frozenset[str]] = frozenset()

    name: JobName
    seed: Seed = Field(0, description="of training: initial weights, order of slices, noise")
    output: str = Field("runs", description="folder for checkpoints and results; shared storage on a cluster")
    offline: bool = Field(False, description="fetch nothing: only the tracking store and Ray cluster named are reached")
    workers: WorkersConfig = WorkersConfig()
    tracking: TrackingConfig = TrackingConfig()
    notify: NotifyConfig = Field(NotifyConfig(), exclude=True)

    def result_digest(self) -> str:
        """12 hex digits of what decides the result: a finished job of the same digest is done."""
        return hex_digest(self.essentials())

    def public(self) -> Self:
        """The job as it is recorded: with what may be known of `data.source`."""
        data = getattr(self, "data", None)
        if not isinstance(data, DataConfig) or data.public_source == data.source:
            return self
        return self.model_copy(update={"data": data.model_copy(update={"source": data.public_source})})

    def settings(self) -> dict[str, Any]:
        """JSON values that read back as this job: sampling settings that follow from a preset of the model are not in
        them unless they were given."""
        values = self.model_dump(mode="json")
        for name in self.following_preset:
            values[name] = getattr(self, name).model_dump(mode="json", exclude_unset=True)
        return values

    def is_parameter(self, key: str) -> bool:
        """Whether a setting stands among the parameters of the job's MLflow run, which never change there."""
        left_out = self.incidental_keys() | self.unrecorded
        return not any(key == other or key.startswith(f"{other}.") for other in left_out)

    def has_result(self, done: dict[str, Any]) -> bool:
        """Whether the content of a `result.json` is this job's; 0.1.0 wrote the digest of all settings."""
        return done["digest"] in (self.result_digest(), self.digest())


class PrepareJob(Job):
    """Turns a source into a dataset."""

    kind: Literal["prepare"]
    data: DataConfig


class EvaluateJob(Job):
    """Measures a model that is there already."""

    following_preset = frozenset({"evaluation"})

    kind: Literal["evaluate"]
    model_uri: ModelUri
    data: DataConfig
    evaluation: EvaluationConfig = EvaluationConfig()


class SampleJob(Job):
    """Draws slices from a model into a folder."""

    following_preset = frozenset({"sampling"})

    kind: Literal["sample"]
    model_uri: ModelUri
    count: PositiveInt = Field(64, description="slices to draw; of an edit 8 (of each strength), or its frames")
    out: str = Field(
        "samples", description="folder for the images, grid.png and samples.json: new, empty, or of earlier samples"
    )
    format: Literal["png", "dicom", "nifti"] = Field(
        "png",
        exclude_if=lambda format: format == "png",
        description="of the slices' files, one each; every one says that it is synthetic, and how it was drawn",
    )
    sampling: SamplingConfig = SamplingConfig()
    edit: EditConfig | None = Field(None, exclude_if=is_none, description="begin with something given; docs/editing.md")

    @model_validator(mode="before")
    @classmethod
    def _count_of_an_edit(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("edit") is not None:
            return values | {"count": count_of(values["edit"], values.get("count"))}
        return values

    @model_validator(mode="after")
    def _between_is_a_way(self) -> Self:
        if self.edit is not None:
            check_between(self.sampling.sampler, self.sampling.eta, self.edit)
        return self
