"""The step of the GANs: a generator and a discriminator set against each other, and their losses.

Losses are pure functions of scores, float [B], higher meaning more real. One step is `n_critic` updates of the
discriminator, each on a batch of its own, and one of the generator (Arjovsky et al. 2017, algorithm 1; 1 and 1 gives
Goodfellow et al. 2014, algorithm 1).
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lwddpm.config import ONE_PASS, SamplingConfig, TrainJob
from lwddpm.data.store import Dataset
from lwddpm.models.gan import Discriminator
from lwddpm.models.precision import Precision
from lwddpm.training.batches import latent_draw, mixing_draw, rows_draw, training_draw
from lwddpm.training.schedule import Schedule
from lwddpm.training.step import TrainingStep

Scorer = Callable[..., Tensor]  # of slices, and of what they are to show


@dataclass(frozen=True)
class AdversarialLoss:
    """What each side minimises: of (real scores, generated scores), and of generated scores; both are means."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


LOSSES = {
    # Goodfellow et al. 2014 (arXiv:1406.2661), eq. 1 and the end of section 3: the generator maximises log D(G(z)).
    # Scores are logits: -log sigmoid(s) = softplus(-s), -log(1 - sigmoid(s)) = softplus(s).
    "gan": AdversarialLoss(
        lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
        lambda fake: F.softplus(-fake).mean(),
    ),
    # Arjovsky et al. 2017 (arXiv:1701.07875), eq. 3 and algorithm 1.
    "wgan": AdversarialLoss(
        lambda real, fake: fake.mean() - real.mean(),
        lambda fake: -fake.mean(),
    ),
    # Mao et al. 2017 (arXiv:1611.04076), eq. 9: labels 0 for generated, 1 for real and for what the generator wants.
    "lsgan": AdversarialLoss(
        lambda real, fake: 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean(),
        lambda fake: 0.5 * (fake - 1).square().mean(),
    ),
}


def gradient_penalty(critic: Scorer, real: Tensor, fake: Tensor, mixing: Tensor) -> Tensor:
    """Mean of (|gradient of the score| - 1)^2 on the lines between pairs: Gulrajani et al. 2017, eq. 3, without lambda.

    Args:
        real, fake: slices [B, 1, S, S].
        mixing: place on each line, [B] in [0, 1]: 1 is the real slice.
    """
    weight = mixing[:, None, None, None]
    between = (weight * real + (1 - weight) * fake).detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


@torch.no_grad()
def clip_weights(network: nn.Module, bound: float) -> None:
    """Bring every parameter into [-bound, bound]: Arjovsky et al. 2017, algorithm 1, line 7."""
    for parameter in network.parameters():
        parameter.clamp_(-bound, bound)


