"""What a search is judged by must be something that its trials have."""

import pytest

from lwddpm.config import SearchJob
from lwddpm.errors import ConfigError
from lwddpm.jobfile import load_job

OF_LOSS = ("search.objectives=[val/loss]", "search.prune_on=null")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([*OF_LOSS, "training.validation_samples=0"], "search.objectives: val/loss is not computed with"),
        (
            ["search.prune_on=val/loss", "training.validation_samples=0"],
            "search.prune_on: val/loss is not",
        ),
        (
            [*OF_LOSS, "data.splits=[0.9,0,0.1]"],
            "val/loss needs a validation split, and data.splits is [0.9, 0.0,",
        ),
        (
            [
                "search.objectives=[parameters,eval/ssim_nearest]",
                "search.prune_on=eval/fd_lite0",
                "data.splits=[1,0,0]",
            ],
            "eval/ssim_nearest needs held-out slices, and data.splits is [1.0, 0.0, 0.0]",
        ),
        (["search.prune_on=eval/fd_lite0", "data.splits=[1,0,0]"], "needs held-out slices"),
        (
            [
                'search.constraints={"audit/copied_share": 0.02}',
                "search.objectives=[parameters]",
                "search.prune_on=null",
                "search.scheduler=none",
                "data.splits=[1,0,0]",
                "training.validation_samples=0",
            ],
            "search.constraints: audit/copied_share needs held-out slices",
        ),
        (["search.constraints={eval/copied_share: 0.02}"], "search.constraints"),
        (
            ["search.objectives=[eval/utility_lite0]"],
            "eval/utility_lite0 takes a model that is told the class (model.conditions: [label]), got []",
        ),
        (
            ["search.objectives=[eval/utility_lite0]", "model.conditions=[label]", "data.splits=[0.9,0,0.1]"],
            "eval/utility_lite0 is tried on validation slices",
        ),
        (["search.constraints={parameters: .inf}"], "finite"),
        (
            ["diffusion.num_train_timesteps=150", "search.proxy.num_inference_steps=200"],
            "search.proxy.num_inference_steps: must be at most",
        ),
        (
            [
                "search.objectives=[eval/ssim_reconstruction]",
                "search.proxy.reconstruction_timestep=200",
                "diffusion.num_train_timesteps=150",
            ],
            "search.proxy.reconstruction_timestep: must be below",
        ),
    ],
)
def test_objectives_that_no_trial_can_have_are_refused(overrides: list[str], expected: str) -> None:
    rest = ["evaluation.num_inference_steps=10", "evaluation.reconstruction_timestep=10"]
    with pytest.raises(ConfigError) as error:
        load_job("search_demo", [*rest, *overrides])
    assert expected in str(error.value)


def test_what_no_objective_needs_is_not_asked_for() -> None:
    rest = ["search.prune_on=null", "search.scheduler=none"]
    job = load_job("search_demo", [*OF_LOSS, *rest, "data.splits=[0.9,0.1,0]", "search.proxy.num_inference_steps=5000"])
    assert isinstance(job, SearchJob)
    job = load_job(
        "search_demo", ["search.objectives=[parameters]", *rest, "data.splits=[1,0,0]", "training.validation_samples=0"]
    )
    assert isinstance(job, SearchJob)


def test_what_is_timed_has_the_machine_to_itself() -> None:
    with pytest.raises(ConfigError, match=r"search\.max_concurrent: must be 1 with sampling_seconds.*leave it out"):
        load_job("search_demo", ["search.objectives=[eval/fd_lite0,sampling_seconds]", "search.max_concurrent=2"])
    job = load_job("search_demo", ["search.objectives=[eval/fd_lite0,sampling_seconds]"])
    assert isinstance(job, SearchJob)
    assert job.search.timed


def test_constraints_are_measured_at_the_full_budget_and_part_of_what_a_study_is() -> None:
    limit = 'search.constraints={"audit/copied_share": 0.02, "sampling_seconds": 9}'
    plain = load_job("search_demo", ["search.max_concurrent=null"])
    held = load_job("search_demo", ["search.max_concurrent=null", limit])
    assert isinstance(plain, SearchJob)
    assert isinstance(held, SearchJob)
    assert held.search.named == (*plain.search.named, "audit/copied_share", "sampling_seconds")
    assert (held.search.timed, plain.search.timed) == (True, False)
    assert held.digest() != plain.digest()
    assert "constraints" not in plain.model_dump(mode="json")["search"], "jobs without any keep their digests"
    objective = load_job("search_demo", ["search.objectives=[audit/copied_share, parameters]", "search.prune_on=null"])
    assert isinstance(objective, SearchJob)
    assert objective.search.pruned_on == "audit/copied_share"
