"""What a comparison trains: pure planning, nothing starts."""

from typing import Any

import pytest

from lwddpm.config import CompareJob, TrainJob
from lwddpm.errors import ConfigError
from lwddpm.jobfile import load_job
from lwddpm.kinds.compare.plan import (
    Plan,
    as_system,
    check_compare,
    from_other_start,
    make_plan,
    protocol_of,
    without_network,
)
from lwddpm.training.schedule import Schedule


def _job(*overrides: str, name: str = "paper_compare") -> CompareJob:
    job = load_job(name, ["data.source=phantom", *overrides])
    assert isinstance(job, CompareJob)
    return job


def _labels(plan: Plan) -> set[str]:
    return {training.label for training in plan.trainings.values()}


def test_equal_networks_are_trained_once() -> None:
    plan = make_plan(_job(), 800)
    assert _labels(plan) == {
        *("lw_ddpm", "ddpm", "gan", "wgan", "lsgan"),
        *("lw_ddpm-loss-l1", "lw_ddpm-loss-l2", "lw_ddpm-attention-none"),
        *("ddpm-schedule-linear", "lw_ddpm-schedule-linear", "lw_ddpm-prediction_type-v_prediction"),
    }
    assert plan.systems["ddim"] == plan.systems["ddpm"]
    rows = {(v.ablation, v.system, v.label): v.training.label for v in plan.variants}
    assert len(rows) == 3 + 3 + 4 + 2
    assert rows["loss", "lw_ddpm", "smooth_l1"] == rows["attention", "lw_ddpm", "se"] == "lw_ddpm"
    assert rows["attention", "lw_ddpm", "linear"] == rows["schedule", "ddpm", "cosine"] == "ddpm"
    assert rows["prediction_type", "lw_ddpm", "epsilon"] == "lw_ddpm"


def test_an_ablation_with_a_budget_of_its_own_has_that_budget_throughout() -> None:
    plan = make_plan(_job("compare.ablation_overrides.training.epochs=10"), 800)
    assert {v.training.job.training.epochs for v in plan.variants} == {10}
    assert {t.job.training.epochs for trainings in plan.systems.values() for t in trainings} == {250}
    steps = make_plan(_job("compare.ablation_overrides.training.max_steps=70"), 800)
    assert {(v.training.job.training.epochs, v.training.job.training.max_steps) for v in steps.variants} == {(None, 70)}


def test_variants_differ_from_each_other_in_one_setting_only() -> None:
    plan = make_plan(_job(), 800)
    dumped = {t.label: t.job.model_dump(mode="json", exclude={"name", "evaluation", "registry"}) for t in _all(plan)}

    def differing(first: str, second: str) -> set[str]:
        a, b = (_flat(dumped[label]) for label in (first, second))
        return {key for key in a | b if a.get(key) != b.get(key)}

    assert differing("lw_ddpm", "lw_ddpm-loss-l1") == {"diffusion.loss"}
    assert differing("lw_ddpm", "lw_ddpm-attention-none") == {"model.attention"}
    assert differing("lw_ddpm", "ddpm") == {"model.family", "model.attention"}
    assert differing("ddpm", "ddpm-schedule-linear") == {"diffusion.beta_schedule"}
    assert differing("gan", "lsgan") == {"model.family"}


def _all(plan: Plan) -> list[Any]:
    return list(plan.trainings.values())


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def test_gans_keep_their_published_settings_and_the_bases_budget() -> None:
    plan = make_plan(_job("compare.overrides={}", "compare.systems=[lw_ddpm, wgan]", name="compare_small"), 2600)
    base, wgan = (plan.systems[system][0].job for system in ("lw_ddpm", "wgan"))
    assert (wgan.training.lr, wgan.training.lr_schedule, wgan.diffusion) == (5e-5, "constant", None)
    assert wgan.adversarial is not None
    assert (wgan.adversarial.clip, wgan.adversarial.n_critic) == (0.01, 5)
    assert wgan.training.max_steps == base.training.max_steps
    penalised = make_plan(_job("compare.overrides.wgan.adversarial.gradient_penalty=10", name="compare_small"), 2600)
    adversarial = penalised.systems["wgan"][0].job.adversarial
    assert adversarial is not None
    assert (adversarial.clip, adversarial.gradient_penalty) == (None, 10)


@pytest.mark.parametrize("length", ["training.epochs=250", "training.max_steps=500"])
def test_snapshots_are_at_the_papers_shares_of_any_training(length: str) -> None:
    other = "training.max_steps=null" if "epochs" in length else "training.epochs=null"
    for training in make_plan(_job(length, other), 800).trainings.values():
        schedule = Schedule.of(training.job.training, 800, training.job.batches_per_step)
        shares = sorted(step / schedule.num_steps for step in schedule.snapshots)
        assert shares == pytest.approx([70 / 250, 100 / 250, 200 / 250, 1], abs=0.5 / schedule.num_steps)


def test_every_seed_repeats_every_training() -> None:
    once, thrice = make_plan(_job(), 800), make_plan(_job("compare.seeds=[0,1,2]"), 800)
    assert len(thrice.trainings) == 3 * len(once.trainings)
    assert [t.job.seed for t in thrice.systems["gan"]] == [0, 1, 2]
    assert once.trainings.keys() <= thrice.trainings.keys(), "what was trained with the first seed is used again"


