"""The systems that a job can train, and what each family of them takes from the job file.

Diffusion models have a forward process and a sampler; GANs have a latent vector, a discriminator and one pass. A
setting that a family has no use for is refused where it is given; what is not given gets its published value.
"""

from collections.abc import Mapping
from typing import Any

ADVERSARIAL = ("gan", "wgan", "lsgan")
SAMPLER = "generator"  # one pass of a GAN's generator, where diffusion models name a sampler

# What only diffusion models have, and what stands there in the job of a GAN.
_DIFFUSION_ONLY: dict[str, Any] = {
    "diffusion": None,
    "model.attention": None,
    "model.se_reduction": 16,
    "model.downsample_last": False,
    "training.validation_samples": 0,  # for val/loss: an adversarial loss on held-out slices says nothing of samples
    "evaluation.sampler": SAMPLER,
    "evaluation.num_inference_steps": 1,
    "evaluation.eta": 0.0,
    "evaluation.reconstruction_timestep": 50,
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


def settle(values: Mapping[str, Any]) -> dict[str, Any]:
    """Complete a job's values as its `model.family` asks for.

    Args:
        values: nested mapping as in a job file.

    Raises:
        ValueError: a setting that the family has no use for; names each, and how to leave it out.
    """
    family = _read(values, "model.family")
    if family not in ADVERSARIAL:
        _refuse(family or "lw_ddpm", [key for key in _ADVERSARIAL_ONLY if _read(values, key) is not None])
        return {key: value for key, value in values.items() if key != "diffusion" or value is not None}
    _refuse(family, [key for key, none in _DIFFUSION_ONLY.items() if _read(values, key) not in (None, none)])
    settled = {**values, "adversarial": values.get("adversarial") or {}}
    for key, none in _DIFFUSION_ONLY.items():
        _put(settled, key, none)
    for section, defaults in published(family, _read(values, "adversarial.gradient_penalty") is not None).items():
        for name, value in defaults.items():
            if _section(settled, section) is not None and name not in settled[section]:
                _put(settled, f"{section}.{name}", value)
    return settled


def published(family: str, penalised: bool) -> dict[str, dict[str, Any]]:
    """Settings that a family of GANs was published with, by section; `penalised`: with a gradient penalty."""
    if family != "wgan":
        return _DCGAN
    return _WGAN_GP if penalised else _WGAN


def not_for_one_pass(given: Mapping[str, Any]) -> list[str]:
    """Which of some given sampling settings mean nothing to a GAN."""
    keys = {key.removeprefix("evaluation."): none for key, none in _DIFFUSION_ONLY.items() if "evaluation." in key}
    return [name for name, value in given.items() if name in keys and value != keys[name]]


def _refuse(family: str, keys: list[str]) -> None:
    if keys:
        flags = " ".join(f"--set {key}=null" for key in keys)
        raise ValueError(f"model.family: {family} has no use for {', '.join(keys)}; leave out, or {flags}")


def _read(values: Mapping[str, Any], dotted: str) -> Any:
    found: Any = values
    for part in dotted.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _section(values: dict[str, Any], name: str) -> dict[str, Any] | None:
    """A section that may be written to, made where it is missing; None where it is not a mapping (null: left out)."""
    found = values.setdefault(name, {})
    if not isinstance(found, Mapping):
        return None
    values[name] = dict(found)
    return values[name]


def _put(values: dict[str, Any], dotted: str, value: Any) -> None:
    section, _, name = dotted.rpartition(".")
    inside = _section(values, section) if section else values
    if inside is not None:
        inside[name] = value
