"""Whether sampling settings fit the model that they are for: refused before anything is drawn."""

import difflib
from collections.abc import Mapping
from typing import Any, Literal

from lwddpm import families
from lwddpm.conditions import Asked, Category, Vocabulary
from lwddpm.config.evaluation import EvaluationConfig
from lwddpm.config.model import DiffusionConfig
from lwddpm.config.rule import RuleBroken
from lwddpm.config.sampling import SamplingConfig, SamplingT
from lwddpm.families import ONE_PASS


def check_steps(sampling: SamplingConfig, diffusion: DiffusionConfig, section: str) -> None:
    """Refuse more sampling steps, or a later reconstruction, than the model was trained with.

    Args:
        section: where the sampling settings stand in the job, such as `evaluation`.

    Raises:
        RuleBroken: names the setting, both numbers and the limit.
    """
    steps, limit = sampling.num_inference_steps, diffusion.num_train_timesteps
    if sampling.sampler == families.SAMPLER:
        raise RuleBroken(f"{section}.sampler", "must be one of a diffusion model's", sampling.sampler, "try ddim")
    if sampling.truncation is not None:
        rule = "is a GAN's, and a diffusion model has no latent to cut off"
        raise RuleBroken(f"{section}.truncation", rule, sampling.truncation, "leave it out; guidance does the like")
    if steps > limit:
        raise RuleBroken(
            f"{section}.num_inference_steps", f"must be at most diffusion.num_train_timesteps = {limit}", steps
        )
    if isinstance(sampling, EvaluationConfig) and sampling.reconstruction_timestep >= limit:
        raise RuleBroken(
            f"{section}.reconstruction_timestep",
            f"must be below diffusion.num_train_timesteps = {limit}",
            sampling.reconstruction_timestep,
        )


def check_guide(
    sampling: SamplingConfig, guide_epoch: float | None, section: str, dropout: float | None = None
) -> None:
    """Refuse guidance of a training whose model has nothing to lead away from.

    Args:
        guide_epoch: `training.guide_epoch`.
        section: where the sampling settings stand in the job.
        dropout: `training.condition_dropout`; None: the model has no conditions.

    Raises:
        RuleBroken: names the setting and what it takes.
    """
    check_no_preset(sampling, section)
    if sampling.condition_guidance != 1 and not dropout:
        raise _learnt_no_drawing_without(sampling, section, "condition_guidance", dropout)
    if sampling.guidance == 1:
        return
    away_from = leads_away_from(sampling, has_guide=guide_epoch is not None)
    if guide_epoch is None and ("guide" in away_from or (dropout is None and sampling.guidance_from == "auto")):
        raise RuleBroken(
            f"{section}.guidance",
            "takes a model with a guide, and training.guide_epoch is null",
            sampling.guidance,
            "set that to an epoch from the first third of the training, or leave guidance out",
        )
    if "unconditional" in away_from and not dropout:
        raise _learnt_no_drawing_without(sampling, section, "guidance", dropout)


def _learnt_no_drawing_without(
    sampling: SamplingConfig, section: str, setting: str, dropout: float | None
) -> RuleBroken:
    why = "the model has no conditions" if dropout is None else "training.condition_dropout is 0"
    return RuleBroken(
        f"{section}.{setting}",
        f"leads away from the network without its conditions, which it is to learn in training, and {why}",
        getattr(sampling, setting),
        f"set model.conditions and training.condition_dropout, or leave {setting} out",
    )


def leads_away_from(
    sampling: SamplingConfig, *, has_guide: bool
) -> Literal["unconditional", "guide", "unconditional_guide"]:
    """What guidance leads away from; what `auto` comes to."""
    if sampling.guidance_from != "auto":
        return sampling.guidance_from
    # what the conditions say is condition_guidance's part, where there is such a one
    return "guide" if has_guide or sampling.condition_guidance != 1 else "unconditional"


def check_no_preset(sampling: SamplingConfig, section: str) -> None:
    """Refuse a preset where the model is yet to be made.

    Raises:
        RuleBroken: names the setting.
    """
    if sampling.preset is not None:
        rule = "is of a model that is there already, and this job makes one"
        raise RuleBroken(f"{section}.preset", rule, sampling.preset, "give the settings themselves")


def check_asked(sampling: SamplingT, vocabulary: Vocabulary | None, section: str) -> SamplingT:
    """The settings with the values of conditions as a model knows them.

    Args:
        vocabulary: of the model; None: it has no conditions.
        section: where the sampling settings stand in the job, such as `evaluation`.

    Raises:
        RuleBroken: a condition or a value that the model does not know; lists those that it does.
    """
    if vocabulary is None:
        for name in ("conditions", "like"):
            if sampling.model_dump(include={name}):
                rule = "is for a model with conditions, and this one has none"
                raise RuleBroken(
                    f"{section}.{name}", rule, getattr(sampling, name), "leave it out, or train with model.conditions"
                )
        return sampling
    asked = {}
    for name, value in sampling.conditions.items():
        key = f"{section}.conditions.{name}"
        if name not in vocabulary.names:
            raise RuleBroken(
                f"{section}.conditions", f"the model's conditions are {', '.join(vocabulary.names)}", name, "name these"
            )
        condition = vocabulary.condition(name)
        if isinstance(condition, Category):
            asked[name] = _known(value, condition, key)
        else:
            try:
                assert not isinstance(value, dict)
                asked[name] = None if value is None else float(value)
            except (AssertionError, ValueError):
                raise RuleBroken(key, "must be a number", value, f"such as {condition.mean:.4g}") from None
    return sampling.model_copy(update={"conditions": asked}) if asked else sampling


def _known(value: Asked, category: Category, key: str) -> Asked:
    """What is asked of a category, in its names."""
    if value is None:
        return None
    shares = value if isinstance(value, Mapping) else {value: 1}
    names = {f"{name:g}" if isinstance(name, float) else name: share for name, share in shares.items()}
    for name in names:
        if name not in category.values:
            near = difflib.get_close_matches(name, category.values, n=1)
            rule = f"must be one of {', '.join(category.values)}"
            raise RuleBroken(key, rule, name, f"did you mean {near[0]}?" if near else "choose one of these")
    return names if isinstance(value, Mapping) else next(iter(names))


def one_pass(sampling: SamplingT, section: str) -> SamplingT:
    """How a saved GAN's slices are drawn: what a job that names only a model cannot know before it is read.

    Args:
        section: where the sampling settings stand in the job, such as `evaluation`.

    Raises:
        RuleBroken: settings were given that mean nothing to a GAN; names them.
    """
    check_one_pass({name: getattr(sampling, name) for name in sampling.model_fields_set}, section)
    return sampling.model_copy(update=ONE_PASS)


def check_one_pass(given: Mapping[str, Any], section: str) -> None:
    """Refuse sampling settings that mean nothing to a GAN.

    Args:
        given: the settings that were given, by name.
        section: where they stand in the job.

    Raises:
        RuleBroken: names them.
    """
    unused = families.unused_in_one_pass(given)
    if unused:
        raise RuleBroken(
            f"{section}.{unused[0]}",
            "the model is a GAN and draws in one pass",
            given[unused[0]],
            f"leave out {', '.join(unused)}, or set to null",
        )
