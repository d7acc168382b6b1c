import json
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from mlflow.entities import Param, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from PIL import Image

from lwddpm.config import TrainJob, WorkersConfig
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError, DataError, JobError
from lwddpm.jobfile import flattened
from lwddpm.tracking.earlier_runs import Place, if_deleted, place_of, run_digest
from lwddpm.tracking.outbox import Outbox
from lwddpm.tracking.runs import TrackedRun, tracked_run
from lwddpm.tracking.store import connect


def _status(store: str, run_id: str) -> str:
    return str(connect(store).get_run(run_id).info.status)


def test_a_run_says_what_it_was_made_of(job: TrainJob, store: str, tiny_dataset: Dataset, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox")
    with tracked_run(job, store, None, "digest", tmp_path) as run:
        run.dataset(tiny_dataset)
        outbox.metrics({1: {"train/loss": 0.5}, 2: {"train/loss": 0.25, "train/images_per_s": 10.0}})
        outbox.images(2, 1.0, np.full((16, 16, 16), 7, np.uint8))
    client = connect(store)
    found = client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == job.name
    assert found.data.params["training.lr"] == str(job.training.lr)
    assert found.data.params["model.dim_mults"] == "[1, 2]"
    tags = found.data.tags
    assert tags["lwddpm.dataset_version"] == tiny_dataset.version
    assert tags["mlflow.note.content"] == (
        "Trains lw_ddpm, widths 8 x [1, 2], 8 steps of batches of 8, on simulated slices, 16 px."
    )
    assert {"lwddpm.digest", "lwddpm.host", "lwddpm.version.torch", "mlflow.source.git.commit"} <= tags.keys()
    (recorded,) = found.inputs.dataset_inputs
    assert recorded.dataset.digest == tiny_dataset.version[:36]
    assert [(m.step, m.value) for m in client.get_metric_history(run.run_id, "train/loss")] == [(1, 0.5), (2, 0.25)]
    files = {file.path for file in client.list_artifacts(run.run_id)}
    assert {"job.yaml", "samples"} <= files
    grid = mlflow.artifacts.download_artifacts(
        run_id=run.run_id, artifact_path="samples/epoch_0001.00.png", dst_path=str(tmp_path)
    )
    assert np.asarray(Image.open(grid)).max() >= 7


def test_warnings_stand_beside_each_other(job: TrainJob, store: str, tmp_path: Path) -> None:
    with tracked_run(job, store, None, "digest", tmp_path) as run:
        Outbox(tmp_path / "outbox").warning(3, "damaged checkpoint")
        for warning in ("mode collapse", "intensities", "mode collapse"):
            run.warn(warning)
    tags = connect(store).get_run(run.run_id).data.tags
    assert tags["lwddpm.warning"] == "damaged checkpoint; mode collapse; intensities"


def test_a_run_that_the_environment_names_is_somebody_elses(
    job: TrainJob, store: str, open_run: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`mlflow.start_run` would continue the run that MLFLOW_RUN_ID names, and end it."""
    client = connect(store)
    before = client.get_run(open_run).to_dictionary()
    monkeypatch.setenv("MLFLOW_RUN_ID", open_run)
    with tracked_run(job, store, None, "digest", tmp_path) as run:
        monkeypatch.setenv("MLFLOW_RUN_ID", open_run)  # as a job within a job finds it
        with tracked_run(job, store, None, "digest", nested=True) as inner:
            inner.values({"eval/ssim_pairs": 0.5}, step=1)
        Outbox(tmp_path / "outbox").metrics({1: {"train/loss": 0.5}})
    assert len({open_run, run.run_id, inner.run_id}) == 3
    assert client.get_run(open_run).to_dictionary() == before
    assert client.get_run(run.run_id).data.metrics["train/loss"] == 0.5
    assert client.get_run(run.run_id).info.status == "FINISHED"


def test_a_model_that_the_environment_names_is_somebody_elses(
    job: TrainJob, store: str, open_run: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """MLflow attaches every metric to the active model, which MLFLOW_ACTIVE_MODEL_ID names."""
    client = connect(store)
    experiment_id = client.get_run(open_run).info.experiment_id
    theirs = client.create_logged_model(experiment_id, source_run_id=open_run).model_id
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", client.create_experiment("theirs"))
    monkeypatch.setenv("MLFLOW_ACTIVE_MODEL_ID", theirs)  # for threads that begin now
    mlflow.set_active_model(model_id=theirs)  # for this one, as in a new process
    with tracked_run(job, store, None, "digest", tmp_path) as run:
        Outbox(tmp_path / "outbox").metrics({1: {"train/loss": 0.5}})  # sent from a thread
        run.values({"eval/ssim_pairs": 0.5}, step=1)
    assert not client.get_logged_model(theirs).metrics
    kept = client.get_run(run.run_id)
    assert (kept.data.metrics["train/loss"], kept.data.metrics["eval/ssim_pairs"]) == (0.5, 0.5)
    assert kept.info.experiment_id == experiment_id


def test_a_finished_job_whose_run_was_deleted_says_how_it_comes_back(store: str, open_run: str) -> None:
    client, result = connect(store), {"run_id": open_run, "tracking_uri": store}
    assert if_deleted(store, result) == ""
    client.delete_run(open_run)
    assert f"mlflow runs restore --run-id {open_run}" in if_deleted(store, result)
    assert if_deleted(store, result | {"tracking_uri": "http://elsewhere"}) == ""
    client.restore_run(open_run)
    assert if_deleted(store, result) == ""


@pytest.mark.parametrize("path", ["/data/phantoms", "datasets/phantoms", "s3://bucket/phantoms"])
def test_a_dataset_is_recorded_as_mlflow_itself_records_one(
    job: TrainJob, store: str, tiny_dataset: Dataset, path: str
) -> None:
    from mlflow.data.dataset_source_registry import resolve_dataset_source
    from mlflow.data.meta_dataset import MetaDataset

    with tracked_run(job, store, None, "digest") as run:
        run.dataset(replace(tiny_dataset, path=path))
    with mlflow.start_run(experiment_id=connect(store).get_run(run.run_id).info.experiment_id) as other:
        source = resolve_dataset_source(path)
        mlflow.log_input(MetaDataset(source, name="phantoms", digest=tiny_dataset.version[:36]), context="training")
    ours, theirs = (connect(store).get_run(each).inputs.dataset_inputs for each in (run.run_id, other.info.run_id))
    assert [each.to_dictionary() for each in ours] == [each.to_dictionary() for each in theirs]


def _fail(job: TrainJob, store: str, run_id: str | None, error: BaseException) -> str:
    opened: list[TrackedRun] = []

    def fails() -> None:
        with tracked_run(job, store, run_id, "digest") as run:
            opened.append(run)
            raise error

    with pytest.raises(type(error)):
        fails()
    return opened[0].run_id


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("too odd"), "FAILED", "too odd"),
        (DataError("no images"), "FAILED", "no images"),
        (KeyboardInterrupt(), "KILLED", None),
    ],
)
def test_the_final_status_and_the_reason_are_what_happened(
    job: TrainJob, store: str, error: BaseException, status: str, reason: str | None
) -> None:
    run_id = _fail(job, store, None, error)
    assert _status(store, run_id) == status
    assert connect(store).get_run(run_id).data.tags.get("lwddpm.reason") == reason
    with tracked_run(job, store, run_id, "digest"):
        pass
    assert _status(store, run_id) == "FINISHED"
    assert "lwddpm.reason" not in connect(store).get_run(run_id).data.tags


def test_wrong_input_leaves_a_finished_run_as_it_was(job: TrainJob, store: str) -> None:
    with tracked_run(job, store, None, "digest") as run:
        pass
    assert _fail(job, store, run.run_id, ConfigError("other settings")) == run.run_id
    assert _status(store, run.run_id) == "FINISHED"


def test_where_a_run_is_is_said_at_once(job: TrainJob, store: str, capsys: pytest.CaptureFixture[str]) -> None:
    with tracked_run(job, store, None, "digest") as run:
        assert f"MLflow run {run.run_id} ({store})" in capsys.readouterr().err


def test_a_continued_run_is_the_same_run_and_logs_no_step_twice(job: TrainJob, store: str, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox")
    with tracked_run(job, store, None, "digest", tmp_path) as run:
        outbox.metrics({step: {"train/loss": 1.0 / step} for step in (1, 2, 3)})
    with tracked_run(job, store, run.run_id, "digest", tmp_path) as again:
        assert again.run_id == run.run_id
        outbox.metrics({step: {"train/loss": 1.0 / step} for step in (2, 3, 4)})  # from the checkpoint of step 1
        assert again.history("train/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert _status(store, run.run_id) == "FINISHED"


def _with_seed(job: TrainJob, seed: int) -> TrainJob:
    assert job.evaluation is not None
    return job.model_copy(update={"evaluation": job.evaluation.model_copy(update={"seed": seed})})


def test_other_settings_have_a_run_of_their_own_beneath_and_find_it_again(job: TrainJob, store: str) -> None:
    client, other = connect(store), _with_seed(job, 5)
    assert place_of(job, store, None) == Place(None)
    with tracked_run(job, store, None, run_digest(job)) as run:
        assert place_of(other, store, run.run_id) == Place(None, run.run_id, parent_finished=False)
    elsewhere = job.model_copy(update={"workers": WorkersConfig(max_failures=0), "registry": None})
    assert place_of(elsewhere, store, run.run_id) == Place(run.run_id)
    found = []
    for _ in range(2):
        place = place_of(other, store, run.run_id)
        assert (place.parent, place.parent_finished) == (run.run_id, True)
        with tracked_run(other, store, place.run_id, run_digest(other), parent=place.parent) as own:
            found.append(own.run_id)
    assert found[0] == found[1] != run.run_id
    assert client.get_run(own.run_id).data.params["evaluation.seed"] == "5"
    assert client.get_run(run.run_id).data.params["evaluation.seed"] == "0"
    assert place_of(_with_seed(job, 6), store, run.run_id).run_id is None
    client.delete_run(own.run_id)
    assert place_of(other, store, run.run_id) == Place(None, run.run_id, parent_finished=True)
    client.delete_run(run.run_id)
    assert place_of(other, store, run.run_id) == Place(None)


def test_a_run_with_other_parameters_keeps_its_settings_when_it_is_opened(job: TrainJob, store: str) -> None:
    """To finish its training."""
    client, other = connect(store), _with_seed(job, 5)
    with tracked_run(job, store, None, run_digest(job)) as run:
        pass
    before = client.get_run(run.run_id).data
    with tracked_run(other, store, run.run_id, run_digest(other)):
        pass
    after = client.get_run(run.run_id).data
    assert after.params == before.params
    assert after.tags["lwddpm.digest"] == before.tags["lwddpm.digest"]
    settings = Path(client.download_artifacts(run.run_id, "job.yaml")).read_text()
    assert yaml.safe_load(settings)["evaluation"]["seed"] == 0


def test_a_run_of_0_1_0_recorded_all_settings_and_is_continued(job: TrainJob, store: str, open_run: str) -> None:
    client = connect(store)
    assert place_of(job, store, open_run) == Place(open_run), "killed before any was recorded"
    flat = flattened(job.model_dump(mode="json"))
    client.log_batch(open_run, params=[Param(key, str(value)) for key, value in flat.items()])
    for same in (job, job.model_copy(update={"output": "elsewhere"})):
        assert place_of(same, store, open_run) == Place(open_run)
    assert place_of(_with_seed(job, 5), store, open_run).parent == open_run


def test_a_store_that_does_not_answer_is_one_clear_error(
    job: TrainJob, store: str, open_run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: MlflowClient, run_id: str) -> Run:
        raise MlflowException("the database is locked")

    monkeypatch.setattr(MlflowClient, "get_run", refuse)
    with pytest.raises(JobError, match="the database is locked; the same command tries again"):
        place_of(job, store, open_run)


def test_a_run_deleted_meanwhile_is_replaced_by_a_new_one(job: TrainJob, store: str) -> None:
    with tracked_run(job, store, "0" * 32, "digest") as run:
        pass
    assert _status(store, run.run_id) == "FINISHED"


def test_json_is_stored_as_text(job: TrainJob, store: str, tmp_path: Path) -> None:
    with tracked_run(job, store, None, "digest") as run:
        run.text(json.dumps({"a": 1}), "evaluation/metrics.json")
    file = mlflow.artifacts.download_artifacts(
        run_id=run.run_id, artifact_path="evaluation/metrics.json", dst_path=str(tmp_path)
    )
    assert json.loads(Path(file).read_text()) == {"a": 1}
