"""Sections `model`, `diffusion` and `adversarial`: what is trained."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from lwddpm import families
from lwddpm.config.rule import RuleBroken
from lwddpm.config.section import PositiveFloat, PositiveInt, Section, is_empty, is_false, is_none, is_one
from lwddpm.families import Family

GAN_SIZES = (16, 32, 64, 128, 256)
Beta = Annotated[float, Field(ge=0, lt=1)]
# Columns of a dataset that say what a slice shows; the others say whose it is, and from which file.
ConditionName = Literal["label", "plane", "sequence", "position_mm"]


class ModelConfig(Section):
    """The network. `family` names the system of the paper; what is not given follows it.

    A level is a halving of the image: its width is `dim` times its entry in `dim_mults`. In a GAN's networks the last
    entry holds for all further levels, down to 4x4.
    """

    family: Family = Field("lw_ddpm", description="lw_ddpm and ddpm are diffusion models; gan, wgan, lsgan are GANs")
    dim: Annotated[int, Field(ge=8, multiple_of=8)] = Field(
        80, description="channels at full size; a multiple of 8, for the groups of group norm"
    )
    dim_mults: Annotated[tuple[PositiveInt, ...], Field(min_length=2, max_length=6)] = Field(
        (1, 2, 3, 4), description="width of each level in multiples of dim; default: 1, 2, 3, 4; GANs 1, 2, 4, 8"
    )
    attention: Literal["se", "linear", "none"] | None = Field(
        None, description="squeeze-and-excitation or linear attention; default: se, or linear for ddpm; not for GANs"
    )
    se_reduction: PositiveInt = Field(16, description="squeeze-and-excitation: channels for one hidden unit")
    downsample_last: bool = Field(
        False, description="as the paper's prose has it: the last level is downsampled too; its Table 1 fits without"
    )
    head_skip: bool = Field(
        False,
        exclude_if=is_false,
        description="join the first level's features to the head, as U-Nets do; in the paper's network they are unused",
    )
    patch: Literal[1, 2, 4] = Field(
        1,
        exclude_if=is_one,
        description="pixels a side that the stem folds into channels, and the head unfolds (space-to-depth): the first "
        "level works at image_size / patch, at 1 / patch^2 of the cost",
    )
    coordinates: bool = Field(
        False,
        exclude_if=is_false,
        description="the network is given where each pixel lies in the slice, x and y from -1 to 1, beside the noisy "
        "slice; default: true with training.patches",
    )
    latent_dim: PositiveInt | None = Field(
        None, exclude_if=is_none, description="GANs: length of the latent vector; default 100"
    )
    conditions: tuple[ConditionName, ...] = Field(
        (),
        exclude_if=is_empty,
        description="columns of the dataset that slices can be asked for by: label (the class), plane, sequence, "
        "position_mm; default: none",
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_follow_family(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        given = {key: value for key, value in values.items() if value is not None}
        return families.model_defaults(values.get("family")) | given

    @field_validator("conditions")
    @classmethod
    def _each_condition_once(cls, conditions: tuple[ConditionName, ...]) -> tuple[ConditionName, ...]:
        if len(set(conditions)) < len(conditions):
            raise RuleBroken("", "each may be named once", list(conditions), "leave the second out")
        return conditions

    @model_validator(mode="after")
    def _the_first_skip_is_free(self) -> "ModelConfig":
        if self.head_skip and self.downsample_last:
            rule = "is for networks that leave the first skip connection unused; with downsample_last all are used"
            raise RuleBroken("head_skip", rule, True, "leave one of the two out")
        return self

    @property
    def widest(self) -> int:
        """Channels of the widest level."""
        return self.dim * max(self.dim_mults)

    @property
    def downsampling(self) -> int:
        """Factor between the input's and the bottleneck's height and width."""
        return self.patch * int(2 ** (len(self.dim_mults) - (0 if self.downsample_last else 1)))


SIGMA_DATA = 0.5  # EDM's (Karras et al. 2022, table 1)


class DiffusionConfig(Section):
    """The forward process and what the network learns of it; docs/model.md and `diffusion.process` have the maths."""

    beta_schedule: Literal["linear", "cosine", "sigmoid"] = Field(
        "cosine", description="how the variance of the noise grows with the timestep"
    )
    num_train_timesteps: Annotated[int, Field(ge=2, le=10_000)] = Field(1000, description="T, the length of the chain")
    prediction_type: Literal["epsilon", "v_prediction", "edm", "flow"] = Field(
        "epsilon",
        description="the network's target: the noise; v = sqrt(abar) noise - sqrt(1 - abar) x_0; EDM's preconditioned "
        "clean slice; or the velocity noise - x_0 of the linear path (flow matching)",
    )
    sigma_data: PositiveFloat = Field(
        SIGMA_DATA,
        exclude_if=lambda sigma: sigma == SIGMA_DATA,
        description="edm: spread of the slices' intensities in [-1, 1], by which inputs and targets are scaled",
    )
    intensity_gamma: Annotated[float, Field(ge=0.25, le=2)] = Field(
        1,
        exclude_if=is_one,
        description="tone curve: the network sees 2 (p / 255)^gamma - 1 of an intensity p, and what it draws is turned "
        "back; below 1 spreads the dark end, 0.5 is usual",
    )
    loss: Literal["smooth_l1", "l1", "l2"] = Field("smooth_l1", description="between prediction and target")
    min_snr_gamma: PositiveFloat | None = Field(
        None, description="min-SNR loss weights with this gamma, 5 is usual; default: every timestep weighs the same"
    )

    @model_validator(mode="after")
    def _only_edm_has_a_spread(self) -> "DiffusionConfig":
        if self.sigma_data != SIGMA_DATA and self.prediction_type != "edm":
            rule = f"is for prediction_type: edm, not for {self.prediction_type}"
            raise RuleBroken("sigma_data", rule, self.sigma_data, "leave it out")
        return self


class AdversarialConfig(Section):
    """How a GAN's generator and discriminator are set against each other; each family has its published defaults.

    The defaults below are DCGAN's; `families.published` has the others. Only WGANs call the discriminator a critic.
    """

    optimizer: Literal["adam", "rmsprop"] = Field("adam", description="of both networks")
    betas: tuple[Beta, Beta] | None = Field(None, description="of Adam; default 0.5, 0.999")
    lr_discriminator: Annotated[float, Field(gt=0, le=1)] | None = Field(None, description="default: training.lr")
    n_critic: PositiveInt = Field(1, description="discriminator updates, each on a new batch, for one of the generator")
    clip: PositiveFloat | None = Field(None, description="wgan: bound of each weight of the critic")
    gradient_penalty: PositiveFloat | None = Field(
        None, description="weight of the penalty on the critic's gradient, 10 is usual; for wgan instead of clip"
    )
    discriminator_norm: Literal["spectral", "group", "none"] = Field(
        "spectral", description="normalisation in the discriminator; not spectral where weights are clipped"
    )

    @model_validator(mode="before")
    @classmethod
    def _adam_has_betas(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("optimizer", "adam") == "adam" and values.get("betas") is None:
            return {**values, "betas": (0.5, 0.999)}
        return values

    @model_validator(mode="after")
    def _only_adam_has_betas(self) -> "AdversarialConfig":
        if self.optimizer == "rmsprop" and self.betas is not None:
            raise RuleBroken("betas", "betas are Adam's, the optimizer is rmsprop", self.betas, "leave them out")
        return self

    def check(self, family: str) -> None:
        """Refuse a critic that the family's loss does not allow.

        Raises:
            RuleBroken: with the whole key, `adversarial.`...
        """
        if family != "wgan" and self.clip is not None:
            raise RuleBroken("adversarial.clip", f"is for wgan, not for {family}", self.clip, "leave it out")
        if family == "wgan" and (self.clip is None) == (self.gradient_penalty is None):
            raise RuleBroken(
                "adversarial.clip",
                "wgan needs either clip or gradient_penalty to bound its critic",
                {"clip": self.clip, "gradient_penalty": self.gradient_penalty},
                "set one of them to null" if self.clip is not None else "give one of them",
            )
        if self.clip is not None and self.discriminator_norm == "spectral":
            raise RuleBroken(
                "adversarial.discriminator_norm",
                "must not rescale the weights that clip bounds, so that one undoes the other",
                self.discriminator_norm,
                "take group or none",
            )
