"""Search spaces: what is read, what is refused and with which words."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lwddpm.config import SearchJob
from lwddpm.errors import ConfigError
from lwddpm.jobfile import load_job
from lwddpm.search.space import decoded, infeasible, load_space, num_trials, trial_job

Build = Callable[..., SearchJob]


@pytest.mark.parametrize("name", ["paper", "loss", "architecture", "recipe"])
@pytest.mark.parametrize("job", ["search_demo", "search_paper"])
def test_every_shipped_space_fits_every_shipped_search(name: str, job: str) -> None:
    loaded = load_job(job, ["data.source=phantom"])
    assert isinstance(loaded, SearchJob)
    assert load_space(name, loaded).distributions


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "is a mapping"),
        ("{}", "at least one key"),
        ("training.lr: [", "not valid YAML"),
        ("training.lrate:\n  float: {low: 1.0e-4, high: 1.0e-3}", "did you mean training.lr"),
        ("data.image_size:\n  int: {low: 16, high: 32}", "model, diffusion, adversarial, training only"),
        ("training.max_steps:\n  int: {low: 10, high: 20}", "search.max_steps gives"),
        ("training.log_every_steps:\n  int: {low: 10, high: 20}", "does not change what is learnt"),
        ("training.lr: 0.1", "must be one of float"),
        ("training.lr:\n  loguniform: {low: 1.0e-4, high: 1.0e-3}", "must be one of float"),
        ("training.lr:\n  float: {low: 1.0e-4}", "takes low and high"),
        ("training.lr:\n  float: {low: 1.0e-4, high: 1.0e-3, base: 2}", "takes low and high"),
        ("training.lr:\n  float: {low: 1.0e-3, high: 1.0e-4}", "low must be below high, got 0.001 and 0.0001"),
        ("training.lr:\n  float: {low: 0, high: 1.0e-4, log: true}", "log needs a low above 0"),
        ("training.lr:\n  float: {low: 1.0e-4, high: .inf}", "finite number"),
        ("training.lr:\n  float: {low: 0.1, high: 0.2, log: true, step: 0.1}", "exclude each other"),
        ("model.se_reduction:\n  int: {low: 2, high: 8, step: 0}", "step must be above 0"),
        ("model.se_reduction:\n  int: {low: 2, high: 8, step: 4}", "whole number of steps"),
        ("model.se_reduction:\n  int: {low: 2.5, high: 8}", "whole number"),
        ("diffusion.beta_schedule:\n  categorical: [cosine]", "two or more choices"),
        ("diffusion.beta_schedule:\n  categorical: [cosine, cosine]", "may stand once"),
        ("diffusion.beta_schedule:\n  categorical: [cosine, cubic]", "'cubic' is refused"),
        ("training.lr:\n  float: {low: 1.0e-4, high: 7}", "7.0 is refused"),
        ("model.dim:\n  int: {low: 16, high: 20, step: 4}", "20 is refused"),
    ],
)
def test_a_bad_space_is_refused_with_line_and_rule(text: str, rule: str, tmp_path: Path, search_job: Build) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(f"# a comment\n{text}\n")
    with pytest.raises(ConfigError) as error:
        load_space(str(path), search_job())
    assert rule in str(error.value)
    if ":\n" in text:
        assert f"{path}:2: {text.partition(':')[0]}" in str(error.value)


def test_an_unknown_space_lists_the_shipped_ones(search_job: Build) -> None:
    with pytest.raises(ConfigError, match="shipped: architecture, loss, paper, recipe"):
        load_space("papers", search_job())


def test_a_loss_cannot_compare_trials_whose_loss_differs(search_job: Build) -> None:
    with pytest.raises(ConfigError, match=r"val/loss cannot compare trials that differ in diffusion\.beta_schedule"):
        load_space("paper", search_job("search.objectives=[val/loss]"))
    load_space("architecture", search_job("search.objectives=[val/loss]"))


@pytest.mark.parametrize(("choices", "refused"), [("[uniform, stratified]", False), ("[stratified, log_normal]", True)])
def test_a_loss_cannot_compare_other_distributions_of_noise_levels(
    choices: str, refused: bool, tmp_path: Path, search_job: Build
) -> None:
    (tmp_path / "space.yaml").write_text(f"training.timestep_sampling:\n  categorical: {choices}\n")
    job = search_job("search.objectives=[val/loss]")
    if refused:
        with pytest.raises(ConfigError, match=r"differ in training\.timestep_sampling"):
            load_space(str(tmp_path / "space.yaml"), job)
    else:
        load_space(str(tmp_path / "space.yaml"), job)


def test_the_digest_follows_the_content_not_the_file(tmp_path: Path, search_job: Build) -> None:
    texts = (
        "training.lr: {float: {low: 1.0e-4, high: 1.0e-3}}\nmodel.se_reduction: {int: {low: 2, high: 8}}",
        "# other words\nmodel.se_reduction:\n  int: {high: 8, low: 2}\ntraining.lr:\n  float: {low: 1e-4, high: 1e-3}",
        "training.lr: {float: {low: 1.0e-4, high: 2.0e-3}}\nmodel.se_reduction: {int: {low: 2, high: 8}}",
    )
    digests = []
    for index, text in enumerate(texts):
        (tmp_path / f"{index}.yaml").write_text(text)
        digests.append(load_space(str(tmp_path / f"{index}.yaml"), search_job()).digest())
    assert digests[0] == digests[1] != digests[2]


def test_lists_travel_through_optuna_as_text_and_back(search_job: Build) -> None:
    choices = load_space("architecture", search_job()).distributions["model.dim_mults"].to_internal_repr
    assert choices("[1, 2, 4]") == 1
    values = decoded({"model.dim_mults": "[1, 2, 4]", "model.attention": "se", "diffusion.min_snr_gamma": None})
    assert values == {"model.dim_mults": [1, 2, 4], "model.attention": "se", "diffusion.min_snr_gamma": None}


def test_a_trial_is_the_search_job_with_its_values(search_job: Build) -> None:
    job = search_job()
    trial = trial_job(job, {"training.lr": 1e-3, "model.dim_mults": [1, 2]}, "t", "out")
    assert (trial.kind, trial.name, trial.output, trial.training.lr) == ("train", "t", "out", 1e-3)
    assert trial.model.dim_mults == (1, 2)
    assert trial.diffusion == job.diffusion
    assert infeasible(trial) is None
    assert trial_job(job, {"model.family": "ddpm"}, "t", "out").model.attention == "linear"
    with pytest.raises(ConfigError, match="divisible by 16"):
        trial_job(search_job("data.image_size=24"), {"model.dim_mults": [1, 1, 1, 1, 1]}, "t", "out")


STEPS = (
    "training.lr:\n  float: {low: 1.0e-4, high: 5.0e-4, step: 1.0e-4}\nmodel.dim:\n  int: {low: 8, high: 16, step: 8}\n"
)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["search.sampler=grid", "search.num_trials=null"], 10),
        (["search.sampler=grid", "search.num_trials=4"], 4),
        (["search.sampler=grid", "search.num_trials=40"], 10),
        (["search.num_trials=null"], 30),
        (["search.num_trials=40"], 40),
    ],
)
def test_the_number_of_trials_follows_from_a_grid(
    search_job: Build, tmp_path: Path, overrides: list[str], expected: int
) -> None:
    (tmp_path / "steps.yaml").write_text(STEPS)
    job = search_job(f"search.space={tmp_path}/steps.yaml", *overrides)
    space = load_space(job.search.space, job)
    assert space.num_combinations == 10
    assert num_trials(job, space) == expected


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (
            "training.lr:\n  float: {low: 1.0e-4, high: 1.0e-3}",
            "grid takes every combination, and training.lr in .* is a",
        ),
        ("model.se_reduction:\n  int: {low: 2, high: 8, log: true}", "range without steps; give it a step"),
        (
            "training.lr:\n  float: {low: 0.0001, high: 0.01, step: 0.0000001}",
            "at most 10,000 combinations, .* has 99,001",
        ),
    ],
)
def test_a_grid_needs_steps_that_are_not_too_many(search_job: Build, tmp_path: Path, text: str, rule: str) -> None:
    (tmp_path / "space.yaml").write_text(text)
    job = search_job(f"search.space={tmp_path}/space.yaml", "search.sampler=grid")
    with pytest.raises(ConfigError, match=rule):
        load_space(job.search.space, job)
