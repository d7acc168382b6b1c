"""What MLflow's own pages say of an experiment, a run and a model: a few sentences, so that nobody needs our board."""

import json

from lwddpm.config import (
    PHANTOM,
    AnyJob,
    AuditJob,
    CompareJob,
    DataConfig,
    EvaluateJob,
    SearchJob,
    TradeoffJob,
    TrainingJob,
)

NOTE = "mlflow.note.content"
_COLUMNS = [
    "attributes.`Duration`",
    "metrics.`val/loss`",
    "metrics.`eval/fd_lite0`",
    "metrics.`eval/fd_lite0_floor`",
    "params.`model.family`",
    "tags.`lwddpm.kind`",
]
EXPERIMENT = {
    NOTE: (
        "Jobs of LW-DDPM, a run for each training, search or evaluation; trials lie beneath their search. "
        "Read `eval/NAME` beside `eval/NAME_floor`: what real slices score in the place of the generated ones. "
        "Settings: `job.yaml`; sample grids by epoch: `samples/`; figures: `figures/`."
    ),
    "mlflow.experimentKind": "custom_model_development",
    # the columns of MLflow's table under a link that ends in ?viewStateShareKey=lwddpm
    "mlflow.sharedViewState.lwddpm": json.dumps({"selectedColumns": _COLUMNS}),
}
MODEL = (
    "Generators of 2D brain MRI slices. Every slice is synthetic and not for diagnosis. `candidate` is the newest "
    "version, `champion` the promoted one; the tags `lwddpm.promotion.TIME` say who promoted what and why."
)


def run_note(job: AnyJob) -> str:
    """What a run does, in a sentence or two of Markdown."""
    match job:
        case SearchJob():
            trials = job.search.num_trials or "all"
            return (
                f"Searches `{job.search.space}` for {', '.join(job.search.objectives)} with {job.search.sampler} and "
                f"{job.search.scheduler}, {trials} trials: the runs beneath. Ranking: `trials.md`; "
                f"figures: `figures/`. Base: {_training(job)}"
            )
        case CompareJob():
            systems = ", ".join(job.compare.systems)
            return f"Compares {systems} on {_slices(job.data)}: `report/report.html`. Trainings: the runs beneath."
        case TrainingJob():
            return f"Trains {_training(job)}"
        case EvaluateJob():
            return f"Measures {job.model_uri} on {_slices(job.data)}: `evaluation/metrics.md`."
        case AuditJob():
            return f"Looks for training slices among those of {job.model_uri}: `audit/audit.html`."
        case TradeoffJob():
            return f"Draws {job.model_uri} in many ways, on {_slices(job.data)}: `tradeoff/tradeoff.html`."
    return f"A job of kind {job.kind}."


def evaluation_note(job: TrainingJob) -> str:
    """The same of the evaluation of a model that another run has trained, and evaluated otherwise."""
    return f"Measures the model of the run above it on {_slices(job.data)}: `evaluation/metrics.md`."


def _training(job: TrainingJob) -> str:
    model, training = job.model, job.training
    length = f"{training.max_steps:,} steps" if training.max_steps else f"{training.epochs:,} epochs"
    network = f"{model.family}, widths {model.dim} x {list(model.dim_mults)}"
    return f"{network}, {length} of batches of {training.batch_size}, on {_slices(job.data)}."


def _slices(data: DataConfig) -> str:
    return f"{'simulated slices' if data.source == PHANTOM else data.public_source}, {data.image_size} px"
