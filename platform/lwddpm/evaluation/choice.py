"""Which of a training's snapshots is registered (`registry.choose: best`), and what that was decided by."""

from pydantic import BaseModel, ConfigDict, Field

from lwddpm.config import SamplingConfig
from lwddpm.config.section import PositiveInt, SeveralInt
from lwddpm.wording import measured

MEASURE = "fd_lite0"


class Candidate(BaseModel):
    """A snapshot, or the final model.

    Attributes:
        copies: whether its slices are copies of training slices (`evaluation.copying`); None: nobody looked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: float
    step: PositiveInt
    fd_lite0: float
    copies: bool | None = None


class Choice(BaseModel):
    """The candidates as they were measured for choosing, with slices that the final figures do not use.

    Attributes:
        candidates: by rising step, the final model last.
        n: slices drawn of each.
        num_reference: validation slices that they are compared with; the final figures compare with training slices.
        sampling: how they were drawn, from a seed of its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidates: tuple[Candidate, ...] = Field(min_length=1)
    n: SeveralInt
    num_reference: SeveralInt
    sampling: SamplingConfig

    @property
    def best(self) -> Candidate:
        """The one of least distance among those that do not return training slices; of all where each does."""
        honest = [candidate for candidate in self.candidates if not candidate.copies]
        return min(honest or self.candidates, key=lambda candidate: candidate.fd_lite0)

    def _remark(self, candidate: Candidate) -> str:
        words = ["chosen"] * (candidate == self.best) + ["returns training slices"] * bool(candidate.copies)
        return ", ".join(words)

    def table(self) -> str:
        """Markdown."""
        steps = self.sampling.num_inference_steps
        rows = [f"| {c.epoch:g} | {c.step} | {measured(c.fd_lite0)} | {self._remark(c)} |" for c in self.candidates]
        return "\n".join(
            [
                f"| epoch | step | {MEASURE} | |",
                "|---:|---:|---:|---|",
                *rows,
                "",
                f"Of {self.n} slices against {self.num_reference} validation slices, {self.sampling.sampler}, {steps} "
                f"step{'s' if steps > 1 else ''}, seed {self.sampling.seed}: for choosing alone. These slices and this "
                "reference are not those of the evaluation, and the numbers cannot be compared with its own.",
                "",
            ]
        )
