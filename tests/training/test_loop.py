"""The loop as the platform runs it, without Ray: what it learns, how it stops, continues and shares a batch."""

import functools
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lwddpm.config import TrainJob
from lwddpm.data.store import Dataset
from lwddpm.errors import CheckpointError, JobError
from lwddpm.training.adversarial import LOSSES, AdversarialLoss
from lwddpm.training.checkpoint import latest_checkpoint
from lwddpm.training.loop import train
from lwddpm.training.reporter import RecordingReporter
from lwddpm.training.stored_guide import has_guide
from lwddpm.training.stored_model import load_guide, load_model

from ..processes import free_port

CPU = torch.device("cpu")
Build = Callable[..., TrainJob]
# one for each optimizer, norm and bound of a discriminator
GANS = {
    "gan": ("model.family=gan",),
    "wgan": ("model.family=wgan", "adversarial.n_critic=2"),
    "wgan-gp": ("model.family=wgan", "adversarial.gradient_penalty=10", "adversarial.n_critic=2"),
    "wgan-gp-spectral": (
        "model.family=wgan",
        "adversarial.gradient_penalty=10",
        "adversarial.discriminator_norm=spectral",
    ),
}


def _train(job: TrainJob, dataset: Dataset, folder: Path, **options: object) -> RecordingReporter:
    recorder = RecordingReporter()
    train(job, dataset, folder, recorder, CPU, **options)  # type: ignore[arg-type]
    return recorder


def test_the_loss_falls_and_everything_is_reported(tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path) -> None:
    job = tiny_job("training.max_steps=60", "training.lr=4e-3", "training.snapshot_epochs=[2]")
    recorder = _train(job, tiny_dataset, tmp_path)
    losses = recorder.series("train/loss")
    assert sorted(losses) == list(range(1, 61))
    validation = [values["val/loss"] for values in recorder.values.values() if "val/loss" in values]
    assert validation[-1] < 0.8 * validation[0]
    last = recorder.values[60]
    assert {"train/grad_norm", "train/lr", "train/images_per_s", "train/epoch", "val/loss"} <= last.keys()
    assert recorder.saved[-1] == 60
    assert [step for step, _ in recorder.drawn] == [12, 60]  # epoch 2 of 6 steps, and the end
    assert all(images.shape == (16, 16, 16) and images.dtype == np.uint8 for _, images in recorder.drawn)
    _, saved = load_model(tmp_path / "model")
    assert (saved.step, saved.dataset_version) == (60, tiny_dataset.version)
    assert load_model(tmp_path / "snapshots" / "epoch_2")[1].step == 12


