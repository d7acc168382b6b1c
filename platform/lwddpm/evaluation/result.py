"""The outcome of an evaluation: figures with what is needed to read them, as JSON, as MLflow metrics, as a table."""

import re
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from lwddpm.config import EvaluationConfig
from lwddpm.config.section import is_empty, is_one
from lwddpm.wording import measured


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MetricRecord(Record):
    """One figure with what is needed to read it.

    Attributes:
        floor: the same measurement on real held-out slices; None where there is no such thing.
        n: slices measured: generated ones, or reconstructed ones for `ssim_reconstruction`.
        num_reference: real slices of `reference` that they are compared with; None for comparisons within a set.
        weights_sha256: of the extractor's weights; None for SSIM.
        interval: where other slices of the same model would put the value in 95 % of cases; None: not known.
        parts: the value by class, or by side of a band; empty where there is no such thing.
        floor_parts: the floor by class; empty where it is not told.
        sampler, num_inference_steps, start, guidance, condition_guidance: how the measured slices were made; start is
            None where it is not known, guidance is 1 without.
        network_calls: with which each was drawn, two or three for a guided step; None where it is not known.
        precision: number format of the network that drew them, `fp32` or `bf16`; None for GANs, and where not known.
    """

    name: str
    value: float
    floor: float | None
    n: int
    num_reference: int | None
    reference: str
    image_size: int
    extractor: str | None
    weights_sha256: str | None
    sampler: str
    num_inference_steps: int
    protocol: str
    interval: tuple[float, float] | None = None
    parts: dict[str, float] = {}
    floor_parts: dict[str, float] = Field({}, exclude_if=is_empty)
    start: str | None = None
    guidance: float = 1.0
    condition_guidance: float = Field(1.0, exclude_if=is_one)
    network_calls: int | None = None
    precision: str | None = None

    @property
    def drawn(self) -> str:
        """How the measured slices were made, in words."""
        words = f"{self.sampler}, {self.num_inference_steps} step{'s' if self.num_inference_steps > 1 else ''}"
        words += ", gaussian start" if self.start == "gaussian" else ""
        words += f", guidance {self.guidance:g}" if self.guidance != 1 else ""
        words += f", of the conditions {self.condition_guidance:g}" if self.condition_guidance != 1 else ""
        known = self.network_calls is not None and self.network_calls != self.num_inference_steps
        words += f", {self.network_calls} calls" if known else ""
        return words + (", bf16" if self.precision == "bf16" else "")


class Unavailable(Record):
    """A metric that was asked for and could not be computed."""

    name: str
    reason: str

    @field_validator("reason")
    @classmethod
    def _name_once(cls, reason: str, others: ValidationInfo) -> str:
        """The reason without the name, which stands beside it wherever it is shown; errors begin with it."""
        return reason.removeprefix(f"{others.data.get('name')}: ")


class Parts(NamedTuple):
    """Figures that are told by part.

    Attributes:
        what: of what the parts are: "class", or "side" of a band.
        metrics: the figures' names.
        rows: for each part, the values in the order of `metrics`.
    """

    what: str
    metrics: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]


class Confusion(Record):
    """What slices of each class come out as, by a classifier of real ones.

    Attributes:
        classes: names.
        generated, real: of each class (row) the share that comes out as each (column); a row of zeros: none drawn.
    """

    classes: tuple[str, ...]
    generated: tuple[tuple[float, ...], ...]
    real: tuple[tuple[float, ...], ...]


class EvaluationResult(Record):
    """All figures of one evaluation, ready for JSON.

    Attributes:
        warnings: what makes the figures misleading, such as a mode collapse.
        confusion: of the classes, where slices were asked for some.
        unguided: where slices are drawn with guidance, the same figures without it, in as many network calls.
        copied: the share of slices that are near to a training slice (`evaluation.copying`); None where a version
            that did not tell it has measured.
    """

    dataset_version: str
    simulated: bool
    config: EvaluationConfig
    records: tuple[MetricRecord, ...]
    unavailable: tuple[Unavailable, ...]
    warnings: tuple[str, ...] = ()
    unguided: tuple[MetricRecord, ...] = ()
    confusion: Confusion | None = None
    copied: MetricRecord | None = None

    @property
    def figures(self) -> tuple[MetricRecord, ...]:
        """The metrics that were asked for, and the copied share, which is always told."""
        return self.records if self.copied is None else (*self.records, self.copied)

    def metrics(self) -> dict[str, float]:
        """`eval/NAME` and, where there is one, `eval/NAME_floor`; with guidance also `eval/NAME_unguided`."""
        values = {f"eval/{record.name}": record.value for record in self.figures}
        floors = {f"eval/{record.name}_floor": record.floor for record in self.figures if record.floor is not None}
        return values | floors | {f"eval/{record.name}_unguided": record.value for record in self.unguided}

    def num_slices(self) -> dict[str, int]:
        """How many slices each figure of `metrics` stands for; a floor has the n of its figure."""
        unguided = {f"eval/{record.name}_unguided": record.n for record in self.unguided}
        return {f"eval/{record.name}": record.n for record in self.figures} | unguided

    def by_part(self) -> list[Parts]:
        """The figures that are told by class, or by side: those of the same parts beside each other."""
        together: dict[tuple[str, ...], list[MetricRecord]] = {}
        for record in self.records:
            if record.parts:
                together.setdefault(tuple(record.parts), []).append(record)
        return [
            Parts(
                "side" if records[0].name == "out_of_band" else "class",
                tuple(record.name for record in records),
                {part: tuple(record.parts[part] for record in records) for part in parts},
            )
            for parts, records in together.items()
        ]

    def table(self) -> str:
        """Markdown: one row a figure, then figures by part, protocols, what was unavailable, and warnings."""
        lines = [
            "| metric | value | 95 % interval | real-versus-real floor | n | reference | size | extractor | sampler |",
            "|---|---:|---|---:|---:|---|---|---|---|",
        ]
        named = [(r.name, r) for r in self.figures] + [(f"{r.name}, unguided", r) for r in self.unguided]
        for name, r in named:
            floor = "-" if r.floor is None else measured(r.floor)
            reference = r.reference if r.num_reference is None else f"{r.num_reference} {r.reference}"
            network = "-" if r.weights_sha256 is None else f"{r.extractor} ({r.weights_sha256[:8]})"
            interval = "-" if r.interval is None else " to ".join(map(measured, r.interval))
            lines.append(
                f"| {name} | {measured(r.value)} | {interval} | {floor} | {r.n} | {reference} | {r.image_size} px "
                f"| {network} | {r.drawn} |"
            )
        lines += [f"| {u.name} | unavailable | - | - | - | - | - | - | - |" for u in self.unavailable]
        kind = "simulated slices" if self.simulated else "real slices"
        lines += ["", f"Dataset {self.dataset_version[:12]} ({kind}).", ""]
        for what, metrics, rows in self.by_part():
            lines += [f"| {what} | {' | '.join(metrics)} |", f"|---|{'---:|' * len(metrics)}"]
            lines += [f"| {_escaped(part)} | {' | '.join(map(measured, values))} |" for part, values in rows.items()]
            lines += [""]
        lines += [f"- {r.name}: {r.protocol}" for r in self.figures]
        lines += [f"- {u.name}: unavailable: {u.reason}" for u in self.unavailable]
        lines += [f"- **{warning}**" for warning in self.warnings]
        return "\n".join(lines) + "\n"


def _escaped(name: str) -> str:
    """A folder's name as text of a Markdown table."""
    return re.sub(r"([\\|*_`<\[])", r"\\\1", " ".join(name.split()))