class AdversarialStep(TrainingStep):
    values = ("train/loss", "train/loss_discriminator", "train/grad_norm", "train/grad_norm_discriminator")
    loss_falls = False  # each side's loss rises as the other gets better

    def __init__(self, job: TrainJob, dataset: Dataset, schedule: Schedule, device: torch.device) -> None:
        super().__init__(job, dataset, schedule, device)
        assert job.adversarial is not None
        assert job.model.latent_dim is not None
        self.config, self.latent_dim = job.adversarial, job.model.latent_dim
        norm = self.config.discriminator_norm
        discriminator = Discriminator(job.model, dataset.manifest.image_size, norm, self.vocabulary)
        self.discriminator = self.precision.place(discriminator.to(device)).train()
        self.grid = SamplingConfig.model_validate(ONE_PASS)
        self.modules = {"model": self.model, "ema": self.ema.model, "discriminator": self.discriminator}
        self.optimizers = {
            "optimizer": self._optimizer(self.model),
            "optimizer_discriminator": self._optimizer(self.discriminator),
        }
        loss = LOSSES[job.model.family]
        self.generator_loss: nn.Module = _GeneratorLoss(self.model, self.discriminator, loss, self.precision)
        self.discriminator_loss: nn.Module = _DiscriminatorLoss(
            self.discriminator, loss, self.config.gradient_penalty, self.precision
        )

    def _optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        lr, parameters = self.job.training.lr, network.parameters()
        if self.config.optimizer == "rmsprop":
            return torch.optim.RMSprop(parameters, lr=lr)
        assert self.config.betas is not None
        return torch.optim.Adam(parameters, lr=lr, betas=self.config.betas, fused=self.device.type in ("cpu", "cuda"))

    def distribute(self) -> None:
        if self.precision.compile:
            self.model.compile()  # not the discriminator: compiled code has no second derivative for the penalty
        self.generator_loss, self.discriminator_loss = map(self.shared, (self.generator_loss, self.discriminator_loss))

    def take(self, step: int) -> dict[str, Tensor]:
        rate = self.learning_rate(step)
        rate_discriminator = rate * (self.config.lr_discriminator or self.job.training.lr) / self.job.training.lr
        updates = range(step * self.config.n_critic, (step + 1) * self.config.n_critic)
        of_updates = [self._update_discriminator(update, rate_discriminator) for update in updates]
        seeds = latent_draw(self.job.seed, step, self.job.training.batch_size)

        told_of_batch = self._asked(step)

        def loss(begin: int, end: int) -> Tensor:
            given = self._moved(told_of_batch, begin, end)
            return self._same_norms(self.generator_loss(self._latents(seeds[begin:end]), *given))

        self.discriminator.train()
        with _frozen(self.discriminator):
            loss_, norm = self.descend(self.generator_loss, loss, [self.optimizers["optimizer"]], rate)
        self.ema.update(self.model, step)
        loss_discriminator, norm_discriminator = of_updates[-1]
        return dict(zip(self.values, (loss_, loss_discriminator, norm, norm_discriminator), strict=True))

    def _update_discriminator(self, update: int, rate: float) -> tuple[Tensor, Tensor]:
        """Update number `update` of the discriminator, counted from 0 over all steps; its loss and gradient's norm."""
        config, seed = self.job.training, self.job.seed
        draw = training_draw(seed, update, config.batch_size, len(self.loader.images), 1, config.horizontal_flip)
        draw = self.rows_of(draw, update)
        told_of_batch = self.told_of_batch(draw.indices, update)
        mixing = mixing_draw(seed, update, config.batch_size)

        def loss(begin: int, end: int) -> Tensor:
            part = draw.part(begin, end)
            latents, given = self._latents(part.noise_seeds), self._moved(told_of_batch, begin, end)
            with torch.no_grad(), self.precision.autocast():
                fake = self.model(latents, *given).to(latents.dtype)
            loss = self.discriminator_loss(self.loader.slices(part), fake, self.loader.move(mixing[begin:end]), *given)
            return self._same_norms(loss)

        self.discriminator.train()
        loss_and_norm = self.descend(self.discriminator_loss, loss, [self.optimizers["optimizer_discriminator"]], rate)
        if self.config.clip is not None:
            clip_weights(self.discriminator, self.config.clip)
        return loss_and_norm

    def _asked(self, step: int) -> np.ndarray | None:
        """The conditions of the slices that the generator draws in a step: those of training slices."""
        config, seed = self.job.training, self.job.seed
        if self.order is not None:
            return self.told_of_batch(self.order.batch(seed, step, config.batch_size), step)
        return self.told_of_batch(rows_draw(seed, step, config.batch_size, len(self.loader.images)), step)

    def _moved(self, told_of_batch: np.ndarray | None, begin: int, end: int) -> list[Tensor]:
        return [] if told_of_batch is None else [self.loader.move(told_of_batch[begin:end])]

    def _same_norms(self, loss: Tensor) -> Tensor:
        """Let the further parts of an accumulated batch see the spectral norms of the first one.

        A forward pass in training mode refines them by one step of the power iteration, so that what is learnt would
        depend on the number of parts.
        """
        self.discriminator.eval()
        return loss

    def _latents(self, seeds: np.ndarray) -> Tensor:
        return self.loader.gaussian(seeds, self.latent_dim)


# The loss is computed inside a module's forward pass, so that DDP sees one forward and one backward pass a step,
# whatever happens between. The other side's network is called but is no submodule: DDP would share its gradients too.


class _GeneratorLoss(nn.Module):
    def __init__(
        self, generator: nn.Module, discriminator: Scorer, loss: AdversarialLoss, precision: Precision
    ) -> None:
        super().__init__()
        self.generator, self.loss, self.precision = generator, loss, precision
        self._discriminator = (discriminator,)  # in a tuple, so that it is no submodule

    def forward(self, latents: Tensor, *given: Tensor) -> Tensor:
        with self.precision.autocast():
            images = self.precision.place_input(self.generator(latents, *given))
            scores = self._discriminator[0](images, *given)
        return self.loss.generator(scores.to(latents.dtype))


class _DiscriminatorLoss(nn.Module):
    def __init__(
        self, discriminator: nn.Module, loss: AdversarialLoss, penalty: float | None, precision: Precision
    ) -> None:
        super().__init__()
        self.discriminator, self.loss, self.penalty, self.precision = discriminator, loss, penalty, precision

    def forward(self, real: Tensor, fake: Tensor, mixing: Tensor, *given: Tensor) -> Tensor:
        both = self.precision.place_input(torch.cat([real, fake]))
        with self.precision.autocast():
            scores = self.discriminator(both, *(torch.cat([told, told]) for told in given))
        loss = self.loss.discriminator(*scores.to(real.dtype).chunk(2))
        if self.penalty is None:
            return loss
        self.discriminator.eval()  # the same spectral norms, as in `AdversarialStep._same_norms`
        critic = functools.partial(_scores, self.discriminator, given)
        return loss + self.penalty * gradient_penalty(critic, real, fake, mixing)


def _scores(discriminator: Scorer, given: Sequence[Tensor], images: Tensor) -> Tensor:
    return discriminator(images, *given)


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Without gradients for its parameters; what it computes stays differentiable in its input."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
