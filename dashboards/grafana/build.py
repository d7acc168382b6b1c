"""Writes the dashboards in `dashboards/` beside this file; a test compares.

A panel is one line of intent: what, in which unit, by which query. The Grafana Foundation SDK knows the schema.
"""

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

from lwddpm.cluster.metrics import LABELS, PREFIX

HERE = Path(__file__).resolve().parent
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
BY = ", ".join(LABELS)
CHOSEN = 'job_name=~"$job", run=~"$run", trial=~"$trial"'
LEGEND = "{{job_name}} {{run}} {{trial}}"
# Panels that stay empty without an NVIDIA GPU (or another that Ray's agent reads).
GPU = "Only where Ray sees GPUs."


@dataclass(frozen=True)
class Panel:
    """Attributes:
    queries: PromQL -> legend.
    width: of the 24 columns.
    """

    title: str
    description: str
    queries: dict[str, str]
    unit: str = "short"
    kind: Literal["lines", "areas", "log lines", "number", "bars", "shares"] = "lines"
    width: int = 12


def latest(name: str, more: str = "", by: str = BY) -> str:
    """The chosen series of a metric: one for each label set, whichever process exports it."""
    return f"max by ({by}) ({PREFIX}{name}{{{CHOSEN}{more}}})"


def of_gpu(reading: str) -> str:
    """Ray's reading of each GPU that a chosen worker computes on."""
    workers = latest("gpu_worker", by=f"{BY}, rank, GpuUuid")
    return f"{workers} * on (GpuUuid) group_left () max by (GpuUuid) ({reading})"


def hours(resource: str) -> str:
    seconds = f'{PREFIX}resource_seconds_total{{job_name=~"$job", run=~"$run", resource="{resource}"}}'
    return f"sum by (job_name, run) (max_over_time({seconds}[$__range])) / 3600"


def held(resource: str) -> str:
    seconds = f'{PREFIX}resource_seconds_total{{job_name=~"$job", run=~"$run", resource="{resource}"}}'
    return f"sum by (job_name, run) (rate({seconds}[$__rate_interval]))"


PROGRESS = {latest("progress", by=f"{BY}, stage"): LEGEND + " {{stage}}"}
GPU_PANELS = [
    Panel(
        "GPU utilisation",
        f"Share of time in which a worker's GPU ran kernels; trials that share a GPU show the whole GPU. {GPU}",
        {of_gpu("ray_node_gpus_utilization"): LEGEND + " rank {{rank}}"},
        "percent",
    ),
    Panel(
        "GPU memory",
        f"Memory in use on a worker's GPU, by whichever process. {GPU}",
        {of_gpu("ray_node_gram_used * 1024 * 1024"): LEGEND + " rank {{rank}}"},
        "bytes",
    ),
]

TRAINING = {
    "Now": [
        Panel("Images per second", "All chosen trainings together.", {f"sum({latest('train_images_per_s')})": ""}, "short", "number", 5),
        Panel("Loss", "Mean over the newest report.", {latest("train_loss"): LEGEND}, "short", "number", 5),
        Panel("Validation loss", "EMA weights, held-out slices.", {latest("val_loss"): LEGEND}, "short", "number", 5),
        Panel("Workers", "Training workers at work.", {f"sum({latest('workers')})": ""}, "none", "number", 4),
        Panel("Restarts", "Times that lost workers were started again.", {f"sum({latest('worker_restarts')})": ""}, "none", "number", 5),
        Panel("Progress", "Share of each stage that is done.", PROGRESS, "percentunit", "shares", 24),
    ],
    "Curves": [
        Panel("Training loss", "Mean over the steps of a report.", {latest("train_loss"): LEGEND}, kind="log lines"),
        Panel("Validation loss by time", "EMA weights on held-out slices, at every checkpoint.", {latest("val_loss"): LEGEND}, kind="log lines"),
        Panel("Gradient norm", "Before clipping.", {latest("train_grad_norm"): LEGEND}, kind="log lines"),
        Panel("Learning rate", "At the newest report.", {latest("train_lr"): LEGEND}, "sci"),
    ],
    "Speed": [
        Panel("Throughput", "Images per second of each training, over all its workers, without validation and checkpoints.", {latest("train_images_per_s"): LEGEND}),
        Panel("Step time", "Seconds of an optimizer step.", {latest("train_step_seconds"): LEGEND}, "s"),
        Panel("Checkpoint time", "Seconds that the newest checkpoint took to write; training waits for it.", {latest("train_checkpoint_seconds"): LEGEND}, "s"),
        Panel("Epochs", "Epochs done.", {latest("train_epoch"): LEGEND}),
    ],
    "Workers": [
        Panel("Workers and restarts", "Workers at work, and how often lost ones were started again.", {latest("workers"): LEGEND + " workers", latest("worker_restarts"): LEGEND + " restarts"}, "none"),
        Panel("Peak memory of rank 0", "Of its GPU, or of its process on CPUs.", {latest("train_peak_memory_mib"): LEGEND}, "mbytes"),
        *GPU_PANELS,
    ],
}  # fmt: skip

