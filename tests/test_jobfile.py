from pathlib import Path

import pytest

from lwddpm.config import TrainJob
from lwddpm.errors import ConfigError
from lwddpm.jobfile import find_file, load_job, read_mapping, shipped

SHIPPED = sorted(path.stem for path in shipped("jobs").glob("*.yaml"))


def _error(*overrides: str, job: str = "demo") -> str:
    with pytest.raises(ConfigError) as caught:
        load_job(job, overrides)
    return str(caught.value)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_job_is_valid(name: str) -> None:
    assert load_job(name).name


def test_the_documented_set_of_jobs_is_shipped() -> None:
    assert {"demo", "prepare", "kaggle_small", "paper", "evaluate", "sample"} <= set(SHIPPED)


def test_paper_job_is_the_papers_recipe() -> None:
    job = load_job("paper")
    assert isinstance(job, TrainJob)
    assert (job.training.lr, job.training.epochs, job.data.image_size) == (5e-4, 250, 128)
    assert (job.diffusion.beta_schedule, job.diffusion.num_train_timesteps) == ("cosine", 1000)
    assert (job.diffusion.prediction_type, job.diffusion.loss) == ("epsilon", "smooth_l1")
    assert (job.model.attention, job.diffusion.min_snr_gamma) == ("se", None)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="this file, which no read gets anything of, is Linux's")
def test_a_file_that_cannot_be_read_is_not_said_to_be_no_yaml() -> None:
    with pytest.raises(ConfigError, match=r"/proc/self/mem: cannot be read \(.*\); check its access"):
        read_mapping(Path("/proc/self/mem"), "must hold a mapping")


def test_overrides_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("kind: train\ndata: {source: phantom}\ntraining: {lr: 1e-3, batch_size: 16}\n")
    job = load_job(str(path), ["training.lr=2e-4", "workers.count=2"])
    assert isinstance(job, TrainJob)
    assert job.training.lr == 2e-4  # YAML reads 2e-4 as a string
    assert (job.training.batch_size, job.training.epochs, job.workers.count) == (16, 250, 2)
    assert job.name == "mine"


def test_loading_a_dumped_job_gives_the_same_job(tmp_path: Path) -> None:
    job = load_job("demo", ["training.lr=3e-4"])
    path = tmp_path / "again.yaml"
    path.write_text(job.model_dump_json())  # JSON is YAML
    assert load_job(str(path)) == job


def test_a_job_is_immutable() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_job("demo").name = "other"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.bach_size=8", ["unknown key", "did you mean training.batch_size?"]),
        ("lr=1e-3", ["unknown key", "did you mean training.lr?"]),
        ("training.learning_rate=1", ["unknown key", "known here: training.lr, "]),
        ("training.lr=fast", ["training.lr", "valid number", "'fast'"]),
        ("training.lr=-1", ["greater than 0", "-1"]),
        ("model.dim=20", ["model.dim", "multiple of 8", "20"]),
        ("model.dim=80000000", ["model.dim", "dim_mults", "at most 65536", "80000000"]),
        ("data.image_size=30", ["data.image_size", "divisible by 4", "30", "try 32"]),
        ("model={dim: 16, dim_mults: [1, 1, 1, 1, 1], patch: 4}", ["divisible by 64 for 5 levels", "patches of 4 x 4"]),
        ("model={head_skip: true, downsample_last: true}", ["model.head_skip", "first skip", "leave one of the two"]),
        ("training.patches.size=0.3", ["training.patches.size", "divisible by 4", "got 0.3", "try 0.25 or 0.375"]),
        ("training.patches.size=1", ["training.patches.size", "less than 1"]),
        ("training.patches.share=1.5", ["training.patches.share", "1"]),
        ("training.patches={share: 0.5, until: 0.2}", ["training.patches.share", "until = 0.2", "raise until"]),
        ("model.patch=3", ["model.patch", "1, 2 or 4", "3"]),
        (
            "training.ema_lengths=[0.1,0.1]",
            ["training.ema_lengths", "each length may stand once", "leave the second out"],
        ),
        ("training.timestep_sampling=uniform", ["training.log_sigma_mean", "not for uniform", "got -1.8"]),
        ("diffusion.sigma_data=0.4", ["diffusion.sigma_data", "is for prediction_type: edm", "leave it out"]),
        ("training.ema_lengths=[0.3]", ["training.ema_lengths", "0.28"]),
        ("diffusion.intensity_gamma=0", ["diffusion.intensity_gamma", "0.25"]),
        ("workers.count={max: 33}", ["training.batch_size", "16", "at least", "33"]),
        ("workers.count={min: 2, max: 2}", ["min < max", "fixed number"]),
        ("workers.count={max: 2, most: 3}", ["workers.count", "unknown key"]),
        ("workers.count=several", ["workers.count", "integer", "'several'"]),
        ("workers.count=3", ["training.batch_size", "16", "workers.count", "try 15 or 18"]),
        ("diffusion.beta_schedule=cosin", ["'linear', 'cosine' or 'sigmoid'", "'cosin'"]),
        ("evaluation.sampler=euler", ["'ddpm', 'ddim'", "'euler'"]),
        ("evaluation.num_inference_steps=1001", ["at most", "1000", "1001"]),
        ("evaluation.reconstruction_timestep=1000", ["below", "1000"]),
        ("training.epochs=5", ["epochs or max_steps, not both", "null"]),
        ("data.splits=[0.6,0.2,0.1]", ["sum to 1"]),
        ("data.subject_pattern=abc", ["one group"]),
        ("kind=trian", ["kind", "did you mean train?"]),
        ("workers.use_gpu=perhaps", ["boolean", "'auto'", "'perhaps'"]),
        ("workers={count: 2, gpus_per_worker: 0.5}", ["workers.gpus_per_worker", "NCCL", "must be 1", "got 0.5"]),
        ("training.lr.x=1", ["training.lr.x", "lr is a single value"]),
        ("training", ["dotted.key=value"]),
        ("training.lr=.nan", ["finite"]),
    ],
)
def test_a_wrong_override_is_named_with_its_rule(override: str, expected: list[str]) -> None:
    message = _error(override)
    for part in expected:
        assert part in message
    assert "--set" in message or "demo.yaml" in message


