"""What a comparison measures of its trained networks: rows of the table, ablations, curves, histograms, pictures."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lwddpm import families
from lwddpm.config import DiffusionConfig, EvaluationConfig, Metric, Sampler, System
from lwddpm.diffusion.intensity import from_uint8, to_uint8
from lwddpm.diffusion.prior import Prior
from lwddpm.diffusion.process import DiffusionProcess, noise_schedule
from lwddpm.diffusion.sampling import denoising_trajectory
from lwddpm.diffusion.timesteps import planned_timesteps
from lwddpm.evaluation.inputs import reference_statistics
from lwddpm.evaluation.noise import noise_histograms
from lwddpm.evaluation.protocol import num_evaluated
from lwddpm.evaluation.result import EvaluationResult
from lwddpm.evaluation.sample_size import frechet_by_size
from lwddpm.files import read_json, write_json
from lwddpm.kinds.compare.comparison import Comparison
from lwddpm.kinds.compare.cost import measure_cost, measure_gaussian_cost
from lwddpm.kinds.compare.plan import (
    PlannedTraining,
    PlannedVariant,
    Start,
    from_other_start,
    protocol_of,
    unguided,
    without_network,
)
from lwddpm.kinds.saved_model import labels_of, start_of
from lwddpm.models.precision import settled_precision
from lwddpm.progress import bar, say
from lwddpm.report.data import GAUSSIAN, Cost, Images, Measurement, NoiseHistogram, SampleSize, row_key
from lwddpm.report.results import SSIM
from lwddpm.tracking.rundir import run_folder
from lwddpm.training.stored_model import load_for_drawing, load_guide, load_model, read_saved_model
from lwddpm.training.stored_prior import PRIOR_FILE, read_prior

SWEPT: tuple[Sampler, ...] = ("ddpm", "ddim", "dpmsolver++")
SHOWN, SHOWN_IN_A_ROW, SHOWN_OF_A_CLASS = 16, 8, 4  # slices in a picture
HISTOGRAM_SLICES = 64
STRIP_ROWS, STRIP_FRAMES = 4, 8
HELD_OUT = "real held-out slices"


class Measurer:
    """Makes all measurements of one comparison.

    Args:
        distance: the Fréchet distance to use where only one is wanted.

    Attributes:
        images: slices for the report's figures, collected on the way.
        warnings: of the evaluations, by label of the training.
    """

    def __init__(self, comparison: Comparison, distance: Metric) -> None:
        self.job, self.plan, self.dataset = comparison.job, comparison.plan, comparison.dataset
        self.session, self.cache, self.distance = comparison.session, comparison.cache, distance
        assert self.job.diffusion is not None
        self.diffusion = self.job.diffusion
        self.images = Images()
        self.warnings: dict[str, tuple[str, ...]] = {}

    def systems(self) -> Iterator[Measurement]:
        """Every system with every training and sampling seed, by the protocol."""
        for system, trainings in self.plan.systems.items():
            for training in trainings:
                for seed in self.job.compare.sampling_seeds:
                    config = protocol_of(self.job, system, seed)
                    result = self._measure(f"{system}, sampling seed {seed}", model_of(training), config)
                    self.warnings.setdefault(training.label, result.warnings)
                    yield _measurement("system", system, system, training.seed, config, result)
            self.images[f"samples/{system}"] = self._samples(trainings[0], system, SHOWN)
            self._picture_classes(trainings[0], system)

    def other_starts(self) -> Iterator[Measurement]:
        """The trained networks of the diffusion systems, sampled from the start that the protocol does not take."""
        for system, start in self.starts().items():
            trainings = self.plan.systems[system]
            for training in trainings:
                for seed in self.job.compare.sampling_seeds:
                    config = from_other_start(protocol_of(self.job, system, seed), start)
                    what = f"{system}, start from {start}, sampling seed {seed}"
                    result = self._measure(what, model_of(training), config)
                    yield _measurement("start", start, system, training.seed, config, result)
            first = from_other_start(protocol_of(self.job, system, self.job.compare.sampling_seeds[0]), start)
            self.images[f"samples/{row_key(system, start)}"] = self.cache.samples(model_of(trainings[0]), first, SHOWN)

    def starts(self) -> dict[System, Start]:
        """The other start of each diffusion system; empty where models have no prior to start from."""
        return {
            system: "noise"
            if start_of(protocol_of(self.job, system, 0), model_of(training)) == "gaussian"
            else "gaussian"
            for system, (training, *_) in self.plan.systems.items()
            if system not in families.ADVERSARIAL and (model_of(training) / PRIOR_FILE).exists()
        }

    def baseline(self) -> Iterator[Measurement]:
        """The Gaussian of the training slices: by the protocol, and once as curves are measured."""
        for seed in self.job.compare.sampling_seeds:
            config = without_network(self.job.protocol.model_copy(update={"seed": seed}))
            result = self._measure(f"a Gaussian without a network, sampling seed {seed}", None, config)
            yield _measurement("baseline", "protocol", GAUSSIAN, self.job.seed, config, result)
        config = without_network(self._proxy(self.job.compare.sampling_seeds[0]))
        result = self._measure("a Gaussian without a network, as the curves", None, config)
        yield _measurement("baseline", "curves", GAUSSIAN, self.job.seed, config, result)
        first = without_network(self.job.protocol.model_copy(update={"seed": self.job.compare.sampling_seeds[0]}))
        self.images[f"samples/{GAUSSIAN}"] = self.cache.samples(None, first, SHOWN)

    def variants(self) -> Iterator[Measurement]:
        """Every row of every ablation, by the proxy."""
        for variant in self.plan.variants:
            for seed in self.job.compare.sampling_seeds:
                config = self._proxy(seed)
                model_dir = model_of(variant.training)
                what = f"{variant.system}, {variant.ablation} {variant.label}, sampling seed {seed}"
                result = self._measure(what, model_dir, config)
                yield _measurement(
                    variant.ablation, variant.label, variant.system, variant.training.seed, config, result
                )
            self._picture(variant)

    def _picture(self, variant: PlannedVariant) -> None:
        images = self.cache.samples(
            model_of(variant.training), self._proxy(self.job.compare.sampling_seeds[0]), SHOWN_IN_A_ROW
        )
        self.images.setdefault(f"{variant.ablation}/{variant.system}/{variant.label}", images)

    def steps(self) -> Iterator[Measurement]:
        """LW-DDPM, or the first diffusion model, sampled by several samplers with few and many steps."""
        system = next((s for s in ("lw_ddpm", "ddpm") if s in self.plan.systems), None)
        if system is None:
            return
        training = self.plan.systems[system][0]
        for sampler in SWEPT:
            for steps in self.job.compare.inference_steps:
                if steps <= self.diffusion.num_train_timesteps:
                    changes = {"sampler": sampler, "num_inference_steps": steps, "eta": 0.0}
                    config = unguided(self._proxy(self.job.compare.sampling_seeds[0])).model_copy(update=changes)
                    result = self._measure(f"{sampler}, {steps} steps", model_of(training), config)
                    yield _measurement("steps", sampler, system, training.seed, config, result, x=steps)

    def epochs(self) -> Iterator[Measurement]:
        """Every system at the snapshots of its training and at its end, n as in the proxy."""
        for system, (training, *_) in self.plan.systems.items():
            proxy = self._proxy(self.job.compare.sampling_seeds[0])
            changes = {name: getattr(proxy, name) for name in ("metrics", "num_samples", "num_reference")}
            config = unguided(protocol_of(self.job, system, proxy.seed)).model_copy(update=changes)
            for epoch, model_dir in snapshots_of(training):
                result = self._measure(f"{system}, epoch {epoch:g}", model_dir, config)
                yield _measurement("epochs", system, system, training.seed, config, result, x=epoch)
                images = self.cache.samples(model_dir, config, SHOWN_IN_A_ROW)
                self.images[f"epochs/{system}/{epoch:g}"] = images

    def sample_sizes(self) -> Iterator[SampleSize]:
        """Fréchet distances of few and many slices, generated and real."""
        features: dict[str, torch.Tensor] = {}
        for system in ("lw_ddpm", "ddpm"):
            for training in self.plan.systems.get(system, [])[:1]:
                configs = [protocol_of(self.job, system, seed) for seed in self.job.compare.sampling_seeds]
                count = num_evaluated(self.dataset, configs[0])
                pools = [self.cache.samples(model_of(training), config, count) for config in configs]
                features[system] = torch.cat([self.cache.features(self.distance, pool) for pool in pools])
        held_out = np.concatenate([self.dataset.images(split) for split in ("validation", "test")])
        features[HELD_OUT] = self.cache.features(self.distance, held_out)
        reference = reference_statistics(self.distance, self.dataset, self.job.protocol, self.cache.features)
        for label, of_slices in features.items():
            for n, values in frechet_by_size(of_slices, reference, self.job.compare.sample_sizes).items():
                yield SampleSize(label=label, n=n, values=tuple(values))

    def noise(self) -> Iterator[NoiseHistogram]:
        """Predicted against true noise at the timesteps that each diffusion system visits."""
        held_out = np.concatenate([self.dataset.images(split) for split in ("validation", "test")])
        images = _evenly_spread(held_out, HISTOGRAM_SLICES)
        for system, (training, *_) in self.plan.systems.items():
            if system in families.ADVERSARIAL:
                continue
            model, saved = load_model(model_of(training), self._device)
            assert saved.diffusion is not None
            config = protocol_of(self.job, system, 0)
            process = DiffusionProcess(saved.diffusion).to(self._device)
            start = start_of(config, model_of(training))
            visited = planned_timesteps(process, config, prior_of_start(training, start)).tolist()
            histograms = noise_histograms(model, process, images, visited)
            yield NoiseHistogram(
                system=system,
                timesteps=len(visited),
                edges=tuple(histograms.edges.tolist()),
                true=tuple(map(tuple, histograms.true.tolist())),
                predicted=tuple(map(tuple, histograms.predicted.tolist())),
            )

    def strips(self) -> dict[str, tuple[int, ...]]:
        """Collect real slices, and the strips of noising and denoising; returns the noising steps in each frame."""
        real = _evenly_spread(self.dataset.images("test" if self.dataset.num("test") >= SHOWN else "train"), SHOWN)
        self.images["real"] = real
        frames, steps = noising_frames(real[:STRIP_ROWS], self.diffusion)
        self.images["forward"] = frames
        labels: dict[str, tuple[int, ...]] = {"forward": steps}
        system = next((s for s in ("lw_ddpm", "ddpm") if s in self.plan.systems), None)
        if system is not None:
            config = protocol_of(self.job, system, self.job.compare.sampling_seeds[0])
            model_dir = model_of(self.plan.systems[system][0])
            precision = settled_precision(config.precision, torch.device(self._device))
            model, saved = load_for_drawing(model_dir, precision, self._device, STRIP_ROWS)
            assert saved.diffusion is not None
            prior = read_prior(model_dir, saved.image_size)
            num = min(STRIP_FRAMES, config.num_inference_steps + 1)
            guide = load_guide(model_dir, precision, self._device, STRIP_ROWS)
            draw = partial(denoising_trajectory, prior=prior, guide=guide)
            denoised, left = draw(
                model, saved.diffusion, config, range(STRIP_ROWS), saved.image_size, self._device, num
            )
            self.images["reverse"], labels["reverse"] = denoised.numpy(), tuple(left.tolist())
        for index, label in enumerate(self.dataset.label_names):
            of_class = np.flatnonzero(self.dataset.labels("train") == index)
            if len(of_class):
                self.images[f"class/{label}"] = self.dataset.images("train")[_evenly_spread(of_class, SHOWN_IN_A_ROW)]
        return labels

    def costs(self) -> list[Cost]:
        """Costs of all systems, in rounds, so that other load of the machine falls on all alike; kept one by one."""
        file = self.cache.folder / "costs.json"
        kept: dict[str, dict[str, float]] = read_json(file) or {}
        # of each row: whose training it costs, and how it is sampled
        rows: dict[str, tuple[System, EvaluationConfig]] = {
            system: (system, protocol_of(self.job, system, 0)) for system in self.plan.systems
        }
        for system, start in self.starts().items():
            rows[row_key(system, start)] = (system, from_other_start(protocol_of(self.job, system, 0), start))
        rounds = self.job.compare.cost_rounds
        current: dict[str, list[dict[str, float]]] = {row: [] for row in (*rows, GAUSSIAN)}

        def keep(key: str, measured: Callable[[], dict[str, float]]) -> dict[str, float]:
            if key not in kept:
                kept[key] = measured()
                write_json(file, kept)
            return kept[key]

        with bar("measuring costs", rounds * len(current)) as progress:
            for number in range(rounds):
                for row, (system, sampling) in rows.items():
                    training = self.plan.systems[system][0]
                    # ddim is not trained, and another start takes no other training: what that cost is their cost too
                    steps = self.job.compare.cost_steps if row == system != "ddim" else 0
                    measure = partial(
                        measure_cost,
                        training.job,
                        self.dataset.path,
                        model_of(training),
                        sampling,
                        steps,
                        self.session,
                    )
                    # of all settings: memory and speed depend on how a step is computed, too
                    key = f"{row} {number} {training.job.earlier_training_digest()} {sampling.digest()}"
                    current[row].append(keep(key, measure))
                    progress.advance_to(sum(map(len, current.values())), row)
                key = f"{GAUSSIAN} {number} {self.dataset.version}"
                measure = partial(measure_gaussian_cost, self.cache.gaussian, self.session)
                current[GAUSSIAN].append(keep(key, measure))
                progress.advance_to(sum(map(len, current.values())), GAUSSIAN)
        costs = []
        for row, values in current.items():
            trained = "ddpm" if row in rows and rows[row][0] == "ddim" else row.partition("/")[0]
            named = {
                name: tuple(
                    {**base, **value}[name]
                    for value, base in zip(values, current[trained], strict=True)
                    if name in {**base, **value}
                )
                for name in ("images_per_s", "peak_memory_mib", "seconds_per_64")
            }
            costs.append(Cost(system=row, **named))
        return costs

    def _measure(self, what: str, model_dir: Path | None, config: EvaluationConfig) -> EvaluationResult:
        if not self.cache.has(model_dir, config):
            say(f"measuring {what}")
        return self.cache.evaluation(model_dir, config)

    def _picture_classes(self, training: PlannedTraining, system: System) -> None:
        """The first slices that a system drew of each class; none of systems that are told no class."""
        config = protocol_of(self.job, system, self.job.compare.sampling_seeds[0])
        count = num_evaluated(self.dataset, config)
        asked = labels_of(config, read_saved_model(model_of(training)), count)
        for label in self.dataset.label_names if asked is not None else ():
            of_class = [index for index, name in enumerate(asked or ()) if name == label]
            if of_class:
                images = self._samples(training, system, count)[of_class[:SHOWN_OF_A_CLASS]]
                self.images[f"asked/{system}/{label}"] = images

    def _samples(self, training: PlannedTraining, system: System, count: int) -> np.ndarray:
        config = protocol_of(self.job, system, self.job.compare.sampling_seeds[0])
        return self.cache.samples(model_of(training), config, count)

    def _proxy(self, seed: int) -> EvaluationConfig:
        metrics = tuple(name for name in (self.distance, SSIM) if name in self.job.protocol.metrics)
        return self.job.proxy.model_copy(update={"seed": seed, "metrics": metrics})

    @property
    def _device(self) -> str:
        return "cuda" if self.session.in_process and self.session.use_gpu else "cpu"


def model_of(training: PlannedTraining) -> Path:
    """Folder of the final model."""
    return run_folder(training.job) / "model"


def prior_of_start(training: PlannedTraining, start: Start) -> Prior | None:
    """The prior that sampling a trained diffusion model begins from; None: from noise."""
    return read_prior(model_of(training), training.job.data.image_size) if start == "gaussian" else None


def snapshots_of(training: PlannedTraining) -> list[tuple[float, Path]]:
    """(epoch, model folder) of the planned snapshots that were kept and of the end, rising."""
    planned = training.job.training.snapshot_epochs
    folders = (run_folder(training.job) / "snapshots").glob("epoch_*")
    kept = [(read_saved_model(folder).epoch, folder) for folder in folders]
    end = model_of(training)
    wanted = [(epoch, folder) for epoch, folder in kept if any(math.isclose(epoch, other) for other in planned)]
    return sorted([*wanted, (read_saved_model(end).epoch, end)])


def noising_frames(images: np.ndarray, diffusion: DiffusionConfig) -> tuple[np.ndarray, tuple[int, ...]]:
    """Slices uint8 [N, S, S] becoming noise.

    Returns:
        Frames uint8 [N, F, S, S], and the number of noising steps in each, from 0 to all.
    """
    process = DiffusionProcess(diffusion)
    counts = np.linspace(0, diffusion.num_train_timesteps, STRIP_FRAMES).round().astype(int)
    x_0 = from_uint8(torch.from_numpy(np.ascontiguousarray(images))[:, None], diffusion.intensity_gamma)
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    frames = [
        x_0 if count == 0 else process.q_sample(x_0, torch.full((len(x_0),), int(count) - 1), noise) for count in counts
    ]
    shown = [to_uint8(frame[:, 0], diffusion.intensity_gamma) for frame in frames]
    return torch.stack(shown, dim=1).numpy(), tuple(counts.tolist())


def snr_curves(diffusion: DiffusionConfig) -> dict[str, tuple[float, ...]]:
    """Signal-to-noise ratio at every timestep, for the schedules of the paper's Figure 9."""
    curves = {}
    for name in ("linear", "cosine"):
        abar = (1 - noise_schedule(name, diffusion.num_train_timesteps)).cumprod(0)
        curves[name] = tuple((abar / (1 - abar)).tolist())
    return curves


def _evenly_spread(items: Any, count: int) -> Any:
    """`count` of the rows, or all: rows of a dataset are ordered by source, so the first ones would be alike."""
    return np.ascontiguousarray(items[np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)])


def _measurement(
    group: str,
    label: str,
    system: str,
    training_seed: int,
    config: EvaluationConfig,
    result: EvaluationResult,
    x: float | None = None,
) -> Measurement:
    generated = [record for record in result.records if record.name != "ssim_reconstruction"]
    denoises = config.sampler != families.SAMPLER
    return Measurement(
        group=group,
        label=label,
        system=system,
        x=x,
        training_seed=training_seed,
        sampling_seed=config.seed,
        n=generated[0].n if generated else 0,
        num_reference=next((r.num_reference for r in generated if r.reference == "train" and r.num_reference), 0),
        sampler=config.sampler if denoises else None,
        inference_steps=config.num_inference_steps if denoises else None,
        values={record.name: record.value for record in result.figures},
        floors={record.name: record.floor for record in result.figures if record.floor is not None},
        parts={record.name: record.parts for record in result.records if record.parts},
        confusion=result.confusion,
    )
