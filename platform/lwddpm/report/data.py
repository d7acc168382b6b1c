"""What a comparison measured: all that its report is drawn from, in one folder.

    report.json       ComparisonReport: rows, measurements, protocols, where everything comes from
    curves.parquet    logged losses: columns system, metric, step, epoch, value
    images.npz        slices, uint8, by name; see `Images`

Nothing in it is drawn, rounded or worded: a report can be drawn again from it, by a later version too.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lwddpm.config.section import is_none
from lwddpm.errors import DataError
from lwddpm.evaluation.result import Confusion, Unavailable
from lwddpm.files import whole_file

REPORT, CURVES, IMAGES = "report.json", "curves.parquet", "images.npz"
# 1: `schema_version` instead of `format`; 2: no baseline, no other starts, no parts of metrics
FORMAT = 3
GAUSSIAN = "gaussian"  # the baseline: the Gaussian of the training slices, without a network


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Training(_Stored):
    """One trained network.

    Attributes:
        label: unique name, such as `lw_ddpm` or `lw_ddpm-loss-l1`.
        family: of the network; `settings` are those in which trainings may differ, as dotted keys.
        parameters: of the network that samples.
    """

    label: str
    family: str
    seed: int
    run_id: str
    digest: str
    parameters: int
    steps: int
    epochs: float
    settings: dict[str, Any]
    warnings: tuple[str, ...] = ()


class MeasuredSystem(_Stored):
    """What a row of the table is about: a system's trainings, and how they are sampled.

    Attributes:
        trainings: labels, one for each seed; none of the baseline.
        timesteps, inference_steps: None for a GAN and for the baseline.
        start: `gaussian` (the prior of the training slices) or `noise`; None for a GAN, and in formats before 3.
        network_calls: to draw a slice; None in formats before 3.
        guidance, condition_guidance: None: without.
    """

    name: str
    trainings: tuple[str, ...]
    timesteps: int | None
    sampler: str | None
    inference_steps: int | None
    start: str | None = None
    network_calls: int | None = None
    guidance: float | None = None
    condition_guidance: float | None = None


class Measurement(_Stored):
    """Metrics of one set of generated slices.

    Attributes:
        group: what it belongs to: `system`, `start`, `baseline`, `steps`, `epochs`, or the name of an ablation.
        label: the row within the group: a system, its other start, a sampler, a variant; of the baseline `protocol` or
            `curves`: whose settings it was measured with.
        x: number of sampling steps, or epoch, on the curves of those groups.
        training_seed, sampling_seed: what the slices depend on besides the settings.
        values, floors: by metric; a floor is the same measurement on n real held-out slices.
        parts: by metric, its values by class or by side of a band; metrics without parts are left out.
        confusion: what slices that were asked for a class come out as; None of systems that are told none.
    """

    group: str
    label: str
    system: str
    x: float | None = None
    training_seed: int
    sampling_seed: int
    n: int
    num_reference: int
    sampler: str | None
    inference_steps: int | None
    values: dict[str, float]
    floors: dict[str, float]
    parts: dict[str, dict[str, float]] = {}
    confusion: Confusion | None = Field(None, exclude_if=is_none)


class Cost(_Stored):
    """Cost of one system, measured in a fresh process in every round.

    Attributes:
        system: its name, or the `row_key` of its other start, or `gaussian`, which has no training.
        images_per_s: training throughput of one worker.
        peak_memory_mib: most memory during training, above that of the idle process on a CPU.
        seconds_per_64: time to draw 64 slices.
    """

    system: str
    images_per_s: tuple[float, ...]
    peak_memory_mib: tuple[float, ...]
    seconds_per_64: tuple[float, ...]


class SampleSize(_Stored):
    """Fréchet distances of n slices from the training slices; one value for each disjoint or random subset."""

    label: str
    n: int
    values: tuple[float, ...]


class NoiseHistogram(_Stored):
    """Pixels of true and of predicted noise, by slice.

    Attributes:
        edges: of the bins, rising; what lies outside is in the outer bins.
        true, predicted: counts [slices, bins].
    """

    system: str
    timesteps: int
    edges: tuple[float, ...]
    true: tuple[tuple[int, ...], ...]
    predicted: tuple[tuple[int, ...], ...]


class ComparisonReport(_Stored):
    """What a comparison has measured.

    Attributes:
        format: of the three files; `load` reads earlier ones too.
        created: when the comparison began, ISO 8601, UTC.
        environment: machine and versions, as shown.
        dataset: path, version, num by split, labels.
        distance: the Fréchet distance that could be computed: `fid`, else `fd_lite0`.
        missing: metrics that were asked for and could not be computed.
        other_starts: the diffusion systems again, sampled from the start that the protocol does not take.
        gaussian_directions: of the baseline; None in formats before 3, which have none.
        snr: signal-to-noise ratio of the noising by schedule, [timesteps].
        strips: noising steps in each frame of the strips `forward` and `reverse`.
    """

    format: int = FORMAT
    name: str
    run_id: str
    created: str
    environment: dict[str, str]
    dataset: dict[str, Any]
    simulated: bool
    image_size: int
    settings: dict[str, Any]
    protocol: dict[str, Any]
    proxy: dict[str, Any]
    distance: str
    extractor: str
    weights_sha256: str
    missing: tuple[Unavailable, ...]
    systems: tuple[MeasuredSystem, ...]
    other_starts: tuple[MeasuredSystem, ...] = ()
    gaussian_directions: int | None = None
    trainings: tuple[Training, ...]
    measurements: tuple[Measurement, ...]
    costs: tuple[Cost, ...]
    sample_sizes: tuple[SampleSize, ...]
    noise: tuple[NoiseHistogram, ...]
    snr: dict[str, tuple[float, ...]]
    strips: dict[str, tuple[int, ...]]

    def training(self, label: str) -> Training:
        return next(training for training in self.trainings if training.label == label)

    def group(self, name: str) -> list[Measurement]:
        return [measurement for measurement in self.measurements if measurement.group == name]


class Curves(dict[tuple[str, str], np.ndarray]):
    """(system, metric) -> float64 [N, 3]: optimizer step, epoch, value; in order of steps."""


class Images(dict[str, np.ndarray]):
    """uint8 slices [N, S, S] or strips [N, F, S, S] by name.

    real, class/LABEL, samples/ROW (as `row_key` says), asked/SYSTEM/LABEL of systems that are told the class,
    epochs/SYSTEM/EPOCH, schedule/SYSTEM/NAME, and the strips forward and reverse.
    """


class ReportData(_Stored):
    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)
    report: ComparisonReport
    curves: Curves
    images: Images


def row_key(system: str, start: str | None) -> str:
    """The name of a row of Table 1: that of the system, with the start where it is not the protocol's."""
    return system if start is None else f"{system}/{start}"


