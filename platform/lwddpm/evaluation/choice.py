"""Which of a training's snapshots is registered (`registry.choose: best`), and what that was decided by."""

from pydantic import BaseModel, ConfigDict, Field

from lwddpm.config import SamplingConfig
from lwddpm.config.section import PositiveInt, SeveralInt
from lwddpm.evaluation.copying import COPIED_SHARE
from lwddpm.evaluation.intervals import of_share
from lwddpm.evaluation.snapshot_figure import SnapshotPoint
from lwddpm.wording import measured

MEASURE = "fd_lite0"


class Candidate(BaseModel):
    """A snapshot, or the final model.

    Attributes:
        copies: whether its slices are copies of training slices (`evaluation.copying`); None: nobody looked.
        copied_share: the share of them that is near to one; None: a version that did not tell it has looked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: float
    step: PositiveInt
    fd_lite0: float
    copies: bool | None = None
    copied_share: float | None = None


class Choice(BaseModel):
    """The candidates as they were measured for choosing, with slices that the final figures do not use.

    Attributes:
        candidates: by rising step, the final model last.
        n: slices drawn of each.
        num_reference: validation slices that they are compared with; the final figures compare with training slices.
        sampling: how they were drawn, from a seed of its own.
        copied_floor: the copied share of all held-out slices; None as of a candidate's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidates: tuple[Candidate, ...] = Field(min_length=1)
    n: SeveralInt
    num_reference: SeveralInt
    sampling: SamplingConfig
    copied_floor: float | None = None

    @property
    def best(self) -> Candidate:
        """The one of least distance among those that do not return training slices; of all where each does."""
        honest = [candidate for candidate in self.candidates if not candidate.copies]
        return min(honest or self.candidates, key=lambda candidate: candidate.fd_lite0)

    @property
    def points(self) -> list[SnapshotPoint]:
        """Of the figure of quality and copying against epochs."""
        return [
            SnapshotPoint(
                each.epoch,
                each.fd_lite0,
                each.copied_share,
                None if each.copied_share is None else of_share(round(each.copied_share * self.n), self.n),
            )
            for each in self.candidates
        ]

    def metrics(self) -> dict[int, dict[str, float]]:
        """By the step of each candidate: what it scores, and what real held-out slices do."""
        by_step: dict[int, dict[str, float]] = {}
        for each in self.candidates:
            values = {MEASURE: each.fd_lite0, COPIED_SHARE: each.copied_share}
            values |= {f"{COPIED_SHARE}_floor": self.copied_floor}
            by_step[each.step] = {f"choice/{name}": value for name, value in values.items() if value is not None}
        return by_step

    def _remark(self, candidate: Candidate) -> str:
        words = ["chosen"] * (candidate == self.best) + ["returns training slices"] * bool(candidate.copies)
        return ", ".join(words)

    def table(self) -> str:
        """Markdown."""
        steps = self.sampling.num_inference_steps
        rows = [
            f"| {c.epoch:g} | {c.step} | {measured(c.fd_lite0)} | {_share(c.copied_share)} | {self._remark(c)} |"
            for c in self.candidates
        ]
        return "\n".join(
            [
                f"| epoch | step | {MEASURE} | {COPIED_SHARE} | |",
                "|---:|---:|---:|---:|---|",
                *rows,
                f"| | | | {_share(self.copied_floor)} | real held-out slices |",
                "",
                f"Of {self.n} slices against {self.num_reference} validation slices, {self.sampling.sampler}, {steps} "
                f"step{'s' if steps > 1 else ''}, seed {self.sampling.seed}: for choosing alone. These slices and this "
                "reference are not those of the evaluation, and the numbers cannot be compared with its own.",
                "",
            ]
        )


def _share(value: float | None) -> str:
    return "-" if value is None else measured(value, 3)
