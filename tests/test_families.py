"""What each family takes from a job file, and what it refuses."""

import pytest

from lwddpm.config import SearchJob, TrainJob
from lwddpm.errors import ConfigError
from lwddpm.jobfile import load_job, validate_job

LEFT_OUT = ("diffusion", "evaluation.sampler", "evaluation.num_inference_steps", "evaluation.reconstruction_timestep")
NULLS = tuple(f"{key}=null" for key in LEFT_OUT)


def _job(*overrides: str, name: str = "kaggle_small") -> TrainJob | SearchJob:
    job = load_job(name, [*NULLS, *overrides])
    assert isinstance(job, TrainJob | SearchJob)
    return job


def _train(name: str, *overrides: str) -> TrainJob:
    job = load_job(name, overrides)
    assert isinstance(job, TrainJob)
    return job


def _error(*overrides: str, name: str = "kaggle_small") -> str:
    with pytest.raises(ConfigError) as caught:
        load_job(name, overrides)
    return str(caught.value)


def _bare(family: str, **adversarial: object) -> TrainJob:
    job = validate_job(
        {
            "kind": "train",
            "name": "bare",
            "data": {"source": "phantom"},
            "model": {"family": family},
            "adversarial": adversarial,
        },
        "bare",
    )
    assert isinstance(job, TrainJob)
    return job


@pytest.mark.parametrize(
    ("family", "given", "lr", "expected"),
    [
        ("gan", {}, 2e-4, {"optimizer": "adam", "betas": (0.5, 0.999), "n_critic": 1, "clip": None}),
        ("lsgan", {}, 2e-4, {"optimizer": "adam", "betas": (0.5, 0.999), "n_critic": 1, "clip": None}),
        ("wgan", {}, 5e-5, {"optimizer": "rmsprop", "betas": None, "n_critic": 5, "clip": 0.01}),
        ("wgan", {"gradient_penalty": 10}, 1e-4, {"optimizer": "adam", "betas": (0, 0.9), "n_critic": 5, "clip": None}),
        ("wgan", {"clip": 0.1, "n_critic": 2}, 5e-5, {"clip": 0.1, "n_critic": 2}),
    ],
)
def test_what_is_not_given_is_as_published(
    family: str, given: dict[str, object], lr: float, expected: dict[str, object]
) -> None:
    job = _bare(family, **given)
    assert job.adversarial is not None
    adversarial = job.adversarial.model_dump()
    assert {key: adversarial[key] for key in expected} == expected
    assert (job.training.lr, job.training.max_grad_norm) == (lr, None)
    assert (job.model.dim_mults, job.model.latent_dim) == ((1, 2, 4, 8), 100)
    assert job.evaluation is not None
    assert (job.evaluation.sampler, job.evaluation.num_inference_steps) == ("generator", 1)


@pytest.mark.parametrize("family", ["gan", "wgan", "lsgan"])
def test_a_dumped_job_is_the_same_job(family: str) -> None:
    job = _job(f"model.family={family}", "training.lr=1e-3")
    assert job.training.lr == 1e-3
    again = validate_job(job.model_dump(mode="json"), "again")
    assert again == job
    assert isinstance(again, TrainJob)
    assert again.training_digest() == job.training_digest()


@pytest.mark.parametrize("name", ["demo", "paper", "kaggle_small", "search_demo"])
def test_a_diffusion_job_says_nothing_of_gans_so_that_its_digests_stay(name: str) -> None:
    dumped = load_job(name).model_dump(mode="json")
    assert "adversarial" not in dumped
    assert "latent_dim" not in dumped["model"]
    assert isinstance(dumped["diffusion"], dict)


BEYOND = {
    "model.head_skip": ("false", "true"),
    "model.patch": ("1", "2"),
    "model.coordinates": ("false", "true"),
    "training.patches": ("null", "{share: 0.3}"),
    "training.timestep_sampling": ("uniform", "stratified"),
    "training.ema_lengths": ("[]", "[0.05]"),
    "training.log_sigma_mean": ("null", "-1"),
    "training.log_sigma_std": ("null", "1.2"),
    "training.loss_weighting": ("fixed", "learned"),
    "training.augment": ("0", "0.12"),
    "training.optimizer": ("adam", "muon"),
    "training.adam_betas": ("[0.9,0.999]", "[0.9,0.99]"),
    "diffusion.intensity_gamma": ("1", "0.5"),
    "diffusion.sigma_data": ("0.5", "0.4"),
}
NEEDS = {  # what a setting is for
    "training.log_sigma_mean": "training.timestep_sampling=log_normal",
    "training.log_sigma_std": "training.timestep_sampling=log_normal",
    "diffusion.sigma_data": "diffusion.prediction_type=edm",
}


