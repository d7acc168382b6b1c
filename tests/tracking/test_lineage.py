"""From a subject to all that was made from its slices, in a real store; and marks of what is withdrawn."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from tests.data.test_withdrawn import volumes
from typer.testing import CliRunner

from lwddpm.cli import app
from lwddpm.config import TrainJob
from lwddpm.data import lookup
from lwddpm.data.prepare import prepare_dataset
from lwddpm.data.pseudonyms import existing_pseudonyms
from lwddpm.data.store import SPLITS, Dataset
from lwddpm.data.withdrawn import Withdrawals
from lwddpm.tracking import registry
from lwddpm.tracking.lineage import mark_withdrawn, trace
from lwddpm.tracking.runs import tracked_run
from lwddpm.tracking.store import connect
from lwddpm.training.stored_model import read_saved_model

SECRET = "a key of these tests alone"
PEOPLE = [f"sub-MUELLER{i}" for i in range(5)]


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LWDDPM_SUBJECT_KEY", SECRET)
    monkeypatch.chdir(tmp_path)


def serial(function: Any, items: Any, *, description: str) -> Any:
    return map(function, items)


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> str:
    """Of each test alone: names of models are taken once."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    connect(uri)
    return uri


@pytest.fixture
def world(tmp_path: Path, store: str, job: TrainJob, model_dir: Path) -> dict[str, Dataset]:
    """Two datasets, one without the first person, each with a run, a version `NAME/1` and a set of samples."""
    data = volumes(tmp_path).model_copy(update={"withdrawn": None})
    (tmp_path / "withdrawn.txt").write_text("sub-MUELLER0\n")
    fewer = data.model_copy(update={"path": str(tmp_path / "e"), "withdrawn": str(tmp_path / "withdrawn.txt")})
    made = {"whole": prepare_dataset(data, serial), "fewer": prepare_dataset(fewer, serial)}
    for name, dataset in made.items():
        with tracked_run(job, store, None, "digest") as run:
            run.dataset(dataset)
        client = MlflowClient()
        client.create_registered_model(name)
        tags = {"lwddpm.dataset_version": dataset.version}
        client.create_model_version(name, str(model_dir), run.run_id, tags=tags)
        client.set_registered_model_alias(name, "candidate", "1")
        saved = read_saved_model(model_dir).model_dump(mode="json") | {"dataset_version": dataset.version}
        about = {"synthetic": True, "model_uri": f"models:/{name}/1", "drawn_by": f"models:/{name}/1", "count": 4}
        (tmp_path / "samples" / name).mkdir(parents=True)
        (tmp_path / "samples" / name / "samples.json").write_text(json.dumps(about | {"model": saved}))
    return made


def _split_of(dataset: Dataset, subject: str) -> str:
    hashed = existing_pseudonyms().subject(subject)
    return next(split for split in SPLITS if hashed in dataset.subjects(split))


def test_everything_that_was_made_from_a_subject_is_found(world: dict[str, Dataset]) -> None:
    pseudonyms = existing_pseudonyms()
    for person in PEOPLE:
        found = trace(lambda dataset, person=person: lookup.find_subject(dataset, person, pseudonyms))
        names = ["whole"] if person == PEOPLE[0] else ["fewer", "whole"]
        holding = {dataset["version"]: dataset for dataset in found["datasets"]}
        assert set(holding) == {world[name].version for name in names}
        assert sorted(version["uri"] for version in found["versions"]) == [f"models:/{name}/1" for name in names]
        assert sorted(Path(each["path"]).name for each in found["samples"]) == names
        assert {version["aliases"][0] for version in found["versions"]} == {"candidate"}
        assert len(found["runs"]) == len(names)
        for name in names:
            split = _split_of(world[name], person)
            assert holding[world[name].version]["splits"] == {s: 8 if s == split else 0 for s in SPLITS}
            of_name = [each for each in (*found["runs"], *found["versions"]) if each["dataset"] == world[name].version]
            assert {each["trained_on"] for each in of_name} == {split == "train"}
    nobody = trace(lambda dataset: lookup.find_subject(dataset, "sub-NOBODY", pseudonyms))
    assert not any(nobody[key] for key in ("datasets", "runs", "versions", "samples", "not_looked_at"))
    assert (nobody["searched"], nobody["hashed"]) == (2, 2)


def test_a_dataset_that_is_gone_or_another_is_said(world: dict[str, Dataset]) -> None:
    (Path(world["whole"].path) / "dataset.json").unlink()
    fewer = Path(world["fewer"].path) / "dataset.json"
    fewer.write_text(fewer.read_text().replace(world["fewer"].version, "0" * 16))
    found = trace(lambda dataset: lookup.find_subject(dataset, PEOPLE[1], existing_pseudonyms()))
    reasons = {each["version"]: each["reason"] for each in found["not_looked_at"]}
    assert "no prepared dataset here" in reasons[world["whole"].version]
    assert f"holds version {'0' * 16} now" in reasons[world["fewer"].version]


def test_versions_of_withdrawn_subjects_are_marked_and_the_mark_goes_with_the_entry(world: dict[str, Dataset]) -> None:
    pseudonyms = existing_pseudonyms()
    marked = mark_withdrawn(Withdrawals({PEOPLE[0]: 1, "sub-NOBODY": 2}), pseudonyms)
    assert [version["uri"] for version in marked["versions"]] == ["models:/whole/1"]
    assert registry.find_version("whole/1").withdrawn == 1
    assert registry.find_version("fewer/1").withdrawn == 0
    mark_withdrawn(Withdrawals({PEOPLE[0]: 1, PEOPLE[1]: 2}), pseudonyms)
    assert {version.name: version.withdrawn for version in registry.list_versions()} == {"whole": 2, "fewer": 1}
    assert "MUELLER" not in json.dumps(registry.find_version("whole/1").as_dict())
    cleared = mark_withdrawn(Withdrawals({"sub-NOBODY": 1}), pseudonyms)
    assert sorted(cleared["cleared"]) == ["models:/fewer/1", "models:/whole/1"]
    assert registry.withdrawn_in({registry.WITHDRAWN: "edited"}) == 1  # whoever edits a mark does not remove it


def lineage(store: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The verb, in this process: what is imported once is most of what it does."""
    ended = CliRunner().invoke(app, ["lineage", *arguments, "--json", "--tracking-uri", store])
    return ended.exit_code, json.loads(ended.stdout)


def test_the_command(world: dict[str, Dataset], store: str, tmp_path: Path) -> None:
    code, found = lineage(store, "--subject", PEOPLE[0])
    assert (code, [version["uri"] for version in found["versions"]]) == (0, ["models:/whole/1"])
    file = tmp_path / "scans" / PEOPLE[1] / f"{PEOPLE[1]}_run-0_T1w.nii.gz"
    code, found = lineage(store, "--file", str(file), "--source", str(tmp_path / "scans"))
    assert (code, len(found["datasets"])) == (0, 2)
    code, marked = lineage(store, "--withdrawn", "withdrawn.txt")
    assert (code, [version["uri"] for version in marked["versions"]]) == (0, ["models:/whole/1"])
    shown = CliRunner().invoke(app, ["models", "list", "--tracking-uri", store]).stdout
    assert "whole/1: its dataset holds slices of 1 withdrawn subject" in " ".join(shown.split())
    code, error = lineage(store, "--subject", "a", "--file", "b")
    assert (code, error["error"].split(":")[0]) == (2, "lineage")
    assert lineage(store, "--image", "nothing.png")[1]["error"].endswith("no such file; give a picture")
