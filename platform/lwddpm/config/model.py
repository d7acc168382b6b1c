"""Sections `model`, `diffusion` and `adversarial`: what is trained."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lwddpm import families
from lwddpm.config.section import PositiveInt, Section

Family = Literal["lw_ddpm", "ddpm", "gan", "wgan", "lsgan"]
GAN_SIZES = (16, 32, 64, 128, 256)


def _is_none(value: object) -> bool:
    return value is None  # settings of GANs only: not in the dump, and so not in the digest, of a diffusion job


class ModelConfig(Section):
    """The network. `family` names the system of the paper; what is not given follows it.

    A level is a halving of the image: its width is `dim` times its entry in `dim_mults`. In a GAN's networks the last
    entry holds for all further levels, down to 4x4.
    """

    family: Family = "lw_ddpm"
    dim: Annotated[int, Field(ge=8, multiple_of=8)] = 80
    dim_mults: Annotated[
        tuple[PositiveInt, ...], Field(min_length=2, max_length=6, description="default: 1, 2, 3, 4; GANs 1, 2, 4, 8")
    ] = (1, 2, 3, 4)
    attention: Literal["se", "linear", "none"] | None = Field(None, description="default: se, or linear for ddpm")
    se_reduction: Annotated[int, Field(ge=1)] = 16
    downsample_last: bool = Field(False, description="the prose's network: the last level is downsampled too")
    latent_dim: PositiveInt | None = Field(None, exclude_if=_is_none, description="GANs: default 100")

    @model_validator(mode="before")
    @classmethod
    def _defaults_follow_family(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        given = {key: value for key, value in values.items() if value is not None}
        if values.get("family") in families.ADVERSARIAL:
            return {"dim_mults": (1, 2, 4, 8), "latent_dim": 100} | given
        return {"attention": "linear" if values.get("family") == "ddpm" else "se"} | given

    @property
    def downsampling(self) -> int:
        """Factor between the input's and the bottleneck's height and width."""
        return int(2 ** (len(self.dim_mults) - (0 if self.downsample_last else 1)))


class DiffusionConfig(Section):
    beta_schedule: Literal["linear", "cosine", "sigmoid"] = "cosine"
    num_train_timesteps: Annotated[int, Field(ge=2, le=10_000)] = 1000
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    loss: Literal["smooth_l1", "l1", "l2"] = "smooth_l1"
    min_snr_gamma: Annotated[float, Field(gt=0)] | None = Field(None, description="min-SNR loss weights; 5 is usual")


class AdversarialConfig(Section):
    """How a GAN's generator and discriminator are set against each other; each family has its published defaults."""

    optimizer: Literal["adam", "rmsprop"] = "adam"
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] | None = Field(
        None, description="of Adam; default 0.5, 0.999"
    )
    lr_discriminator: Annotated[float, Field(gt=0, le=1)] | None = Field(None, description="default: training.lr")
    n_critic: PositiveInt = Field(1, description="discriminator updates, each on a new batch, for one of the generator")
    clip: Annotated[float, Field(gt=0)] | None = Field(None, description="wgan: bound of each weight of the critic")
    gradient_penalty: Annotated[float, Field(gt=0)] | None = Field(
        None, description="weight of the penalty on the critic's gradient, 10 is usual; for wgan instead of clip"
    )
    discriminator_norm: Literal["spectral", "group", "none"] = "spectral"

    @model_validator(mode="after")
    def _bounds_and_optimizer_fit(self) -> "AdversarialConfig":
        if self.optimizer == "adam" and self.betas is None:
            object.__setattr__(self, "betas", (0.5, 0.999))
        if self.optimizer == "rmsprop" and self.betas is not None:
            raise ValueError(f"betas are Adam's, got {list(self.betas)} for rmsprop; leave them out")
        return self

    def check(self, family: str) -> None:
        """Refuse a critic that the family's loss does not allow.

        Raises:
            ValueError: the rule, what was found, the remedy.
        """
        if family != "wgan" and self.clip is not None:
            raise ValueError(f"adversarial.clip: is for wgan, got {self.clip:g} for {family}; leave it out")
        if family == "wgan" and (self.clip is None) == (self.gradient_penalty is None):
            raise ValueError(
                "adversarial.clip: wgan needs either clip or gradient_penalty to bound its critic, got "
                f"{self.clip} and {self.gradient_penalty}; set one of them to null"
            )
        if self.clip is not None and self.discriminator_norm == "spectral":
            raise ValueError(
                "adversarial.discriminator_norm: spectral rescales what clip bounds, so that one undoes the other; "
                "take group or none"
            )