@pytest.mark.parametrize("key", BEYOND)
def test_what_goes_beyond_the_paper_counts_in_digests_only_where_it_is_used(key: str) -> None:
    section, _, name = key.partition(".")
    base = [NEEDS[key]] if key in NEEDS else []
    variants = [[], *([f"{key}={value}"] for value in BEYOND[key])]
    plain, given, used = (_train("kaggle_small", *base, *more) for more in variants)
    assert name not in plain.model_dump(mode="json")[section]
    assert (given.training_digest(), given.digest()) == (plain.training_digest(), plain.digest())
    assert used.training_digest() != plain.training_digest()
    assert used.earlier_training_digest() != plain.earlier_training_digest()


def test_digests_follow_the_adversarial_settings() -> None:
    jobs = [_bare("gan"), _bare("lsgan"), _bare("wgan"), _bare("wgan", gradient_penalty=10), _bare("wgan", n_critic=4)]
    assert len({job.training_digest() for job in jobs}) == len(jobs)


def test_settings_of_the_other_kind_are_refused_in_one_message_that_can_be_followed() -> None:
    message = _error("model.family=wgan")
    assert "wgan has no use for" in message
    assert all(f"--set {key}=null" in message for key in LEFT_OUT)
    flags = message.partition("leave out, or ")[2].replace("--set ", "").split()
    assert load_job("kaggle_small", ["model.family=wgan", *flags]).model_dump()["diffusion"] is None


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["adversarial.n_critic=3"], "lw_ddpm has no use for adversarial"),
        (["model.family=ddpm", "model.latent_dim=3"], "ddpm has no use for model.latent_dim"),
        (["evaluation.sampler=generator"], "evaluation.sampler: must be one of a diffusion model's"),
        (["model.family=gan", *NULLS, "model.attention=se"], "gan has no use for model.attention"),
        (["model.family=gan", *NULLS, "model.patch=2", "model.head_skip=true"], "use for model.head_skip, model.patch"),
        (["model.family=gan", *NULLS, "training.patches={share: 0.5}"], "gan has no use for training.patches"),
        (["model.family=gan", *NULLS, "model.coordinates=true"], "gan has no use for model.coordinates"),
        (["model.family=gan", *NULLS, "training.timestep_sampling=stratified"], "use for training.timestep_sampling"),
        (["model.family=gan", *NULLS, "training.adam_betas=[0.9,0.99]"], "no use for training.adam_betas"),
        (["model.family=gan", *NULLS, "training.validation_samples=9"], "no use for training.validation_samples"),
        (["model.family=gan", *NULLS, "evaluation.sampler=ddim"], "no use for evaluation.sampler"),
        (["model.family=gan", *NULLS, "data.image_size=48"], "power of two from 16 to 256 for gan, got 48"),
        (["model.family=lsgan", *NULLS, "adversarial.clip=0.1"], "adversarial.clip: is for wgan, not for lsgan"),
        (["model.family=wgan", *NULLS, "adversarial.clip=null"], "either clip or gradient_penalty"),
        (
            ["model.family=wgan", *NULLS, "adversarial.clip=0.1", "adversarial.gradient_penalty=1"],
            "either clip or gradient_penalty",
        ),
        (["model.family=wgan", *NULLS, "adversarial.discriminator_norm=spectral"], "one undoes the other"),
        (["model.family=wgan", *NULLS, "adversarial.betas=[0,0.9]"], "betas are Adam's"),
        (["model.family=gan", *NULLS, "adversarial.critic=5"], "did you mean adversarial.n_critic?"),
        (["model.family=vae"], "'lw_ddpm', 'ddpm', 'gan', 'wgan' or 'lsgan'"),
    ],
)
def test_what_a_family_cannot_do_is_refused(overrides: list[str], expected: str) -> None:
    assert expected in _error(*overrides).replace("--set ", "")


@pytest.mark.parametrize("objective", ["val/loss", "eval/ssim_reconstruction"])
def test_a_search_over_gans_refuses_objectives_that_they_lack(objective: str) -> None:
    message = _error(*NULLS, "model.family=gan", f"search.objectives=[{objective}]", name="search_demo")
    assert f"objectives: {objective} does not exist for gan" in message
    message = _error(*NULLS, "model.family=gan", f"search.prune_on={objective}", name="search_demo")
    assert f"prune_on: {objective} does not exist for gan" in message


def test_a_search_over_gans_measures_their_one_pass() -> None:
    nulls = ("search.proxy.sampler=null", "search.proxy.num_inference_steps=null")
    for overrides in (nulls, ("search.proxy={num_samples: 32}",)):
        job = _job("model.family=gan", *overrides, name="search_demo")
        assert isinstance(job, SearchJob)
        assert (job.search.proxy.sampler, job.search.proxy.num_inference_steps) == ("generator", 1)
        assert validate_job(job.model_dump(mode="json"), "again") == job
    message = _error(*NULLS, "model.family=gan", name="search_demo")
    assert "search.proxy.sampler: the model is a GAN" in message
    assert "leave out sampler, num_inference_steps, or" in message