def test_an_error_in_a_file_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("kind: train\ndata:\n  source: phantom\ntraining:\n  lr: 0\n  bath_size: 3\n")
    message = _error(job=str(path))
    assert f"{path}:5: training.lr: " in message
    assert f"{path}:6: training.bath_size: unknown key" in message


def test_a_rule_is_placed_where_the_key_or_what_is_around_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("kind: train\ndata:\n  image_size: 30\nmodel:\n  dim: 16\nworkers: {count: 3}\n")
    assert f"{path}:2: data.source: is required" in _error(job=str(path))
    assert f"{path}:3: data.image_size: must be divisible" in _error("data.source=phantom", job=str(path))
    assert _error("data={source: phantom, image_size: 30}", job=str(path)).startswith("--set data: data.image_size: ")
    assert _error("modle.dim=8", job=str(path)).splitlines()[1].startswith("--set modle.dim: modle: unknown key")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "kind: [", "kind: train\n"])
def test_a_file_that_is_no_job_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    assert str(path) in _error(job=str(path))


def test_a_key_that_stands_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("kind: train\ndata: {source: phantom}\ntraining:\n  lr: 0.1\n  epochs: 3\n  lr: 0.2\n")
    with pytest.raises(ConfigError, match=r"job\.yaml:6: training\.lr: must be given once, is in line 4 too"):
        load_job(str(path))


def test_an_unknown_job_lists_the_shipped_ones() -> None:
    message = _error(job="smok")
    assert all(name in message for name in SHIPPED)
    assert find_file("jobs/demo.yaml", "jobs", "job").resolve() == find_file("demo", "jobs", "job").resolve()


def test_digests_follow_what_matters() -> None:
    demo, other = load_job("demo"), load_job("demo", ["training.lr=1e-4"])
    wide = load_job("demo", ["workers.count=2", "output=elsewhere"])
    assert isinstance(demo, TrainJob)
    assert isinstance(other, TrainJob)
    assert isinstance(wide, TrainJob)
    assert demo.training_digest() != other.training_digest()
    assert demo.training_digest() == wide.training_digest()  # continues on any number of workers
    assert demo.digest() != wide.digest()


@pytest.mark.parametrize(
    "setting",
    [
        *("keep_checkpoints=7", "log_every_steps=7", "checkpoint_every_epochs=0.7", "validation_samples=7"),
        *("snapshot_epochs=[7]", "grad_accumulation_steps=4", "compile=true", "channels_last=true"),
    ],
)
def test_settings_of_training_that_do_not_change_what_is_learnt_continue_it(setting: str) -> None:
    demo, changed = load_job("demo"), load_job("demo", [f"training.{setting}"])
    assert isinstance(demo, TrainJob)
    assert isinstance(changed, TrainJob)
    assert changed.training_digest() == demo.training_digest()
    assert changed.earlier_training_digest() != demo.earlier_training_digest()


INCIDENTAL = ("workers.max_failures=1", "offline=true", "output=elsewhere", "tracking.uri=sqlite:///other.db")


@pytest.mark.parametrize(
    ("name", "incidental", "decisive"),
    [
        ("demo", ["evaluation.batch_size=7", "data.max_rejected_fraction=0.5"], "evaluation.seed=5"),
        ("demo", ["training.keep_checkpoints=9", "training.grad_accumulation_steps=2"], "registry.alias=other"),
        ("search_demo", ["search.max_concurrent=3", "training.log_every_steps=7"], "search.num_trials=99"),
        ("compare_demo", ["training.validation_samples=3", "compare.proxy.batch_size=7"], "compare.cost_rounds=9"),
    ],
)
def test_a_job_is_done_whatever_does_not_change_its_result(name: str, incidental: list[str], decisive: str) -> None:
    job = load_job(name)
    done = {"digest": job.result_digest()}
    assert load_job(name, [*INCIDENTAL, *incidental]).has_result(done)
    assert not load_job(name, [decisive]).has_result(done)
    assert job.has_result({"digest": job.digest()})  # as versions up to 0.1.0 wrote it


@pytest.mark.parametrize(
    ("objective", "setting"),
    [("val/loss", "training.validation_samples=3"), ("peak_memory_mib", "training.grad_accumulation_steps=2")],
)
def test_what_an_objective_measures_decides_the_result_of_a_search(objective: str, setting: str) -> None:
    base = ["search.scheduler=none"]
    for objectives, same in ((["eval/fd_lite0"], True), ([objective], False)):
        chosen = f"search.objectives={objectives}"
        done = {"digest": load_job("search_demo", [*base, chosen]).result_digest()}
        assert load_job("search_demo", [*base, chosen, setting]).has_result(done) is same
