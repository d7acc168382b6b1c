"""The measurements of a comparison: each made once, kept in its folder, and read there when the job is continued.

samples/KEY.npy         generated slices; fewer of them are the first ones
measurements/KEY.json   EvaluationResult
features/KEY.npy        features of a set of slices

A file that cannot be read, such as one of another version, counts as missing.
"""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from lwddpm.cluster.generate import feature_extraction, generate_images, settled
from lwddpm.cluster.session import Session
from lwddpm.config import UNGUIDED, EvaluationConfig, SamplingConfig, SamplingT
from lwddpm.data.store import Dataset
from lwddpm.diffusion.gaussian import SliceGaussian, fit_gaussian
from lwddpm.evaluation.protocol import evaluate, num_evaluated
from lwddpm.evaluation.result import EvaluationResult
from lwddpm.evaluation.subset import random_subset
from lwddpm.families import SAMPLER
from lwddpm.files import whole_file, write_whole
from lwddpm.kinds.evaluate import Evaluation, reconstruction
from lwddpm.kinds.saved_model import calls_of, labels_of
from lwddpm.training.fitted_prior import FITTED_ON
from lwddpm.training.stored_guide import GUIDE_FOLDER, has_guide
from lwddpm.training.stored_model import read_saved_model
from lwddpm.training.stored_prior import PRIOR_FILE


class MeasurementCache:
    """Samples and measures saved models on one dataset; what it has made before it reads.

    Where a model folder is None, the Gaussian of the dataset's training slices draws instead of a model.
    """

    def __init__(self, folder: Path, dataset: Dataset, session: Session, inception_weights: str | None) -> None:
        self.dataset, self.session = dataset, session
        self.folder = folder
        self._extract = feature_extraction(session, inception_weights)

    def samples(self, model_dir: Path | None, sampling: SamplingConfig, count: int) -> np.ndarray:
        """Samples 0..count-1 of a model, uint8 [count, S, S]."""
        path = self._samples_file(model_dir, sampling)
        kept = _read_array(path)
        if kept is not None and len(kept) >= count:
            return kept[:count]
        if model_dir is None:
            images = self.gaussian.draw(range(count), sampling.seed).numpy()
        else:
            images = generate_images(model_dir, sampling, count, self.session)
        _save_array(path, images)
        return images

    def evaluation(self, model_dir: Path | None, config: EvaluationConfig) -> EvaluationResult:
        """The evaluation of a model's samples, as `config` says."""
        path = self._measurement_file(model_dir, config)
        kept = _read_result(path)
        if kept is not None:
            return kept
        images = self.samples(model_dir, config, num_evaluated(self.dataset, config))
        reconstruct = None if model_dir is None else reconstruction(model_dir, config, self.session)
        calls = asked = None
        if model_dir is not None:
            asked = labels_of(config, read_saved_model(model_dir), len(images))
            config, calls = settled(config, self.session), calls_of(config, model_dir)
        result = evaluate(
            images,
            self.dataset,
            config,
            extract=self.features,
            reconstruct=reconstruct,
            network_calls=calls,
            asked=asked,
        )
        write_whole(path, result.model_dump_json())
        return result

    def add(self, model_dir: Path, config: EvaluationConfig, evaluation: Evaluation) -> None:
        """Keep what was measured elsewhere with the same settings."""
        _save_array(self._samples_file(model_dir, config), evaluation.samples)
        write_whole(self._measurement_file(model_dir, config), evaluation.result.model_dump_json())

    def has(self, model_dir: Path | None, config: EvaluationConfig) -> bool:
        """Whether `evaluation` reads its result rather than measures."""
        return _read_result(self._measurement_file(model_dir, config)) is not None

    @cached_property
    def gaussian(self) -> SliceGaussian:
        """The Gaussian of the training slices; of a large split, of a random draw."""
        return fit_gaussian(torch.tensor(random_subset(self.dataset.images("train"), FITTED_ON)))

    def features(self, name: str, images: np.ndarray) -> torch.Tensor:
        """Features of slices, float32 [N, D]; a set is sent through a network once."""
        content = hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()
        path = self._file("features", f"{name}-{len(images)}-{content[:16]}.npy")
        kept = _read_array(path)
        if kept is not None:
            return torch.from_numpy(kept)
        features = self._extract(name, images)
        _save_array(path, features.numpy())
        return features

    def _samples_file(self, model_dir: Path | None, sampling: SamplingConfig) -> Path:
        settings = {name: getattr(sampling, name) for name in ("sampler", "num_inference_steps", "eta", "seed")}
        # as in a digest: what is left open leaves the names of earlier versions' files as they were
        sampling = self._as_drawn(model_dir, sampling)
        further = {"start", "calibrate", "timestep_spacing", "precision", "truncation", "conditions", "like", *UNGUIDED}
        settings |= sampling.model_dump(mode="json", include=further)
        return self._file("samples", f"{_digest(self._identity(model_dir), settings)}.npy")

    def _measurement_file(self, model_dir: Path | None, config: EvaluationConfig) -> Path:
        config = self._as_drawn(model_dir, config)
        key = _digest(self._identity(model_dir), config.model_dump(mode="json"), self.dataset.version)
        return self._file("measurements", f"{key}.json")

    def _as_drawn(self, model_dir: Path | None, sampling: SamplingT) -> SamplingT:
        """The settings in the name of a file: bf16 where `auto` comes to that, so that slices which an earlier version
        or another machine has drawn in float32 are not taken for its own."""
        drawn = model_dir is not None and sampling.sampler != SAMPLER and sampling.precision == "auto"
        return sampling.model_copy(update={"precision": "bf16"}) if drawn and self._precision == "bf16" else sampling

    @cached_property
    def _precision(self) -> str:
        return settled(SamplingConfig(), self.session).precision

    def _identity(self, model_dir: Path | None) -> str:
        if model_dir is None:
            return f"gaussian-{self.dataset.version}"
        saved = read_saved_model(model_dir)
        prior = model_dir / PRIOR_FILE
        calibrated = f"-{hashlib.sha256(prior.read_bytes()).hexdigest()[:16]}" if prior.exists() else ""
        guide = f"-guided-by-{read_saved_model(model_dir / GUIDE_FOLDER).step}" if has_guide(model_dir) else ""
        return f"{saved.training_digest}-{saved.dataset_version}-{saved.step}{calibrated}{guide}"

    def _file(self, kind: str, name: str) -> Path:
        folder = self.folder / kind
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _read_result(path: Path) -> EvaluationResult | None:
    try:
        return EvaluationResult.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _read_array(path: Path) -> np.ndarray | None:
    try:
        array: np.ndarray = np.load(path, allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return array


def _save_array(path: Path, array: np.ndarray) -> None:
    with whole_file(path) as partial, partial.open("wb") as stream:
        np.save(stream, array)
