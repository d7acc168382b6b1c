"""An audit job: whether a model that is there already returns its training slices, and what they are good for."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lwddpm.config.data import DataConfig
from lwddpm.config.job import Job, ModelUri
from lwddpm.config.rule import RuleBroken
from lwddpm.config.sampling import SamplingConfig
from lwddpm.config.section import LARGEST_INT, PositiveInt, Section, Seed, is_false, is_none
from lwddpm.config.utility import UtilityConfig

SAMPLES_PER_TRAINING_SLICE = 10
Part = Literal["memorisation", "utility"]
_Rate = Annotated[float, Field(gt=0, le=0.2)]


class AuditConfig(Section):
    """How much is drawn, at which rate of false alarms slices are flagged, and what the verdict takes."""

    parts: Annotated[tuple[Part, ...], Field(min_length=1)] | None = Field(
        None,
        exclude_if=is_none,
        description="memorisation: does it return training slices; utility: what does a classifier learn from its "
        "slices, of a model with classes; default: both, of a model without classes memorisation",
    )
    num_samples: Annotated[int, Field(ge=50, le=LARGEST_INT)] | None = Field(
        None, description="slices drawn; default: 10 for each training slice"
    )
    false_alarm_rate: _Rate = Field(
        0.01, description="wanted, of held-out groups that count as copies; takes 299 groups at 0.01, 59 at 0.05"
    )
    max_copied_share: _Rate = Field(
        0.01, description="clear: with 95 % confidence no more of the slices drawn are copies"
    )
    min_power: Annotated[float, Field(ge=0.5, lt=1)] = Field(
        0.9, description="clear: with 95 % confidence this share of each kind of planted copy is found"
    )
    num_canaries: Annotated[int, Field(ge=20, le=10_000)] = Field(
        200, description="planted copies of each kind; at most as many as training slices"
    )
    not_held_out: tuple[str, ...] = Field(
        (),
        description="sources of held-out slices that a person has found to show a training slice after all; they raise "
        "no false alarm, and the report names them",
    )
    membership: bool = Field(True, description="try membership inference on the model's denoising loss")
    snapshots: bool = Field(
        False,
        exclude_if=is_false,
        description="also the snapshots that lie beside the folder of model_uri (training.snapshot_epochs): copying "
        "against epochs; of each as many slices are drawn as are held out",
    )
    batch_size: PositiveInt = Field(
        512, description="slices drawn and compared at a time; a kill loses so many at most"
    )
    seed: Seed = Field(0, description="of the halving of held-out groups and of planted copies")
    incidental = frozenset({"batch_size"})

    def num_drawn(self, num_train: int) -> int:
        """Slices that are drawn of a model that was trained on so many."""
        return self.num_samples or SAMPLES_PER_TRAINING_SLICE * num_train


def _as_it_is(section: UtilityConfig) -> bool:
    """For `exclude_if`: a section that a job leaves at its defaults is not in the dump, nor in the digest."""
    return section == UtilityConfig()


class AuditJob(Job):
    """Looks for training slices among those that a model draws, and for what a classifier learns from them."""

    kind: Literal["audit"]
    model_uri: ModelUri
    data: DataConfig
    sampling: SamplingConfig | None = Field(
        None, description="how slices are drawn; default: as in the model's evaluation, where that is known"
    )
    audit: AuditConfig = AuditConfig()
    utility: UtilityConfig = Field(UtilityConfig(), exclude_if=_as_it_is)

    @model_validator(mode="after")
    def _snapshots_are_compared(self) -> "AuditJob":
        if self.audit.snapshots and self.audit.parts is not None and "memorisation" not in self.audit.parts:
            rule = "copying against epochs takes the part memorisation"
            raise RuleBroken("audit.snapshots", rule, True, "name it in audit.parts, or leave snapshots out")
        return self

    @model_validator(mode="after")
    def _utility_has_test_slices(self) -> "AuditJob":
        if self.data.splits[2] == 0 and "utility" in (self.audit.parts or ()):
            rule = "utility is measured on the test split, and there is none"
            raise RuleBroken("data.splits", rule, list(self.data.splits), "give test a share")
        return self

    @model_validator(mode="after")
    def _something_is_held_out(self) -> "AuditJob":
        if self.data.splits[1] + self.data.splits[2] == 0:
            rule = "an audit sets its thresholds on held-out slices, and there are none"
            raise RuleBroken("data.splits", rule, list(self.data.splits), "give validation or test a share")
        return self