def test_diversity_is_finite_where_most_training_slices_are_one_picture(
    tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mostly_black(self: Dataset, split: str) -> np.ndarray:
        images = np.array(real(self, split))
        images[: round(0.8 * len(images))] = 0
        return images

    real = Dataset.images
    monkeypatch.setattr(Dataset, "images", mostly_black)
    recorder = _train(tiny_job("training.max_steps=2"), tiny_dataset, tmp_path)
    assert 0 < recorder.values[2]["train/diversity"] < 100


@pytest.mark.parametrize("channels_last", ["true", "false"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_stopped_and_continued_equals_uninterrupted(
    precision: str, channels_last: str, tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    formats = (f"training.precision={precision}", f"training.channels_last={channels_last}")
    job = tiny_job("training.lr_schedule=cosine", "training.warmup_steps=3", *formats)
    whole = _train(job, tiny_dataset, tmp_path / "whole")
    calls = iter([False] * 4 + [True] * 2)
    first = _train(job, tiny_dataset, tmp_path / "parts", should_stop=lambda: next(calls))
    stopped_at = max(first.series("train/loss"))
    assert stopped_at < 8
    second = _train(job, tiny_dataset, tmp_path / "parts")
    assert min(second.series("train/loss")) == stopped_at + 1
    assert first.series("train/loss") | second.series("train/loss") == whole.series("train/loss")
    _assert_same_checkpoints(tmp_path / "whole", tmp_path / "parts")


def _assert_same_checkpoints(whole: Path, parts: Path) -> None:
    expected, actual = latest_checkpoint(whole), latest_checkpoint(parts)
    assert expected is not None
    assert actual is not None
    files = sorted(path.name for path in expected.glob("*.safetensors"))
    assert files == sorted(path.name for path in actual.glob("*.safetensors"))
    for file in files:
        a, b = load_file(expected / file), load_file(actual / file)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), file


@pytest.mark.parametrize("kind", GANS)
def test_a_gan_stopped_and_continued_equals_uninterrupted(
    kind: str, tiny_gan: Build, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    job = tiny_gan(*GANS[kind], "training.channels_last=true")
    whole = _train(job, tiny_dataset, tmp_path / "whole")
    calls = iter([False] * 4 + [True] * 2)
    first = _train(job, tiny_dataset, tmp_path / "parts", should_stop=lambda: next(calls))
    assert max(first.series("train/loss")) < 8
    second = _train(job, tiny_dataset, tmp_path / "parts")
    assert first.series("train/loss") | second.series("train/loss") == whole.series("train/loss")
    assert {"discriminator.safetensors", "optimizer_discriminator.safetensors"} <= {
        path.name
        for path in latest_checkpoint(tmp_path / "parts").iterdir()  # type: ignore[union-attr]
    }
    _assert_same_checkpoints(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("kind", ["lw_ddpm", "gan"])
def test_what_is_written_down_may_change_in_the_middle(
    kind: str, tiny_job: Build, tiny_gan: Build, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    build = _build_of(kind, tiny_job, tiny_gan)
    _train(build(), tiny_dataset, tmp_path / "whole")
    calls = iter([False] * 4 + [True] * 2)
    _train(build(), tiny_dataset, tmp_path / "parts", should_stop=lambda: next(calls))
    other = [f"training.{name}" for name in ("log_every_steps=1", "checkpoint_every_epochs=0.4", "keep_checkpoints=9")]
    other += ["training.snapshot_epochs=[0.9, 1.1]"] + (["training.validation_samples=2"] if kind == "lw_ddpm" else [])
    _train(build(*other), tiny_dataset, tmp_path / "parts")
    assert len(list((tmp_path / "parts" / "checkpoints").iterdir())) > 2, "the new settings are followed"
    _assert_same_checkpoints(tmp_path / "whole", tmp_path / "parts")


Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Trains in processes other than this one, as `worker.py` says; returns the exit code and what was said."""
    command = [sys.executable, "-W", "always", str(Path(__file__).with_name("worker.py"))]

    def in_process(job: TrainJob, dataset: Dataset, folder: Path, *arguments: str) -> tuple[int, str]:
        folder.mkdir(parents=True, exist_ok=True)
        job_file = folder / "job.json"
        job_file.write_text(job.model_dump_json())
        print(json.dumps([str(job_file), dataset.path, str(folder), *arguments]), file=worker.stdin, flush=True)
        return int(answers.readline()), (folder / "errors").read_text()

    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        answers = worker.stdout
        yield in_process


@pytest.mark.parametrize("family", ["lw_ddpm", "lsgan"])
def test_killed_and_continued_equals_uninterrupted(
    family: str, tiny_job: Build, tiny_gan: Build, tiny_dataset: Dataset, tmp_path: Path, run: Run
) -> None:
    job = tiny_job() if family == "lw_ddpm" else tiny_gan(f"model.family={family}")
    whole = _train(job, tiny_dataset, tmp_path / "whole")
    code, errors = run(job, tiny_dataset, tmp_path / "parts", "kill", "5")
    assert code == -signal.SIGKILL, errors
    assert not (tmp_path / "parts" / "model").exists()
    rest = _train(job, tiny_dataset, tmp_path / "parts")
    assert 1 < min(rest.series("train/loss")) <= 6
    assert rest.series("train/loss").items() <= whole.series("train/loss").items()
    a, b = (load_file(tmp_path / part / "model" / "model.safetensors") for part in ("whole", "parts"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_model_keeps_the_snapshot_of_its_guide_epoch_also_after_a_kill(
    tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path, run: Run
) -> None:
    """Six steps an epoch: the guide is that of step 3, which is no snapshot otherwise; the kill comes after it."""
    job = tiny_job("training.guide_epoch=0.5")
    code, errors = run(job, tiny_dataset, tmp_path / "parts", "kill", "5")
    assert code == -signal.SIGKILL, errors
    _train(job, tiny_dataset, tmp_path / "parts")
    _train(job, tiny_dataset, tmp_path / "whole")
    _train(tiny_job(), tiny_dataset, tmp_path / "without")
    at_step_3 = load_file(tmp_path / "whole" / "snapshots" / "epoch_0.5" / "model.safetensors")
    final = load_file(tmp_path / "whole" / "model" / "model.safetensors")
    for part in ("parts", "whole"):
        guide, saved = load_model(tmp_path / part / "model" / "guide")
        assert (saved.step, load_guide(tmp_path / part / "model") is None) == (3, False)
        weights = guide.state_dict()
        assert all(torch.equal(weights[key], at_step_3[key]) for key in at_step_3)
    assert not all(torch.equal(final[key], at_step_3[key]) for key in final)
    assert load_guide(tmp_path / "without" / "model") is None
    unchanged = load_file(tmp_path / "without" / "model" / "model.safetensors")
    assert all(torch.equal(final[key], unchanged[key]) for key in final)  # keeping one changes nothing that is learnt
    assert job.training_digest() == tiny_job().training_digest()
    assert job.result_digest() != tiny_job().result_digest()  # but how the model can be drawn


def test_a_training_that_pauses_before_its_guide_has_none_yet(
    tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    job = tiny_job("training.guide_epoch=0.5")
    for until, has in ((2, False), (5, True)):
        _train(job, tiny_dataset, tmp_path, until=until)
        assert has_guide(tmp_path / "paused") == has


def test_a_guide_of_another_process_is_refused(tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path) -> None:
    _train(tiny_job("training.guide_epoch=0.5"), tiny_dataset, tmp_path / "run")
    model_dir = tmp_path / "run" / "model"
    config = model_dir / "guide" / "config.json"
    saved = json.loads(config.read_text())
    saved["diffusion"]["beta_schedule"] = "linear"
    config.unlink()  # it is a link to the snapshot's
    config.write_text(json.dumps(saved))
    with pytest.raises(CheckpointError, match="guide: must have the diffusion settings"):
        load_guide(model_dir)
    weights = model_dir / "guide" / "model.safetensors"
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"model.safetensors is missing"):
        load_guide(model_dir)


def _train_on(run: Run, world: int, job: TrainJob, dataset: Dataset, folder: Path) -> dict[int, dict[str, float]]:
    """Values by step, from as many processes that compute in float64."""
    code, errors = run(job, dataset, folder, "ranks", str(world), str(free_port()))
    assert code == 0, errors
    assert not [line for line in errors.splitlines() if "Warning" in line]  # such as DDP's
    return {int(step): values for step, values in json.loads((folder / "values.json").read_text()).items()}


@pytest.fixture
def float64() -> Iterator[None]:
    """Tells rounding from a real deviation.

    Adam's first steps divide a gradient by its own size, so what rounds differently may step the other way. Of 12 seeds
    in float32, most accumulated GANs end 8 steps within 2e-6 of the whole batch and some 0.13 away; in float64 all stay
    within 2e-14, on AVX-512, AVX2 and SSE alike.
    """
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


_COMPARED = (
    "val/loss_ema",
    "val/loss_ema_0.05",
    "val/loss_ema_0.2",
    "train/loss",
    "train/grad_norm",
    "val/loss",
    "train/loss_discriminator",
    "train/grad_norm_discriminator",
)


def _assert_same_curve(one: dict[int, dict[str, float]], other: dict[int, dict[str, float]], rel: float) -> None:
    for step, values in one.items():
        for name in values.keys() & set(_COMPARED):
            # a critic's loss is a difference of means, which may be about zero: float64 rounds to 1e-16 of its parts
            assert other[step][name] == pytest.approx(values[name], rel=rel, abs=1e-12), (name, step)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["lw_ddpm", "gan", "wgan-gp"])
def test_several_processes_follow_the_loss_curve_of_one(
    kind: str, tiny_job: Build, tiny_gan: Build, tiny_dataset: Dataset, tmp_path: Path, run: Run
) -> None:
    build = _build_of(kind, tiny_job, tiny_gan)
    one = _train(build(), tiny_dataset, tmp_path / "one").values
    _assert_same_curve(one, _train_on(run, 2, build("workers.count=2"), tiny_dataset, tmp_path / "two"), rel=1e-9)
    if kind == "lw_ddpm":  # 8 images over 3 workers and 2 chunks: shares of 2, 3 and 3, chunks of 1 and 2
        elastic = build("workers.count={max: 3}", "training.grad_accumulation_steps=2")
        _assert_same_curve(one, _train_on(run, 3, elastic, tiny_dataset, tmp_path / "three"), rel=1e-9)


BEYOND = {
    "network and tone": (
        "training.timestep_sampling=stratified",
        "diffusion.intensity_gamma=0.5",
        "model.head_skip=true",
        "model.patch=2",
    ),
    "target and weights": (
        "diffusion.prediction_type=edm",
        "diffusion.loss=l2",
        "training.timestep_sampling=log_normal",
        "training.loss_weighting=learned",
        "training.ema_lengths=[0.05,0.2]",
        "training.augment=0.5",
    ),
    "crops": (
        "training.patches={share: 0.5, size: 0.5}",
        "training.timestep_sampling=stratified",
        "training.augment=0.5",
        "model.head_skip=true",
        "model.patch=2",
    ),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("beyond", BEYOND)
def test_the_parts_beyond_the_paper_keep_every_parity(
    beyond: str, tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path, run: Run
) -> None:
    """Strata are of the global batch, averages of the whole training; the rest is nothing that a worker or a stop could
    change."""
    build = functools.partial(tiny_job, *BEYOND[beyond])
    one = _train(build(), tiny_dataset, tmp_path / "one").values
    both = build("workers.count=2", "training.grad_accumulation_steps=2")
    two = _train_on(run, 2, both, tiny_dataset, tmp_path / "two")
    accumulated = _train(build("training.grad_accumulation_steps=4"), tiny_dataset, tmp_path / "accumulated").values
    calls = iter([False] * 4 + [True] * 2)
    parts = _train(build(), tiny_dataset, tmp_path / "parts", should_stop=lambda: next(calls)).values
    rest = _train(build(), tiny_dataset, tmp_path / "parts").values
    assert 1 < min(step for step, values in rest.items() if "train/loss" in values) < 8
    for other in (two, accumulated):
        _assert_same_curve(one, other, rel=1e-9)
    for part in (parts, rest):
        _assert_same_curve({step: one[step] for step in part}, part, rel=1e-9)
    _assert_same_checkpoints(tmp_path / "one", tmp_path / "parts")
    plain = _train(tiny_job(), tiny_dataset, tmp_path / "plain").values
    assert plain[1]["train/loss"] != one[1]["train/loss"]
    assert set(one[8]) == set(two[8]) == set(rest[8])
    saved = load_model(tmp_path / "one" / "model", CPU)[1]  # it takes the weights, so it is the same network
    assert (saved.model, saved.diffusion) == (build().model, build().diffusion)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["lw_ddpm", *GANS])
def test_an_accumulated_batch_follows_the_loss_curve_of_the_whole(
    kind: str, tiny_job: Build, tiny_gan: Build, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    build = _build_of(kind, tiny_job, tiny_gan)
    one = _train(build(), tiny_dataset, tmp_path / "one").values
    accumulated = _train(build("training.grad_accumulation_steps=4"), tiny_dataset, tmp_path / "accumulated").values
    _assert_same_curve(one, accumulated, rel=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["lw_ddpm", *GANS])
def test_how_a_step_is_computed_may_change_in_the_middle(
    kind: str, tiny_job: Build, tiny_gan: Build, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    """As after an out-of-memory error."""
    build = _build_of(kind, tiny_job, tiny_gan)
    whole = _train(build("training.channels_last=false"), tiny_dataset, tmp_path / "whole").values
    calls = iter([False] * 4 + [True] * 2)
    first = build("training.channels_last=false")
    parts = _train(first, tiny_dataset, tmp_path / "parts", should_stop=lambda: next(calls)).values
    second = build("training.channels_last=true", "training.grad_accumulation_steps=4")
    rest = _train(second, tiny_dataset, tmp_path / "parts").values
    assert 1 < min(step for step, values in rest.items() if "train/loss" in values) < 8
    _assert_same_curve({step: whole[step] for step in rest}, rest, rel=1e-9)
    _assert_same_curve({step: whole[step] for step in parts}, parts, rel=1e-9)
    a, b = (load_file(tmp_path / part / "model" / "model.safetensors") for part in ("whole", "parts"))
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["lw_ddpm", "wgan", "wgan-gp"])
def test_an_accumulated_batch_takes_the_first_step_of_the_whole_in_float32(
    kind: str, tiny_job: Build, tiny_gan: Build, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    """Before anything can be amplified: the worst of 12 seeds and three instruction sets deviates by 3.5e-6."""
    build = _build_of(kind, tiny_job, tiny_gan)
    one = _train(build("training.max_steps=1"), tiny_dataset, tmp_path / "one").values
    chunks = build("training.max_steps=1", "training.grad_accumulation_steps=4")
    _assert_same_curve(one, _train(chunks, tiny_dataset, tmp_path / "accumulated").values, rel=1e-4)


def _build_of(kind: str, tiny_job: Build, tiny_gan: Build) -> Build:
    if kind == "lw_ddpm":
        return tiny_job
    return lambda *overrides: tiny_gan(*GANS[kind], "training.lr=1e-4", *overrides)


def test_a_gan_reports_both_sides_and_draws_in_one_pass(tiny_gan: Build, tiny_dataset: Dataset, tmp_path: Path) -> None:
    job = tiny_gan(*GANS["wgan"], "training.snapshot_epochs=[1]")
    recorder = _train(job, tiny_dataset, tmp_path)
    assert all("train/loss_discriminator" in recorder.values[step] for step in range(1, 9))
    assert {"train/grad_norm", "train/grad_norm_discriminator", "train/images_per_s"} <= recorder.values[8].keys()
    assert not any("val/loss" in values for values in recorder.values.values())
    assert recorder.values[8]["train/epoch"] == pytest.approx(8 / 3)  # 2 batches of 8 a step, 48 slices
    assert [step for step, _ in recorder.drawn] == [3, 8]
    assert all(recorder.values[step]["train/diversity"] > 0 for step, _ in recorder.drawn)
    generator, saved = load_model(tmp_path / "model")
    assert saved.diffusion is None
    assert saved.parameters == sum(parameter.numel() for parameter in generator.parameters())


def test_a_gans_nan_is_reported_with_its_step_and_never_saved(
    tiny_gan: Build, tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, calls = LOSSES["lsgan"], iter(range(1, 100))

    def poisoned(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        return sound.discriminator(real, fake) * (float("nan") if next(calls) == 2 else 1.0)

    monkeypatch.setitem(LOSSES, "lsgan", AdversarialLoss(poisoned, sound.generator))
    with pytest.raises(JobError, match=r"diverged at step 2: the loss is nan"):
        _train(tiny_gan("model.family=lsgan", "training.checkpoint_every_epochs=1"), tiny_dataset, tmp_path)
    assert latest_checkpoint(tmp_path) is None


def test_a_diverging_run_stops_and_names_step_and_setting(
    tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    job = tiny_job("training.lr=1", "training.max_grad_norm=null", "training.max_steps=200")
    with pytest.raises(JobError, match=r"diverged at step \d+: .*max_grad_norm: 1.0.*training\.lr \(now 1\)"):
        _train(job, tiny_dataset, tmp_path)
    assert not (tmp_path / "model").exists()


def test_nan_is_reported_with_its_step_and_never_saved(
    tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lwddpm.diffusion.process import DiffusionProcess

    losses, calls = DiffusionProcess.losses, iter(range(1, 100))

    def poisoned(self: DiffusionProcess, *inputs: torch.Tensor) -> torch.Tensor:
        return losses(self, *inputs) * (float("nan") if next(calls) == 2 else 1.0)

    monkeypatch.setattr(DiffusionProcess, "losses", poisoned)
    with pytest.raises(JobError, match=r"diverged at step 2: the loss is nan"):
        _train(tiny_job("training.checkpoint_every_epochs=1"), tiny_dataset, tmp_path)
    assert latest_checkpoint(tmp_path) is None


def _cut(file: Path) -> None:
    with file.open("r+b") as content:
        content.truncate(file.stat().st_size // 2)


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _forget(file: Path) -> None:
    file.unlink()


def _lose_a_block(file: Path) -> None:
    """Zeros near the end, as of a block that never reached the disk: valid numbers in a file of the right size."""
    content = bytearray(file.read_bytes())
    content[-600:-88] = bytes(512)
    file.write_bytes(content)


def _flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-102] ^= 1  # of a number's last digits
    file.write_bytes(content)


@pytest.fixture(scope="module")
def folders() -> dict[str, Path]:
    """Where jobs were trained for an earlier test, by their settings."""
    return {}


@pytest.fixture
def trained(
    folders: dict[str, Path], tiny_dataset: Dataset, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[TrainJob], None]:
    """Leaves in `tmp_path` what a training leaves: the first time it is trained, later copied."""

    def bring(job: TrainJob) -> None:
        settings = job.training.model_dump_json()
        if settings not in folders:
            folders[settings] = tmp_path_factory.mktemp("trained")
            _train(job, tiny_dataset, folders[settings])
        shutil.copytree(folders[settings], tmp_path, dirs_exist_ok=True)

    return bring


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", _cut),
        ("ema.safetensors", _empty),
        ("optimizer.safetensors", _forget),
        ("model.safetensors", _lose_a_block),
        ("optimizer.safetensors", _flip_a_bit),
        ("state.json", _cut),
        ("state.json", _flip_a_bit),  # valid JSON, with another digest
        ("state.json", _forget),  # as in a folder that was copied in part
        ("SHA256SUMS", _cut),
    ],
)
def test_a_damaged_newest_checkpoint_is_kept_aside_and_the_one_before_continued(
    name: str,
    damage: Callable[[Path], None],
    trained: Callable[[TrainJob], None],
    tiny_job: Build,
    tiny_dataset: Dataset,
    tmp_path: Path,
) -> None:
    job = tiny_job("training.keep_checkpoints=2", "training.snapshot_epochs=[]")
    trained(job)
    expected = load_file(tmp_path / "model" / "model.safetensors")
    folder = tmp_path / "checkpoints"
    *_, before, newest = sorted(folder.iterdir())
    damage(newest / name)
    again = _train(job, tiny_dataset, tmp_path)
    (warning,) = again.warnings
    step = int(before.name.removeprefix("step_"))
    assert f"{newest}" in warning
    assert warning.endswith(f"kept as damaged_{newest.name}; the training goes on from step {step}")
    assert min(again.series("train/loss")) == step + 1
    assert {path.name for path in folder.iterdir()} == {f"damaged_{newest.name}", before.name, newest.name}
    actual = load_file(tmp_path / "model" / "model.safetensors")
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_a_checkpoint_of_before_there_were_checksums_is_taken_and_its_damage_found(
    trained: Callable[[TrainJob], None], tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    trained(tiny_job())
    before, newest = sorted((tmp_path / "checkpoints").iterdir())
    for checkpoint in (before, newest):
        (checkpoint / "SHA256SUMS").unlink()
    assert not _train(tiny_job(), tiny_dataset, tmp_path).warnings
    _cut(newest / "optimizer.safetensors")
    (warning,) = _train(tiny_job(), tiny_dataset, tmp_path).warnings
    assert "optimizer.safetensors" in warning


def test_several_processes_take_the_same_checkpoint_after_a_damage(
    tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path, run: Run
) -> None:
    job = tiny_job("workers.count=2", "training.snapshot_epochs=[]")
    whole = _train_on(run, 2, job, tiny_dataset, tmp_path)
    newest = max((tmp_path / "checkpoints").iterdir())
    _flip_a_bit(newest / "model.safetensors")
    again = _train_on(run, 2, job, tiny_dataset, tmp_path)
    assert 1 < min(again) < 8
    assert all(again[step]["train/loss"] == whole[step]["train/loss"] for step in again if "train/loss" in again[step])
    assert (newest.parent / f"damaged_{newest.name}").exists()


def test_where_no_whole_checkpoint_is_left_nothing_begins_anew(
    trained: Callable[[TrainJob], None], tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    trained(tiny_job())
    before = sorted((tmp_path / "checkpoints").iterdir())
    for checkpoint, damage in zip(before, (_cut, _flip_a_bit), strict=True):
        damage(checkpoint / "model.safetensors")
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"no whole checkpoint is left .* start over with --fresh"):
            _train(tiny_job(), tiny_dataset, tmp_path)
    assert sorted((tmp_path / "checkpoints").iterdir()) == before


def test_a_checkpoint_of_a_later_version_is_not_taken_for_a_damaged_one(
    trained: Callable[[TrainJob], None], tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    trained(tiny_job())
    state = max((tmp_path / "checkpoints").iterdir()) / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"format": 99}))
    state.with_name("SHA256SUMS").unlink()
    with pytest.raises(CheckpointError, match="upgrade"):
        _train(tiny_job(), tiny_dataset, tmp_path)
    assert state.exists()


def test_a_disk_that_does_not_answer_is_not_taken_for_a_damaged_checkpoint(
    trained: Callable[[TrainJob], None], tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    trained(tiny_job())
    file = max((tmp_path / "checkpoints").iterdir()) / "model.safetensors"
    file.unlink()
    file.symlink_to(file)  # an error of the file system that is not "no such file"
    with pytest.raises(CheckpointError, match=r"cannot be read \(.*\); try again when the disk answers"):
        _train(tiny_job(), tiny_dataset, tmp_path)
    assert file.is_symlink()


def test_a_run_is_not_continued_with_other_settings(tiny_job: Build, tiny_dataset: Dataset, tmp_path: Path) -> None:
    _train(tiny_job(), tiny_dataset, tmp_path)
    with pytest.raises(CheckpointError, match=r"job settings.*--fresh"):
        _train(tiny_job("training.lr=1e-5"), tiny_dataset, tmp_path)
