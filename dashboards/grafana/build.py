"""Writes the dashboards in `dashboards/` beside this file; a test compares.

A panel says what it shows, in which unit, by which query; the Grafana Foundation SDK knows the schema. What Ray's own
dashboards show is not shown again, but linked.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    ScaleDistribution,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from lwddpm.cluster.exported import LABELS, PREFIX

HERE = Path(__file__).resolve().parent
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
BY = ", ".join(LABELS)
CHOSEN = 'job_name=~"$job", run=~"$run", trial=~"$trial"'
LEGEND = "{{job_name}} {{run}} {{trial}}"
TOTAL = "total"
# Panels that stay empty without an NVIDIA GPU (or another that Ray's agent reads).
GPU = "Only where Ray sees GPUs."


@dataclass(frozen=True)
class Panel:
    """What a panel shows.

    Attributes:
        query: PromQL.
        also: a second query with its legend.
        width: of the 24 columns.
    """

    title: str
    description: str
    query: str
    legend: str = LEGEND
    unit: str = "short"
    kind: Literal["lines", "areas", "log lines", "number", "bars", "shares"] = "lines"
    width: int = 12
    also: tuple[str, str] | None = None


def latest(name: str, more: str = "", by: str = BY) -> str:
    """The chosen series of a metric: one for each label set, whichever process exports it."""
    return f"max by ({by}) ({PREFIX}{name}{{{CHOSEN}{more}}})"


def all_jobs(name: str) -> str:
    return f"sum({latest(name)})"


def by_job(name: str) -> str:
    """For a search, over all its trials."""
    return f"sum by (job_name, run) ({latest(name)})"


def of_gpu(reading: str) -> str:
    """Ray's reading of each GPU that a chosen worker computes on."""
    workers = latest("gpu_worker", by=f"{BY}, rank, GpuUuid")
    return f"{workers} * on (GpuUuid) group_left () max by (GpuUuid) ({reading})"


def resource_seconds(resource: str) -> str:
    return f'{PREFIX}resource_seconds_total{{job_name=~"$job", run=~"$run", resource="{resource}"}}'


def hours(resource: str) -> str:
    return f"sum by (job_name, run) (max_over_time({resource_seconds(resource)}[$__range])) / 3600"


def held(resource: str) -> str:
    return f"sum by (job_name, run) (rate({resource_seconds(resource)}[$__rate_interval]))"


def stages(title: str, description: str, **options: Any) -> Panel:
    query = latest("progress", by=f"{BY}, stage")
    return Panel(title, description, query, f"{LEGEND} {{{{stage}}}}", "percentunit", width=24, **options)


GPU_PANELS = [
    Panel(
        "GPU utilisation",
        f"Share of time in which a worker's GPU ran kernels; trials that share a GPU show the whole GPU. {GPU}",
        of_gpu("ray_node_gpus_utilization"),
        f"{LEGEND} rank {{{{rank}}}}",
        "percent",
    ),
    Panel(
        "GPU memory",
        f"Memory in use on a worker's GPU, by whichever process. {GPU}",
        of_gpu("ray_node_gram_used * 1024 * 1024"),
        f"{LEGEND} rank {{{{rank}}}}",
        "bytes",
    ),
]

