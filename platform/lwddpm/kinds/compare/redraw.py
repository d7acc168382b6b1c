"""Reports of comparisons, named by folder, run id or job name, and drawn again from their data."""

import tempfile
from pathlib import Path
from typing import Any

from lwddpm.config import TrackingConfig
from lwddpm.errors import ConfigError
from lwddpm.report import baseline
from lwddpm.report import data as report_data
from lwddpm.report.page import draw
from lwddpm.report.published import STATEMENTS
from lwddpm.report.statements import judge, measured_on
from lwddpm.tracking.store import check_tracking, connect

FOLDER = "report"  # within a run folder, and among a run's artifacts


def redraw(reference: str, out: str | None = None, tracking_uri: str | None = None) -> dict[str, Any]:
    """Draw a report again.

    Args:
        reference: folder of a comparison or of its report, an MLflow run id, or a job's name.
        out: folder to draw into; default: where the data lie, or ./NAME-report for a run in a store.
        tracking_uri: store to look a run up in; default as everywhere.

    Returns:
        name, run_id, report (the HTML file), which rows beat the baseline, verdict by statement, and what each was
        measured on.

    Raises:
        ConfigError: no such comparison.
        DataError: its data are missing or damaged.
    """
    here = _folder(Path(reference))
    if here is not None:
        return _draw(here, Path(out or here))
    with tempfile.TemporaryDirectory() as place:
        downloaded = _download(reference, Path(place), check_tracking(TrackingConfig(uri=tracking_uri)))
        data = report_data.load(downloaded)
        target = Path(out or f"{data.report.name}-report")
        report_data.save(data, target)
    return _draw(target, target)


def _draw(source: Path, target: Path) -> dict[str, Any]:
    data = report_data.load(source)
    page = draw(data, target)
    return {
        "name": data.report.name,
        "run_id": data.report.run_id,
        "report": str(page.absolute()),
        "baseline": baseline.as_json(data.report),
        "statements": {judgement.statement.key: judgement.verdict for judgement in judge(data.report)},
        "measured_on": {statement.key: measured_on(data.report, statement) for statement in STATEMENTS},
    }


def _folder(path: Path) -> Path | None:
    """The folder with a report's data in, or beneath, a path; a job's name is looked for in ./runs too."""
    for candidate in (path, path / FOLDER, Path("runs") / path / FOLDER):
        if (candidate / report_data.REPORT).is_file():
            return candidate
    return None


def _download(reference: str, place: Path, uri: str) -> Path:
    import mlflow

    client = connect(uri)
    try:
        run_id = client.get_run(reference).info.run_id
    except mlflow.MlflowException:  # not an id: a job's name
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        name = reference.replace("'", "")
        query = f"tags.`lwddpm.kind` = 'compare' and attributes.run_name = '{name}'"
        runs = client.search_runs(experiments, query, order_by=["attributes.start_time DESC"])
        if not runs:
            raise ConfigError(
                f"{reference}: no comparison of this folder, run id or job name; "
                "run one first, lwddpm run compare_demo, or name another store with --tracking-uri"
            ) from None
        run_id = runs[0].info.run_id
    if not client.list_artifacts(run_id, FOLDER):
        raise ConfigError(f"{reference}: run {run_id} has no report yet; the comparison's own command goes on with it")
    return Path(client.download_artifacts(run_id, FOLDER, str(place)))