def test_a_recipe_is_lw_ddpm_with_settings_of_its_own() -> None:
    systems = "compare.systems=[lw_ddpm, recipe]"
    plan = make_plan(_job(systems, "compare.overrides.recipe={model.head_skip: true, training.max_steps: 90}"), 800)
    (recipe,) = plan.systems["recipe"]
    assert (recipe.label, recipe.job.model.family, recipe.job.model.head_skip) == ("recipe", "lw_ddpm", True)
    assert (recipe.job.training.max_steps, recipe.job.training.epochs) == (90, None)
    assert plan.systems["lw_ddpm"][0].job.model.head_skip is False
    with pytest.raises(ConfigError, match=r"give them in compare\.overrides\.recipe"):
        _job(systems)


def test_systems_are_sampled_as_the_paper_says() -> None:
    job = _job()
    steps = {s: protocol_of(job, s, 7) for s in job.compare.systems}
    assert (steps["ddpm"].sampler, steps["ddpm"].num_inference_steps) == ("ddpm", 1000)
    assert (steps["ddim"].sampler, steps["ddim"].num_inference_steps) == ("ddim", 50)
    assert (steps["gan"].sampler, steps["gan"].num_inference_steps) == ("generator", 1)
    assert {config.seed for config in steps.values()} == {7}
    assert {config.num_samples for config in steps.values()} == {1000}
    registered = {s: as_system(job, s, trainings[0]) for s, trainings in make_plan(job, 800).systems.items()}
    assert registered["gan"].registry is not None
    assert registered["gan"].registry.name == "paper-gan"


def test_the_other_start_and_the_baseline_are_measured_by_the_protocol() -> None:
    own = protocol_of(_job(), "lw_ddpm", 7)
    noise, gaussian, baseline = from_other_start(own, "noise"), from_other_start(own, "gaussian"), without_network(own)
    assert (noise.start, noise.calibrate) == ("noise", False)
    assert (gaussian.start, gaussian.calibrate) == ("gaussian", False)
    assert (baseline.sampler, baseline.num_inference_steps) == ("generator", 1)
    for config in (noise, gaussian, baseline):
        shared = ("seed", "num_samples", "num_reference", "inception_weights")
        assert [getattr(config, name) for name in shared] == [getattr(own, name) for name in shared]
        assert set(own.metrics) - set(config.metrics) == {"ssim_reconstruction"}
    assert (noise.sampler, noise.num_inference_steps) == (own.sampler, own.num_inference_steps)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("compare.overrides.gan.training.bach_size=8", ["compare.overrides.gan", "did you mean training.batch_size"]),
        ("compare.ablation_overrides.training.lr=-1", ["compare.ablations.loss", "greater than 0"]),
        ("compare.overrides.gna.training.lr=1e-3", ["compare.overrides", "gna"]),
        ("compare.systems=[ddim]", ["ddim samples the weights of ddpm"]),
        ("compare.systems=[ddpm,ddpm]", ["each may be named once"]),
        ("compare.ablations.loss.variants=[{diffusion.loss: l1}]", ["at least 2"]),
        ("compare.proxy.num_inference_steps=2000", ["compare.proxy.num_inference_steps", "at most"]),
        ("compare.snapshot_epochs=[3,2]", ["must rise"]),
        ("compare.wurst=1", ["unknown key"]),
        ("training.snapshot_epochs=[1]", ["follow from compare.snapshot_epochs"]),
        ("evaluation=null", ["a comparison needs one"]),
        ("evaluation.metrics=[ssim_nearest]", ["needs fid or fd_lite0"]),
        ("model.family=gan", ["base of a comparison is a diffusion model"]),
    ],
)
def test_wrong_input_is_named_before_anything_starts(override: str, expected: list[str]) -> None:
    more = ["diffusion=null", "evaluation.sampler=null", "evaluation.num_inference_steps=null"]
    with pytest.raises(ConfigError) as caught:
        check_compare(_job(override, *(more if override == "model.family=gan" else [])))
    for part in expected:
        assert part in str(caught.value)


def test_all_systems_of_a_conditional_comparison_are_told_the_class() -> None:
    guided = ("training.guide_epoch=70", "training.condition_dropout=0.1", "evaluation.guidance_from=unconditional")
    job = _job("model.conditions=[label]", *guided, "evaluation.guidance=2")
    check_compare(job)
    plan = make_plan(job, 800)
    assert {training.job.model.conditions for training in plan.trainings.values()} == {("label",)}
    assert {training.job.training.condition_dropout for training in plan.trainings.values()} == {0.1}
    assert protocol_of(job, "lw_ddpm", 0).guidance_from == "unconditional"
    gan = protocol_of(job, "gan", 0)
    assert (gan.guidance, gan.guidance_from) == (1, "auto")
    assert without_network(job.protocol).guidance_from == "auto"
    evaluated = as_system(job, "gan", plan.systems["gan"][0])
    assert TrainJob.model_validate(evaluated.model_dump(mode="json")) == evaluated  # nothing that a GAN refuses