def save(data: ReportData, folder: Path) -> None:
    """Write the folder's three files, each whole or not at all; `report.json` last."""
    rows = [
        (system, metric, int(step), float(epoch), float(value))
        for (system, metric), points in data.curves.items()
        for step, epoch, value in points
    ]
    names = ("system", "metric", "step", "epoch", "value")
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    types = (pa.string(), pa.string(), pa.int64(), pa.float64(), pa.float64())
    table = pa.table([pa.array(list(c), t) for c, t in zip(columns, types, strict=True)], names=list(names))
    with (  # the first one gets its name last
        whole_file(folder / REPORT) as report,
        whole_file(folder / IMAGES) as images,
        whole_file(folder / CURVES) as curves,
    ):
        pq.write_table(table, curves)
        with images.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **data.images)
        report.write_text(json.dumps(data.report.model_dump(mode="json"), indent=1, allow_nan=False))


def load(folder: Path) -> ReportData:
    """Read a report's data; nothing is unpickled.

    Raises:
        DataError: files are missing, damaged, or of a format that this version does not know.
    """
    for name in (REPORT, CURVES, IMAGES):
        if not (folder / name).is_file():
            raise DataError(f"{folder}: no report data here ({name} is missing); name the folder of a comparison")
    try:
        values = _current_format(json.loads((folder / REPORT).read_text()), folder)
        curves: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
        for row in pq.read_table(folder / CURVES).to_pylist():
            points = curves.setdefault((row["system"], row["metric"]), [])
            points.append((row["step"], row["epoch"], row["value"]))
        with np.load(folder / IMAGES, allow_pickle=False) as stored:
            images = Images({name: stored[name] for name in stored.files})
        return ReportData(
            report=ComparisonReport.model_validate(values),
            curves=Curves({key: np.array(points, dtype=float) for key, points in curves.items()}),
            images=images,
        )
    except (OSError, ValueError, ValidationError, pa.ArrowException) as error:
        raise DataError(f"{folder}: the report data are damaged: {' '.join(str(error).split())}") from None


def _current_format(values: Any, folder: Path) -> dict[str, Any]:
    """The content of report.json as this version writes it."""
    if not isinstance(values, dict):
        raise ValueError(f"{REPORT} must hold an object, got {type(values).__name__}")
    stored = values.get("format", values.get("schema_version"))
    if stored in (1, 2):
        return {key: value for key, value in values.items() if key != "schema_version"} | {"format": FORMAT}
    if stored != FORMAT:
        name = values.get("name", "NAME")
        raise DataError(
            f"{folder / REPORT}: must have format 1 to {FORMAT}, got {stored}; draw it with the version that wrote it, "
            f"or run the comparison {name} again with this one (lwddpm run JOB --fresh)"
        )
    return values