TRAINING = {
    "Now": [
        Panel(
            "Images per second",
            "All chosen trainings together.",
            all_jobs("train_images_per_s"),
            TOTAL,
            kind="number",
            width=5,
        ),
        Panel("Loss", "Mean over the newest report.", latest("train_loss"), kind="number", width=5),
        Panel("Validation loss", "EMA weights, held-out slices.", latest("val_loss"), kind="number", width=5),
        Panel("Workers", "Training workers at work.", all_jobs("workers"), TOTAL, "none", "number", 4),
        Panel("Restarts", "Starts of lost workers.", all_jobs("worker_restarts"), TOTAL, "none", "number", 5),
        stages("Progress", "Share of each stage that is done.", kind="shares"),
    ],
    "Curves": [
        Panel("Training loss", "Mean over the steps of a report.", latest("train_loss"), kind="log lines"),
        Panel(
            "Validation loss by time",
            "EMA weights on held-out slices, at every checkpoint.",
            latest("val_loss"),
            kind="log lines",
        ),
        Panel("Gradient norm", "Before clipping.", latest("train_grad_norm"), kind="log lines"),
        Panel("Learning rate", "At the newest report.", latest("train_lr"), unit="sci"),
    ],
    "Samples and GANs": [
        Panel(
            "Diversity of the samples",
            "Median distance of a snapshot's slice to its nearest other, relative to real ones; below 0.1: collapsed.",
            latest("train_diversity"),
            width=24,
        ),
        Panel(
            "Losses of both sides",
            "Of GANs only.",
            f"{latest('train_loss')} and {latest('train_loss_discriminator')}",
            f"{LEGEND} generator",
            also=(latest("train_loss_discriminator"), f"{LEGEND} discriminator"),
        ),
        Panel(
            "Gradient norm of the discriminator",
            "Before clipping; of GANs only.",
            latest("train_grad_norm_discriminator"),
            kind="log lines",
        ),
    ],
    "Speed": [
        Panel(
            "Throughput",
            "Images per second of each training, over all its workers, without validation and checkpoints.",
            latest("train_images_per_s"),
        ),
        Panel("Step time", "Seconds of an optimizer step.", latest("train_step_seconds"), unit="s"),
        Panel(
            "Checkpoint time",
            "Seconds that training waited for the newest checkpoint, which is written beside it.",
            latest("train_checkpoint_seconds"),
            unit="s",
        ),
        Panel("Epochs", "Epochs done.", latest("train_epoch")),
    ],
    "Workers": [
        Panel(
            "Workers and restarts",
            "Workers at work, and how often lost ones were started again.",
            latest("workers"),
            f"{LEGEND} workers",
            "none",
            also=(latest("worker_restarts"), f"{LEGEND} restarts"),
        ),
        Panel(
            "Peak memory of rank 0",
            "Of its GPU, or of its process on CPUs.",
            latest("train_peak_memory_mib"),
            unit="mbytes",
        ),
        *GPU_PANELS,
    ],
}

TRIAL = "{{job_name}} trial {{trial}}"
OF_TRIALS = ', trial!=""'
STATES = latest("trials", by="job_name, run, state")
SEARCH = {
    "Trials": [
        Panel(
            "Trials by state",
            "Of the whole study, earlier sessions included.",
            STATES,
            "{{job_name}} {{state}}",
            "none",
            "number",
            24,
        ),
        Panel("Trials", "States over time.", STATES, "{{job_name}} {{run}} {{state}}", "none", "areas"),
        Panel(
            "What early stopping compares",
            "Newest measurement of each running trial.",
            latest("trial_objective", by=f"{BY}, objective"),
            f"{TRIAL} {{{{objective}}}}",
        ),
        Panel("Budget reached", "Optimizer step of that measurement.", latest("trial_step"), TRIAL, "none"),
        Panel("Loss by trial", "Of running trials.", latest("train_loss", OF_TRIALS), TRIAL, kind="log lines"),
        Panel(
            "Validation loss by trial",
            "EMA weights on held-out slices, at every rung.",
            latest("val_loss", OF_TRIALS),
            TRIAL,
            kind="log lines",
        ),
        Panel("Throughput by trial", "Images per second.", latest("train_images_per_s", OF_TRIALS), TRIAL),
    ],
    "Evaluation": [
        stages("Stages now", "Share done of training, sampling, reconstruction, feature extraction.", kind="shares"),
        stages("Stages over time", "The slope tells the speed."),
    ],
}

JOB = "{{job_name}} {{run}}"
CLUSTER = {
    "Jobs": [
        Panel(
            "Jobs at work",
            "Jobs whose driver exports now.",
            f'count(count by (job_name, run) ({{__name__=~"{PREFIX}(progress|trials|workers)", {CHOSEN}}}))',
            TOTAL,
            "none",
            "number",
            6,
        ),
        Panel(
            "GPUs held",
            f"By all jobs; the cluster's own books are in Ray's dashboard. {GPU}",
            f"sum({held('GPU')})",
            TOTAL,
            kind="number",
            width=6,
        ),
        Panel("CPUs held", "By the workers of all jobs.", f"sum({held('CPU')})", TOTAL, kind="number", width=6),
        Panel("Images per second", "All trainings.", all_jobs("train_images_per_s"), TOTAL, kind="number", width=6),
        Panel(
            "GPU-hours by job",
            f"Hours that each job has held GPUs since it began, from the start of its workers, busy or idle. {GPU}",
            hours("GPU"),
            JOB,
            "h",
            "bars",
        ),
        Panel("CPU-hours by job", "The same for the CPUs of its workers.", hours("CPU"), JOB, "h", "bars"),
        Panel("GPUs by job", f"GPUs that each job holds. {GPU}", held("GPU"), JOB, kind="areas"),
        Panel("CPUs by job", "CPUs that each job's workers hold.", held("CPU"), JOB, kind="areas"),
        Panel("Restarts by job", "Starts of lost workers.", by_job("worker_restarts"), JOB, "none"),
        Panel("Throughput by job", "Images per second.", by_job("train_images_per_s"), JOB),
    ],
    "GPUs by job": GPU_PANELS,
}

