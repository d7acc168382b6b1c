"""The step of the diffusion models: predict noise or another target in noised slices (Ho et al. 2020, algorithm 1)."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lwddpm.config import SamplingConfig, TrainJob
from lwddpm.data.store import Dataset
from lwddpm.diffusion.process import DiffusionProcess, timestep_cdf
from lwddpm.models.blocks import zeroed
from lwddpm.models.unet import whole_coordinates
from lwddpm.training.augmentation import CHANGES, augmentation_draw, augmented
from lwddpm.training.batches import BatchLoader, training_draw, validation_draw
from lwddpm.training.crops import crop_draw, cropped, on_crops
from lwddpm.training.ema import PowerFunctionAverage, average_name
from lwddpm.training.loss_weight import LossWeight
from lwddpm.training.muon import Muon, is_matrix
from lwddpm.training.schedule import Schedule
from lwddpm.training.step import TrainingStep
from lwddpm.training.vocabulary import told_of

GRID_STEPS = 50
CHOSEN_ON = 1024  # validation slices at most, by which an average is chosen


class DenoisingStep(TrainingStep):
    values = ("train/loss", "train/grad_norm")
    loss_falls = True

    def __init__(self, job: TrainJob, dataset: Dataset, schedule: Schedule, device: torch.device) -> None:
        super().__init__(job, dataset, schedule, device)
        assert job.diffusion is not None
        self.process = DiffusionProcess(job.diffusion).to(device)
        self.num_timesteps = job.diffusion.num_train_timesteps
        log_sigma = job.training.log_sigma
        self.cdf = timestep_cdf(job.diffusion, *log_sigma).numpy() if log_sigma is not None else None
        # Not the evaluation's sampler: the other ranks wait, and 1000 steps would keep them waiting for minutes.
        self.grid = SamplingConfig(sampler="ddim", num_inference_steps=min(GRID_STEPS, self.num_timesteps))
        self.averages |= {length: PowerFunctionAverage(self.model, length) for length in job.training.ema_lengths}
        self.modules = {"model": self.model}
        self.modules |= {average_name(length): average.model for length, average in self.averages.items()}
        patches = job.training.patches
        self.side = dataset.manifest.image_size if patches is None else patches.side(dataset.manifest.image_size)
        self.network: nn.Module = self.model
        self.told: nn.Module | None = None
        if job.training.augment > 0:
            # for training alone: drawing tells of no change, and the layer has no bias
            told = zeroed(nn.Linear(len(CHANGES), job.model.dim, bias=False, device=device))
            self.modules["augmentation"] = self.told = told
        self.optimizers = self._optimizers(self.model, self.told)
        self.of_network = tuple(self.optimizers.values())
        self.weighted: nn.Module | None = None
        if job.training.loss_weighting == "learned":
            probabilities = np.diff(self.cdf, prepend=0) if self.cdf is not None else np.ones(self.num_timesteps)
            weight = LossWeight(self.process, torch.from_numpy(probabilities / probabilities.sum())).to(device)
            self.modules["loss_weight"] = self.weighted = weight
            self.optimizers["optimizer_loss_weight"] = self._adam(weight.parameters())

    def _optimizers(self, *networks: nn.Module | None) -> dict[str, torch.optim.Optimizer]:
        parameters = [parameter for network in networks if network is not None for parameter in network.parameters()]
        if self.job.training.optimizer == "adam":
            return {"optimizer": self._adam(parameters)}
        return {
            "optimizer": self._adam(parameter for parameter in parameters if not is_matrix(parameter)),
            "optimizer_matrices": Muon(filter(is_matrix, parameters), lr=self.job.training.lr),
        }

    def _adam(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        config, fused = self.job.training, self.device.type in ("cpu", "cuda")
        return torch.optim.Adam(parameters, lr=config.lr, betas=config.adam_betas, fused=fused)

    def distribute(self) -> None:
        if self.precision.compile:
            # In place: the names in checkpoints stay the same. Slices and crops each get kernels of their own, instead
            # of slower ones for any size.
            self.model.compile(dynamic=None if self.job.training.patches is None else False)
        self.network = self.shared(self.model)
        if self.told is not None:
            self.told = self.shared(self.told)
        if self.weighted is not None:
            self.weighted = self.shared(self.weighted)

    def take(self, step: int) -> dict[str, Tensor]:
        config, seed = self.job.training, self.job.seed
        num_images = len(self.loader.images)
        flip, sampling = config.horizontal_flip, config.timestep_sampling
        draw = training_draw(seed, step, config.batch_size, num_images, self.num_timesteps, flip, sampling, self.cdf)
        draw = self.rows_of(draw, step)
        told_of_batch = self.told_of_batch(draw.indices, step)
        all_changes = augmentation_draw(seed, step, config.batch_size, config.augment)
        corners = self._corners(step)
        unweighted = torch.zeros((), device=self.device)

        def loss(begin: int, end: int) -> Tensor:
            part, known = draw.part(begin, end), dict[str, Tensor]()
            x_0, timesteps = self.loader.slices(part), self.loader.move(part.timesteps)
            if self.told is not None:
                changes = self.loader.move(all_changes[begin:end])
                x_0, known["condition"] = augmented(x_0, changes), self.told(changes.to(x_0.dtype))
            if told_of_batch is not None:
                known["given"] = self.loader.move(told_of_batch[begin:end])
            if corners is not None:
                places, side = self.loader.move(corners[begin:end]), self.side
                known["coordinates"] = cropped(whole_coordinates(x_0), places, side)
                x_0 = cropped(x_0, places, side)
            noise = self.loader.gaussian(part.noise_seeds, *x_0.shape[1:])
            losses = self._losses(self.network, x_0, timesteps, noise, known)
            if self.weighted is None:
                return losses.mean()
            unweighted.add_(losses.detach().sum() * (self.world / config.batch_size))
            return self.weighted(losses, timesteps).mean()

        rate = self.learning_rate(step)
        loss_, norm = self.descend(self.network, loss, self.of_network, rate)
        if self.weighted is not None:
            loss_ = unweighted  # comparable with val/loss, and with a training without weights
            self.advance(self.optimizers["optimizer_loss_weight"], rate)
        for average in self.averages.values():
            average.update(self.model, step)
        return {"train/loss": loss_, "train/grad_norm": norm}

    def _corners(self, step: int) -> np.ndarray | None:
        """Where the crops of a step begin, int64 [B, 2]; None: it sees whole slices."""
        config = self.job.training
        if not on_crops(config.patches, step, self.schedule.num_steps):
            return None
        return crop_draw(self.job.seed, step, config.batch_size, self.dataset.manifest.image_size, self.side)

    def choose(self) -> dict[str, float]:
        """The average with the least loss on validation slices; the same slices, timesteps and noise for all."""
        count = min(CHOSEN_ON, self.dataset.num("validation"))
        if len(self.averages) == 1 or count == 0:
            return {}
        losses = {length: self._mean_loss(average.model, count) for length, average in self.averages.items()}
        self.kept_length = min(losses, key=losses.__getitem__)
        return {f"val/loss_{average_name(length)}": loss for length, loss in losses.items()}

    def validate(self) -> dict[str, float]:
        count = min(self.job.training.validation_samples, self.dataset.num("validation"))
        return {"val/loss": self._mean_loss(self.kept.model, count)} if count else {}

    @torch.no_grad()
    def _mean_loss(self, network: nn.Module, count: int) -> float:
        """Mean loss of so many validation slices, shared by the ranks."""
        images = self.dataset.images("validation")
        draw = validation_draw(self.job.seed, count, len(images), self.num_timesteps, self.cdf)
        loader = BatchLoader(images, self.device, self.loader.gamma)
        told = None if self.vocabulary is None else told_of(self.dataset, "validation", self.vocabulary)
        share = max(1, self.job.training.batch_size // self.world)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for begin in range(self.rank * share, count, self.world * share):
            part = draw.part(begin, begin + share)
            known = {} if told is None else {"given": loader.move(told[part.indices])}
            total += self._losses(network, *loader.load(part), known).double().sum()
        if self.world > 1:
            dist.all_reduce(total)
        return total.item() / count

    def _losses(
        self,
        network: nn.Module,
        x_0: Tensor,
        timesteps: Tensor,
        noise: Tensor,
        known: Mapping[str, Tensor] = {},
    ) -> Tensor:
        """The loss of each slice, [B].

        Args:
            known: what else the network is told, by the argument of its forward.
        """
        x_t = self.process.q_sample(x_0, timesteps, noise)
        prediction = self._predicted(network, x_t, timesteps, known)
        return self.process.losses(prediction, x_0, timesteps, noise)

    def _predicted(self, network: nn.Module, x_t: Tensor, timesteps: Tensor, known: Mapping[str, Tensor]) -> Tensor:
        x = self.precision.place_input(self.process.network_input(x_t, timesteps))
        with self.precision.autocast():
            prediction: Tensor = network(x, timesteps, **known)
        return prediction
