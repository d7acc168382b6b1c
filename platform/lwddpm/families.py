"""The systems that a job can train: their names, and what each family of them takes from a job file.

Diffusion models have a forward process and a sampler. GANs have a latent vector, a discriminator, and draw in one pass
of their generator. Here stand the tables and the functions that complete values; `config` calls them before it
validates, so that a validated job is complete and nothing is filled in later.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

DiffusionFamily = Literal["lw_ddpm", "ddpm"]
AdversarialFamily = Literal["gan", "wgan", "lsgan"]
Family = Literal[DiffusionFamily, AdversarialFamily]
OnePass = Literal["generator"]

ADVERSARIAL: tuple[AdversarialFamily, ...] = get_args(AdversarialFamily)
SAMPLER: OnePass = "generator"  # stands where diffusion models name a sampler
ONE_PASS: dict[str, Any] = {"sampler": SAMPLER, "num_inference_steps": 1}  # how a GAN's slices are drawn
# drawing that is led away from nothing
UNGUIDED: dict[str, Any] = {
    "guidance": 1.0,
    "guidance_from": "auto",
    "condition_guidance": 1.0,
    "guidance_interval": None,
}

ATTENTION: dict[DiffusionFamily, Literal["se", "linear"]] = {"lw_ddpm": "se", "ddpm": "linear"}

# Sampling settings that mean nothing to a GAN, and what stands there in its job.
_SAMPLING: dict[str, Any] = {
    **ONE_PASS,
    "preset": None,  # of a model that is there already
    "eta": 0.0,
    "start": "auto",
    "timestep_spacing": "auto",
    "calibrate": False,
    **UNGUIDED,
    "precision": "auto",
    "reconstruction_timestep": 50,
}
# All that only diffusion models have, by dotted key.
_DIFFUSION_ONLY: dict[str, Any] = {
    "diffusion": None,
    "model.attention": None,
    "model.se_reduction": 16,
    "model.downsample_last": False,
    "model.head_skip": False,
    "model.patch": 1,
    "model.coordinates": False,
    "training.optimizer": "adam",
    "training.adam_betas": (0.9, 0.999),
    "training.ema_lengths": (),
    "training.timestep_sampling": "uniform",
    "training.augment": 0,
    "training.patches": None,
    "training.loss_weighting": "fixed",
    "training.log_sigma_mean": None,
    "training.log_sigma_std": None,
    "training.guide_epoch": None,
    "training.validation_samples": 0,  # for val/loss: an adversarial loss on held-out slices says nothing of samples
    **{f"evaluation.{name}": value for name, value in _SAMPLING.items()},
}
_ADVERSARIAL_ONLY = ("adversarial", "model.latent_dim")

# Radford et al. 2016 (arXiv:1511.06434), section 4: Adam, 2e-4, beta_1 0.5. LSGAN (Mao et al. 2017) is trained alike.
_DCGAN: dict[str, dict[str, Any]] = {
    "training": {"lr": 2e-4, "max_grad_norm": None},
    "adversarial": {"optimizer": "adam", "betas": (0.5, 0.999), "n_critic": 1, "discriminator_norm": "spectral"},
}
# Arjovsky et al. 2017 (arXiv:1701.07875), algorithm 1.
_WGAN: dict[str, dict[str, Any]] = {
    "training": {"lr": 5e-5, "max_grad_norm": None},
    "adversarial": {"optimizer": "rmsprop", "n_critic": 5, "clip": 0.01, "discriminator_norm": "group"},
}
# Gulrajani et al. 2017 (arXiv:1704.00028), algorithm 1; lambda, 10 there, is what the job gives.
_WGAN_GP: dict[str, dict[str, Any]] = {
    "training": {"lr": 1e-4, "max_grad_norm": None},
    "adversarial": {"optimizer": "adam", "betas": (0.0, 0.9), "n_critic": 5, "discriminator_norm": "group"},
}
# What a GAN has published values for, or none at all, whatever the diffusion model beside it is trained with.
_OWN_OF_GANS = (
    "model.dim_mults",
    "training.lr",
    "training.lr_schedule",
    "training.warmup_steps",
    "training.max_grad_norm",
    *_DIFFUSION_ONLY,
)


def family_of(values: Mapping[str, Any]) -> Any:
    """What a job's values give as `model.family`, valid or not; the default family where they give none."""
    family = _read(values, "model.family")
    return "lw_ddpm" if family is None else family


