"""A small world for the board: a flawed dataset, two trained versions, a study, a run that goes on, hostile names."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from PIL import Image

from lwddpm.config import TrainJob
from lwddpm.data.phantom import LABELS, simulate
from lwddpm.data.prepare import prepare_dataset
from lwddpm.evaluation.figures import tile
from lwddpm.jobfile import load_job
from lwddpm.kinds.jobs import run_job
from lwddpm.search.definition import Definition, open_study
from lwddpm.search.trials import REASON, RUN_ID, report
from lwddpm.tracking.store import connect

HOSTILE = '<img src=x onerror="alert(1)"><script>alert(2)</script>../../etc/passwd'
STUDY = "tiny-search"
MODEL = "tiny"
SIZE = 32
SETTINGS = (
    f"data.image_size={SIZE}",
    "data.splits=[0.6,0.2,0.2]",
    "model.dim=8",
    "model.dim_mults=[1,2]",
    "training.batch_size=8",
    "training.warmup_steps=0",
    "training.log_every_steps=2",
    "training.snapshot_epochs=[1,2]",
    "training.validation_samples=6",
    "evaluation.metrics=[fd_lite0,kd_lite0,precision_lite0,recall_lite0,density_lite0,coverage_lite0,out_of_band,ssim_nearest,ssim_pairs]",
    "evaluation.num_samples=8",
    "evaluation.sampler=ddim",
    "evaluation.num_inference_steps=3",
    f"registry.name={MODEL}",
    "workers.cpus_per_worker=1",
)


@dataclass(frozen=True)
class World:
    """Where everything lies, and what it is called.

    Attributes:
        runs: run ids by role.
        rejected: the file that could not be read.
    """

    folder: Path
    tracking: str
    storage: str
    dataset_version: str
    runs: dict[str, str]
    rejected: str

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.tracking)


def build_world(folder: Path) -> World:
    rejected = _source(folder / "scans")
    tracking, storage = f"sqlite:///{folder}/mlflow.db", f"sqlite:///{folder}/optuna.db"
    client = connect(tracking)
    runs, version = {}, ""
    for name, steps, seed, guide in (("first", 12, 0, "null"), ("second", 18, 1, "1")):
        settings = (f"name={name}", f"training.max_steps={steps}", f"seed={seed}", f"training.guide_epoch={guide}")
        job = _job(folder, *settings, f"tracking.uri={tracking}")
        version = version or prepare_dataset(job.data, lambda function, items, **_: map(function, items)).version
        runs[name] = run_job(job)["run_id"]
    experiment = client.get_experiment_by_name("lw-ddpm").experiment_id
    runs |= _runs(client, experiment)
    _study(client, experiment, storage)
    return World(folder, tracking, storage, version, runs, rejected)


def _source(root: Path) -> str:
    """40 slices in class folders, with copies, a mirrored one, one of another label, a broken file, a system folder."""
    for index in range(40):
        path = root / LABELS[index % 4] / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(simulate(0, index, 64)).save(path)
    for index in (0, 4, 8):
        image = Image.open(root / LABELS[0] / f"{index:03d}.png")
        image.save(root / LABELS[0] / f"copy-{index:03d}.png")
    Image.open(root / LABELS[1] / "001.png").save(root / LABELS[2] / "disputed.png")
    (root / LABELS[0] / ("a-long-name-without-a-space-" * 7) / "@eaDir").mkdir(parents=True)
    (root / LABELS[3] / "broken.png").write_bytes(b"not an image")
    return f"{LABELS[3]}/broken.png"


def _job(folder: Path, *overrides: str) -> TrainJob:
    places = (f"data.source={folder / 'scans'}", f"data.path={folder / 'dataset'}", f"output={folder / 'runs'}")
    job = load_job("kaggle_small", [*places, *SETTINGS, *overrides])
    assert isinstance(job, TrainJob)
    return job


def _runs(client: MlflowClient, experiment: str) -> dict[str, str]:
    """A run that goes on, one that failed, and one whose name and tags are an attack."""
    found = {}
    for role, name, tags in (
        ("running", "going-on", {"lwddpm.kind": "train"}),
        (
            "failed",
            "diverged",
            {
                "lwddpm.kind": "train",
                "lwddpm.reason": "training diverged at step 4",
                "lwddpm.warning": "a checkpoint was damaged",
            },
        ),
        (
            "hostile",
            HOSTILE,
            {"lwddpm.kind": HOSTILE, "lwddpm.search": HOSTILE, "lwddpm.trial": "1", HOSTILE[:20]: "x"},
        ),
    ):
        run_id = client.create_run(experiment, run_name=name, tags=tags).info.run_id
        params = [Param("training.max_steps", "100"), Param("training.lr", "0.001")]
        client.log_batch(run_id, params=params, metrics=curve(0, 40))
        found[role] = run_id
    client.set_terminated(found["failed"], "FAILED")
    client.set_terminated(found["hostile"])
    report = '<style>h1 { color: rgb(0, 128, 0) }</style><h1>Report</h1><script>document.title = "executed"</script>'
    client.log_text(found["hostile"], report, "report/report.html")
    client.log_text(found["hostile"], "secret", "notes/deep.txt")
    return found


def curve(first: int, last: int) -> list[Metric]:
    """Losses and throughput of some steps."""
    rows = []
    for step in range(first + 1, last + 1):
        rows.append(Metric("train/loss", 1 / step + 0.05, 0, step))
        rows.append(Metric("train/images_per_s", 96 + (7 * step % 11) / 2, 0, step))
        if step % 10 == 0:
            rows.append(Metric("val/loss", 1.1 / step + 0.05, 0, step))
    return rows


def _study(client: MlflowClient, experiment: str, storage: str) -> None:
    """Two objectives, twelve trials, in every state; each has a run with a sample grid."""
    space = {
        "training.lr": FloatDistribution(1e-4, 1e-2, log=True),
        "model.dim": CategoricalDistribution((8, 16, 32)),
        "diffusion.beta_schedule": CategoricalDistribution(("linear", "cosine", "sigmoid")),
    }
    described = {key: json.loads(optuna.distributions.distribution_to_json(found)) for key, found in space.items()}
    definition = Definition(
        described, "tpe", 0, ("eval/fd_lite0", "parameters"), "asha", "eval/fd_lite0", 90, 30, 3, "job", "proxy"
    )
    study = open_study(storage, STUDY, definition)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    random = np.random.default_rng(0)
    tags = {"lwddpm.kind": "search", "lwddpm.study": STUDY}
    search = client.create_run(experiment, run_name=STUDY, tags=tags).info.run_id
    for number in range(12):
        trial = study.ask(space)
        tags = {"lwddpm.kind": "train", "lwddpm.search": STUDY, "lwddpm.trial": str(number)}
        tags |= {"mlflow.parentRunId": search}
        run_id = client.create_run(experiment, run_name=f"{STUDY}-{number:04d}", tags=tags).info.run_id
        trial.set_user_attr(RUN_ID, run_id)
        images = np.stack([simulate(1, 16 * number + index, SIZE) for index in range(4)])
        client.log_image(run_id, tile(images), artifact_file=f"samples/epoch_{number + 1:07.2f}.png")
        size = float(1000 * trial.params["model.dim"])
        quality = float(60 - trial.params["model.dim"] + 20 * random.random())
        report(trial, 30, quality + 20, {"eval/fd_lite0": quality + 20}, 3.0, single=False)
        if number in (3, 7, 10):
            study.tell(trial, state=TrialState.PRUNED)
        elif number == 5:
            trial.set_user_attr(REASON, "training diverged at step 41: the loss is nan")
            study.tell(trial, state=TrialState.FAIL)
        elif number < 11:
            report(trial, 90, quality, {"eval/fd_lite0": quality, "parameters": size}, 9.0, single=False)
            study.tell(trial, [quality, size])
        if number < 11:
            client.set_terminated(run_id)


if __name__ == "__main__":  # a world to look at: python tests/dashboards/world.py FOLDER
    os.environ.setdefault("LWDDPM_CACHE", f"{sys.argv[1]}/cache")
    Path(sys.argv[1]).mkdir(parents=True)
    made = build_world(Path(sys.argv[1]))
    print(json.dumps({"tracking": made.tracking, "storage": made.storage, "runs": made.runs}, indent=2))
