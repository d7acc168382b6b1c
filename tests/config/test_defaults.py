"""Defaults are resolved once: a validated job is complete, and validating its own dump changes nothing."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest

from lwddpm import families
from lwddpm.config import (
    CLASS_MEASURES,
    KINDS,
    AdversarialConfig,
    AnyJob,
    CompareJob,
    Metric,
    ModelConfig,
    Objective,
    Section,
    TrainingConfig,
    TrainingJob,
    TrainJob,
)
from lwddpm.config.keys import section_at
from lwddpm.errors import ConfigError
from lwddpm.jobfile import load_job, shipped, validate_job

SHIPPED = sorted(path.stem for path in shipped("jobs").glob("*.yaml"))
TRAINED = [name for name in SHIPPED if isinstance(load_job(name), TrainingJob)]
NULLS = (
    *(f"search.proxy.{name}=null" for name in ("sampler", "num_inference_steps")),
    *(
        f"evaluation.{name}=null"
        for name in (
            "sampler",
            "num_inference_steps",
            "start",
            "guidance",
            "condition_guidance",
            "reconstruction_timestep",
        )
    ),
    *(f"model.{name}=null" for name in ("attention", "se_reduction", "head_skip", "patch")),
    *(f"training.{name}=null" for name in ("optimizer", "timestep_sampling", "log_sigma_mean", "log_sigma_std")),
    "training.guide_epoch=null",
    "diffusion=null",
)


def _of_family(name: str, family: str) -> AnyJob:
    """A shipped job with another family, without what only diffusion models have where it becomes a GAN."""
    nulls = NULLS if family in families.ADVERSARIAL else ()
    if not name.startswith("search"):
        nulls = tuple(override for override in nulls if not override.startswith("search."))
    if name == "student" and nulls:
        nulls = ("consistency=null", *nulls)
    return load_job(name, [f"model.family={family}", *nulls])


def _assert_its_dump_is_the_same_job(job: AnyJob) -> None:
    again = validate_job(job.model_dump(mode="json"), "again")
    assert again == job
    assert again.digest() == job.digest()
    assert again.model_dump_json() == job.model_dump_json()
    if isinstance(job, TrainingJob):
        assert isinstance(again, TrainingJob)
        assert again.training_digest() == job.training_digest()


@pytest.mark.parametrize("name", SHIPPED)
def test_the_dump_of_a_shipped_job_is_the_same_job(name: str) -> None:
    _assert_its_dump_is_the_same_job(load_job(name))


@pytest.mark.parametrize("family", get_args(families.Family))
@pytest.mark.parametrize("name", TRAINED)
def test_the_dump_of_a_job_of_any_family_is_the_same_job(name: str, family: str) -> None:
    if isinstance(load_job(name), CompareJob) and family in families.ADVERSARIAL:
        with pytest.raises(ConfigError, match="the base of a comparison is a diffusion model"):
            _of_family(name, family)
    else:
        _assert_its_dump_is_the_same_job(_of_family(name, family))


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_sections_are_complete_on_their_own(optimizer: str) -> None:
    adversarial = AdversarialConfig.model_validate({"optimizer": optimizer})
    assert (adversarial.betas is None) == (optimizer == "rmsprop")
    assert TrainingConfig().epochs == 250
    for section in (
        adversarial,
        TrainingConfig(max_steps=3),
        *(ModelConfig(family=f) for f in get_args(families.Family)),
    ):
        assert type(section).model_validate(section.model_dump()) == section


def _assert_nothing_was_filled_in_later(section: Section) -> None:
    """What was not given, nor put in before validation, is the field's own default."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if name not in section.model_fields_set:
            assert value == field.default, f"{type(section).__name__}.{name}"
        if isinstance(value, Section):
            _assert_nothing_was_filled_in_later(value)


@pytest.mark.parametrize("family", get_args(families.Family))
@pytest.mark.parametrize("name", ["demo", "search_demo", "gan"])
def test_no_default_is_filled_in_after_validation(name: str, family: str) -> None:
    _assert_nothing_was_filled_in_later(_of_family(name, family))
    _assert_nothing_was_filled_in_later(load_job(name, ["training.max_steps=null"]))


@pytest.mark.parametrize("family", get_args(families.Family))
def test_a_diffusion_job_is_the_base_of_any_family(family: str) -> None:
    """What `rebased` leaves of a base is what a file with only these choices would have."""
    base = load_job("demo", ["training.lr=1e-3", "training.batch_size=16", "evaluation.num_samples=9"])
    values = families.rebased(base.model_dump(mode="json"), family)
    values["model"]["family"] = family
    job = validate_job(values, "rebased")
    assert isinstance(job, TrainJob)
    assert job.evaluation is not None
    assert (job.training.batch_size, job.model.dim, job.evaluation.num_samples) == (16, 32, 9)
    if family in families.ADVERSARIAL:
        published = families.published(family, penalised=False)
        assert job.adversarial is not None
        assert job.training.lr == published["training"]["lr"]
        assert job.model.dim_mults == (1, 2, 4, 8)
    else:
        assert job.training.lr == 1e-3
        assert job.model.attention == families.ATTENTION[family]  # type: ignore[index]
    assert base.model_dump(mode="json")["model"]["attention"] == "se"  # left as it was


def test_rebased_keeps_attention_that_was_chosen() -> None:
    base = load_job("demo", ["model.attention=none"]).model_dump(mode="json")
    assert families.rebased(base, "ddpm")["model"]["attention"] == "none"


def _sections() -> Iterator[type[Section]]:
    seen: set[Any] = set()
    rest: list[Any] = list(KINDS.values())
    while rest:
        section = rest.pop()
        if section in seen:
            continue
        seen.add(section)
        yield section
        rest += [inner for name in section.model_fields if (inner := section_at(section, name))]


@pytest.mark.parametrize("section", sorted(_sections(), key=lambda s: s.__name__), ids=lambda s: s.__name__)
def test_every_section_and_every_setting_is_described(section: type[Section]) -> None:
    """README points here for the reference of the job file; a key that is a section is described by its class."""
    assert section.__doc__
    for name, field in section.model_fields.items():
        assert field.description or section_at(section, name) or name == "kind", f"{section.__name__}.{name}"


def test_searches_and_evaluations_name_measures_alike() -> None:
    evaluated = {name.removeprefix("eval/") for name in get_args(Objective) if name.startswith("eval/")}
    assert evaluated - set(get_args(Metric)) == set(CLASS_MEASURES)  # where a class is asked for


def test_every_kind_of_job_has_a_shipped_example() -> None:
    assert {load_job(name).kind for name in SHIPPED} == set(KINDS)
