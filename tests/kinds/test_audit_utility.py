"""The part utility of an audit: refused without classes, measured with them, and it goes on where it was killed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lwddpm.cluster.session import Session
from lwddpm.config import AuditJob, SamplingConfig, TrainJob
from lwddpm.data.prepare import prepare_dataset
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError
from lwddpm.jobfile import load_job
from lwddpm.kinds.audit import run as audits
from lwddpm.kinds.audit import utility
from lwddpm.kinds.dry_run import plan
from lwddpm.models.build import build_model, count_parameters
from lwddpm.tracking.store import connect
from lwddpm.training.stored_model import SavedModel, save_model
from lwddpm.training.vocabulary import vocabulary_of

SPLITS = "data.splits=[0.5,0.25,0.25]"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """160 phantoms of 32x32, half of them held out."""
    path = tmp_path_factory.mktemp("useful") / "phantoms"
    job = load_job("audit", ["data.phantom_count=160", SPLITS, f"data.path={path}"])
    assert isinstance(job, AuditJob)
    return prepare_dataset(job.data, lambda function, items, **options: map(function, items))


@pytest.fixture
def model(tiny_job: Callable[..., TrainJob], dataset: Dataset, tmp_path: Path) -> Callable[..., Path]:
    """Builds an untrained network that is told some conditions."""

    def build(*conditions: str) -> Path:
        job = tiny_job()
        config = job.model.model_copy(update={"conditions": conditions})
        vocabulary = vocabulary_of(dataset, conditions, 0.1) if conditions else None
        saved = SavedModel(
            model=config,
            diffusion=job.diffusion,
            image_size=32,
            dataset_version=dataset.version,
            dataset_simulated=True,
            training_digest=job.training_digest(),
            step=8,
            epoch=1.0,
            parameters=count_parameters(config),
            conditions=vocabulary,
        )
        torch.manual_seed(0)
        return save_model(tmp_path / "model", build_model(config, vocabulary=vocabulary), saved)

    return build


@pytest.fixture
def job(dataset: Dataset, tmp_path: Path) -> Callable[..., AuditJob]:
    def build(model: Path, *overrides: str) -> AuditJob:
        settings = {
            "model_uri": model,
            "data.path": dataset.path,
            "data.phantom_count": 160,
            "audit.parts": "[utility]",
            "audit.batch_size": 50,
            "utility.learners": "[logistic]",
            "utility.real_shares": "[0.5,1]",
            "utility.synthetic_ratios": "[0,1]",
            "utility.seeds": 2,
            "workers.cpus_per_worker": 1,
            "output": tmp_path / "runs",
            "tracking.uri": f"sqlite:///{tmp_path}/mlflow.db",
        }
        built = load_job("audit", [SPLITS, *(f"{key}={value}" for key, value in settings.items()), *overrides])
        assert isinstance(built, AuditJob)
        return built

    return build


def _run(job: AuditJob) -> dict[str, Any]:
    with Session(job.workers) as session:
        return audits.run_audit(job, session, fresh=False)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, dataset: Dataset, model: Callable[..., Path]) -> list[range]:
    """Has the model draw training slices of the class that is asked for; returns the numbers that it is asked for."""
    asked: list[range] = []
    images, labels = np.array(dataset.images("train")), dataset.labels("train")

    def draw(model_dir: Path, sampling: SamplingConfig, numbers: range, *others: Any) -> np.ndarray:
        asked.append(numbers)
        vocabulary = vocabulary_of(dataset, ("label",), 0.1)
        assert vocabulary is not None
        assigned = vocabulary.assigned({}, "train", range(numbers.stop))
        names = [str(vocabulary.values(codes)["label"]) for codes in assigned]
        rows = [np.flatnonzero(labels == dataset.label_names.index(name)) for name in names]
        nth = [names[:number].count(name) for number, name in enumerate(names)]  # each training slice once
        return np.stack([images[rows[number][nth[number] % len(rows[number])]] for number in numbers])

    monkeypatch.setattr(audits, "draw_indices", draw)
    return asked


@pytest.mark.cluster
def test_utility_alone_is_measured_and_told_without_a_copied_share(
    job: Callable[..., AuditJob], model: Callable[..., Path], drawn: list[range], dataset: Dataset
) -> None:
    result = _run(job(model("label")))
    num = dataset.num("train")
    assert [(numbers.start, numbers.stop) for numbers in drawn] == [(0, 50), (50, num)]
    stored = json.loads((Path(result["run_dir"]) / "report" / "audit.json").read_text())
    learner = stored["utility"]["learners"][0]
    assert [(arm["share"], arm["ratio"]) for arm in learner["arms"]] == [(0, 1), (0.5, 0), (0.5, 1), (1, 0), (1, 1)]
    assert stored["verdict"] == "undecided"
    records = {record["name"]: record for record in stored["records"]}
    assert records["utility_real_logistic"]["n"] == dataset.num("test")
    copies = learner["arms"][0]["accuracy"]["value"]  # copies are as good as the training slices
    assert copies == pytest.approx(records["utility_real_logistic"]["value"], abs=0.05)

    client = connect(result["tracking_uri"])
    assert "audit/figures/utility.png" in {f.path for f in client.list_artifacts(result["run_id"], "audit/figures")}
    logged = client.get_run(result["run_id"]).data.metrics
    assert logged["audit/utility_synthetic_logistic"] == pytest.approx(copies)
    assert logged["audit/utility_logistic_r0.5_k1"] == learner["arms"][2]["accuracy"]["value"]
    page = (Path(result["run_dir"]) / "report" / "audit.html").read_text()
    assert "Copied share: not measured; copies make any generator look useful" in page
    assert "worth" in page


@pytest.mark.cluster
def test_a_killed_study_learns_on_where_it_was(
    job: Callable[..., AuditJob], model: Callable[..., Path], drawn: list[range], monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[str] = []
    whole = utility.learn

    def counted(arm: Any, *others: Any) -> Any:
        if len(learnt) == 4:
            raise KeyboardInterrupt
        learnt.append(arm.name)
        return whole(arm, *others)

    monkeypatch.setattr(utility, "learn", counted)
    wanted = job(model("label"))
    with pytest.raises(KeyboardInterrupt):
        _run(wanted)
    monkeypatch.setattr(utility, "learn", lambda arm, *others: (learnt.append(arm.name), whole(arm, *others))[1])
    before = len(drawn)
    first = _run(wanted)
    assert len(drawn) == before  # nothing is drawn again
    assert len(learnt) == len(set(learnt)) == 2 * 5  # and nothing learnt twice
    assert _run(wanted) == first


def test_utility_of_a_model_without_classes_is_refused_before_anything_starts(
    job: Callable[..., AuditJob], model: Callable[..., Path], drawn: list[range]
) -> None:
    with pytest.raises(ConfigError, match=r"audit.parts: utility takes a model with classes .* this one has none"):
        _run(job(model()))
    with pytest.raises(ConfigError, match=r"jobs/kaggle_conditional\.yaml"):
        _run(job(model(), "audit.parts=[memorisation,utility]"))
    assert not drawn


def test_parts_that_are_not_asked_for_follow_from_the_model(
    job: Callable[..., AuditJob], model: Callable[..., Path]
) -> None:
    from lwddpm.kinds.audit.parts import parts_of
    from lwddpm.training.stored_model import read_saved_model

    unsaid = job(model(), "audit.parts=null")
    parts, left_out = parts_of(unsaid, read_saved_model(Path(unsaid.model_uri)), "model")
    assert parts == ("memorisation",)
    assert "jobs/kaggle_conditional.yaml" in left_out["utility"]
    with_classes = read_saved_model(model("label"))
    assert parts_of(unsaid, with_classes, "model") == (("memorisation", "utility"), {})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("utility.real_shares=[0.1,0.5]", r"utility.real_shares: must hold 1"),
        ("utility.synthetic_ratios=[1,2]", r"utility.synthetic_ratios: must hold 0"),
        ("utility.real_shares=[1,1]", r"no value may be there twice"),
        ("utility.real_shares=[0,1]", r"utility.real_shares"),
        ("utility.seeds=1", r"utility.seeds"),
        ("utility.learners=[forest]", r"utility.learners"),
        ("audit.parts=[]", r"audit.parts"),
        ("audit.snapshots=true", r"audit.snapshots: copying against epochs takes the part memorisation"),
        ("data.splits=[0.8,0.2,0]", r"data.splits: utility is measured on the test split"),
    ],
)
def test_wrong_settings_are_refused_with_their_key(
    job: Callable[..., AuditJob], tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        job(tmp_path, override)


def test_a_job_without_the_section_is_the_job_that_it_was(job: Callable[..., AuditJob], tmp_path: Path) -> None:
    """Its digest decides which run it goes on in."""
    said = load_job("audit")
    assert "utility" not in said.model_dump(mode="json")
    assert "parts" not in said.model_dump(mode="json")["audit"]


def test_a_dry_run_says_what_is_learnt(job: Callable[..., AuditJob], model: Callable[..., Path]) -> None:
    planned = plan(job(model("label")))["audit"]
    assert planned["parts"] == ["utility"]
    assert planned["utility"] == {"slices": 80, "fits": 10}
    with pytest.raises(ConfigError, match="takes a model with classes"):
        plan(job(model()))