SEARCH = {
    "Trials": [
        Panel("Trials by state", "Of the whole study, earlier sessions included.", {latest("trials", by="job_name, run, state"): "{{state}}"}, "none", "number", 24),
        Panel("Trials", "States over time.", {latest("trials", by="job_name, run, state"): "{{job_name}} {{run}} {{state}}"}, "none", "areas"),
        Panel("What early stopping compares", "Newest measurement of each running trial.", {latest("trial_objective", by=f"{BY}, objective"): "trial {{trial}} {{objective}}"}),
        Panel("Budget reached", "Optimizer step of the newest measurement of each running trial.", {latest("trial_step"): "trial {{trial}}"}, "none"),
        Panel("Loss by trial", "Training loss of running trials.", {latest("train_loss", ', trial!=""'): "trial {{trial}}"}, kind="log lines"),
        Panel("Validation loss by trial", "EMA weights on held-out slices, at every rung.", {latest("val_loss", ', trial!=""'): "trial {{trial}}"}, kind="log lines"),
        Panel("Throughput by trial", "Images per second.", {latest("train_images_per_s", ', trial!=""'): "trial {{trial}}"}),
    ],
    "Evaluation": [
        Panel("Stages now", "Share done of training, sampling, reconstruction and feature extraction.", PROGRESS, "percentunit", "shares", 24),
        Panel("Stages over time", "The slope tells the speed.", PROGRESS, "percentunit", width=24),
    ],
}  # fmt: skip

CLUSTER = {
    "Jobs": [
        Panel("Jobs at work", "Jobs whose driver exports now.", {f'count(count by (job_name, run) ({{__name__=~"{PREFIX}(progress|trials|workers)", job_name=~"$job"}}))': ""}, "none", "number", 6),
        Panel("GPUs held", f"By all jobs; the cluster's own books are in Ray's dashboard. {GPU}", {f"sum({held('GPU')})": ""}, "short", "number", 6),
        Panel("CPUs held", "By training and sampling workers of all jobs.", {f"sum({held('CPU')})": ""}, "short", "number", 6),
        Panel("Images per second", "All trainings of the cluster.", {f"sum({latest('train_images_per_s')})": ""}, "short", "number", 6),
        Panel("GPU-hours by job", f"Hours that each job has held GPUs since it began; from the workers' start, idle or not. {GPU}", {hours("GPU"): "{{job_name}} {{run}}"}, "h", "bars"),
        Panel("CPU-hours by job", "The same for the CPUs of its workers.", {hours("CPU"): "{{job_name}} {{run}}"}, "h", "bars"),
        Panel("GPUs by job", f"GPUs that each job holds. {GPU}", {held("GPU"): "{{job_name}} {{run}}"}, "short", "areas"),
        Panel("CPUs by job", "CPUs that each job's workers hold.", {held("CPU"): "{{job_name}} {{run}}"}, "short", "areas"),
        Panel("Restarts by job", "Times that lost workers were started again.", {f"sum by (job_name, run) ({latest('worker_restarts')})": "{{job_name}} {{run}}"}, "none"),
        Panel("Throughput by job", "Images per second; for a search, of all its trials.", {f"sum by (job_name, run) ({latest('train_images_per_s')})": "{{job_name}} {{run}}"}),
    ],
    "GPUs by job": GPU_PANELS,
}  # fmt: skip

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
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    chosen: list[str] = []
    for variable, label in zip(("job", "run", "trial"), LABELS, strict=True):
        made = made.with_variable(_variable(variable, label, chosen))
        chosen.append(f'{label}=~"${variable}"')
    links = (("LW-DDPM", "lwddpm", None), ("Ray cluster", None, "rayDefaultDashboard"), ("Ray Train", None, "rayTrainDashboard"))
    for text, tag, uid in links:
        made = made.link(_link(text, tag, uid))
    for row, panels in rows.items():
        made = made.with_row(dashboard.Row(row))
        for panel in panels:
            made = made.with_panel(_panel(panel))
    values: dict[str, Any] = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    return values


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


def _link(title: str, tag: str | None, uid: str | None) -> dashboard.DashboardLink:
    link = dashboard.DashboardLink(title).keep_time(True)
    if tag is not None:
        return link.type(DashboardLinkType.DASHBOARDS).tags([tag]).as_dropdown(True).include_vars(True)
    return link.type(DashboardLinkType.LINK).url(f"/d/{uid}").icon("external link")


def _panel(panel: Panel) -> Any:
    match panel.kind:
        case "number":
            made: Any = stat.Panel().color_mode(BigValueColorMode.VALUE).graph_mode(BigValueGraphMode.AREA)
        case "bars" | "shares":
            made = bargauge.Panel().orientation(VizOrientation.HORIZONTAL).min(0)
            if panel.kind == "shares":
                made = made.max(1)
        case _:
            made = _lines(panel)
    made = made.title(panel.title).description(panel.description).unit(panel.unit).datasource(SOURCE)
    made = made.span(panel.width).height(4 if panel.kind == "number" else 8)
    for index, (query, legend) in enumerate(panel.queries.items()):
        target = prometheus.Dataquery().expr(query).legend_format(legend).ref_id(chr(ord("A") + index))
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