def model_defaults(family: Any) -> dict[str, Any]:
    """Settings of section `model` that follow from its family."""
    if family in ADVERSARIAL:
        return {"dim_mults": (1, 2, 4, 8), "latent_dim": 100}
    return {"attention": ATTENTION["ddpm" if family == "ddpm" else "lw_ddpm"]}


def unused(values: Mapping[str, Any]) -> list[str]:
    """Dotted keys that a job gives and that its family has no use for.

    Args:
        values: nested mapping as in a job file. A key counts as given unless it is null or, in a GAN's job, has the
            value that `completed` puts there.
    """
    if family_of(values) not in ADVERSARIAL:
        return [key for key in _ADVERSARIAL_ONLY if _read(values, key) is not None]
    return [key for key, value in _DIFFUSION_ONLY.items() if _read(values, key) not in (None, value)]


def unused_in_one_pass(sampling: Mapping[str, Any]) -> list[str]:
    """Which of some given sampling settings mean nothing to a GAN: those that are neither null nor as in its job."""
    return [name for name, value in _SAMPLING.items() if sampling.get(name) not in (None, value)]


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """A job's values with all that follows from its family: what the values themselves give stays.

    Idempotent: completing the dump of a validated job changes nothing.

    Args:
        values: nested mapping as in a job file, without keys that are `unused`.
    """
    family = family_of(values)
    if family not in ADVERSARIAL:
        return {key: value for key, value in values.items() if key != "diffusion" or value is not None}
    complete = {**values, "adversarial": values.get("adversarial") or {}}
    for key, value in _DIFFUSION_ONLY.items():
        _put(complete, key, value)
    penalised = _read(values, "adversarial.gradient_penalty") is not None
    for section, defaults in published(family, penalised=penalised).items():
        for name, value in defaults.items():
            if _section(complete, section) is not None and name not in complete[section]:
                _put(complete, f"{section}.{name}", value)
    return complete


def published(family: str, *, penalised: bool) -> dict[str, dict[str, Any]]:
    """Settings that a family of GANs was published with, by section.

    Args:
        penalised: a WGAN has a gradient penalty instead of clipped weights.
    """
    if family != "wgan":
        return _DCGAN
    return _WGAN_GP if penalised else _WGAN


def rebased(values: Mapping[str, Any], family: str) -> dict[str, Any]:
    """The values of a diffusion model's job as the base of a job of another family.

    What the old family decided is left out, so that validating decides it anew: attention that nobody chose; for a GAN
    also what it has published settings for, and what it has no use for.

    Args:
        values: dump of a validated job.
        family: the new family; it is not set here.
    """
    base = {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    if family in ADVERSARIAL:
        for key in _OWN_OF_GANS:
            section, _, name = key.rpartition(".")
            inside = base.get(section) if section else base
            if isinstance(inside, dict):
                inside.pop(name, None)
    elif _read(base, "model.attention") == model_defaults(family_of(values)).get("attention"):
        base["model"]["attention"] = None
    return base


def _read(values: Mapping[str, Any], dotted: str) -> Any:
    value: Any = values
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _section(values: dict[str, Any], name: str) -> dict[str, Any] | None:
    """A section that may be written to, made where it is missing; None where it is not a mapping (null: left out)."""
    section = values.setdefault(name, {})
    if not isinstance(section, Mapping):
        return None
    values[name] = dict(section)
    return values[name]


def _put(values: dict[str, Any], dotted: str, value: Any) -> None:
    section, _, name = dotted.rpartition(".")
    inside = _section(values, section) if section else values
    if inside is not None:
        inside[name] = value