DASHBOARDS: dict[str, tuple[str, str, dict[str, list[Panel]]]] = {
    "training": ("LW-DDPM training", "Loss, speed and workers of trainings, searches' trials included.", TRAINING),
    "search": ("LW-DDPM search and evaluation", "Trials by state and what they measure; progress of stages.", SEARCH),
    "cluster": ("LW-DDPM jobs on the cluster", "Who holds which CPUs and GPUs, and for how long.", CLUSTER),
}


def build(name: str) -> dict[str, Any]:
    """One dashboard as JSON values."""
    title, description, rows = DASHBOARDS[name]
    made = (
        dashboard.Dashboard(title)
        .uid(f"lwddpm-{name}")
        .description(description)
        .tags(["lwddpm"])
        .time("now-1h", "now")
        .refresh("10s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(_data_source())
    )
    chosen: list[str] = []
    for variable, label in zip(("job", "run", "trial"), LABELS, strict=True):
        made = made.with_variable(_variable(variable, label, chosen))
        chosen.append(f'{label}=~"${variable}"')
    ours = dashboard.DashboardLink("LW-DDPM").type(DashboardLinkType.DASHBOARDS).tags(["lwddpm"])
    made = made.link(ours.as_dropdown(True).include_vars(True).keep_time(True))
    for text, uid in (("Ray cluster", "rayDefaultDashboard"), ("Ray Train", "rayTrainDashboard")):
        rays = dashboard.DashboardLink(text).type(DashboardLinkType.LINK).url(f"/d/{uid}").icon("external link")
        made = made.link(rays.keep_time(True))
    number = itertools.count(1)
    for row, panels in rows.items():
        made = made.with_row(dashboard.Row(row).id(next(number)))
        for panel in panels:
            made = made.with_panel(_panel(panel).id(next(number)))
    values: dict[str, Any] = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    return values


def _data_source() -> dashboard.DatasourceVariable:
    """Ours unless another Prometheus is chosen; its uid is that of provisioning/datasources."""
    ours = VariableOption(selected=True, text="LW-DDPM Prometheus", value="lwddpm-prometheus")
    return dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus").current(ours)


def _variable(name: str, label: str, chosen: Sequence[str]) -> dashboard.QueryVariable:
    """All values of a label among the series that the variables before it leave; several may be chosen."""
    selector = ", ".join([f'__name__=~"{PREFIX}.+"', *chosen])
    return (
        dashboard.QueryVariable(name)
        .label(name)
        .datasource(SOURCE)
        .query(f"label_values({{{selector}}}, {label})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")  # a trial's label is missing outside searches
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def _panel(panel: Panel) -> Any:
    newest = common.ReduceDataOptions().calcs(["lastNotNull"])
    match panel.kind:
        case "number":
            made: Any = stat.Panel().color_mode(BigValueColorMode.VALUE).graph_mode(BigValueGraphMode.AREA)
            made = made.reduce_options(newest)
        case "bars" | "shares":
            made = bargauge.Panel().orientation(VizOrientation.HORIZONTAL).min(0).reduce_options(newest)
            if panel.kind == "shares":
                made = made.max(1)
        case _:
            made = _lines(panel)
    made = made.title(panel.title).description(panel.description).unit(panel.unit).datasource(SOURCE)
    made = made.span(panel.width).height(4 if panel.kind == "number" else 8)
    queries = [(panel.query, panel.legend), *([panel.also] if panel.also else [])]
    for reference, (query, legend) in zip("AB", queries, strict=False):
        target = prometheus.Dataquery().expr(query).legend_format(legend).ref_id(reference)
        made = made.with_target(target.instant() if panel.kind in ("bars", "shares") else target.range())
    return made


def _lines(panel: Panel) -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(True).placement(LegendPlacement.BOTTOM)
    made = (
        timeseries.Panel()
        .legend(legend.display_mode(LegendDisplayMode.TABLE).calcs(["lastNotNull", "min", "max"]))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        .line_width(2)
    )
    if panel.kind == "log lines":
        return made.scale_distribution(common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(10))
    if panel.kind == "areas":
        return made.fill_opacity(30).stacking(common.StackingConfig().mode(StackingMode.NORMAL)).min(0)
    return made


def write(folder: Path = HERE / "dashboards") -> None:
    for name in DASHBOARDS:
        (folder / f"{name}.json").write_text(json.dumps(build(name), indent=2) + "\n")


if __name__ == "__main__":
    write()
