"""The measurements of a comparison: each made once, kept in its folder, and found there by a job that goes on.

samples/KEY.npy         generated slices; fewer of them are the first ones
measurements/KEY.json   EvaluationResult
features/KEY.npy        features of a set of slices
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lwddpm.cluster.generate import feature_extraction, generate_images
from lwddpm.cluster.session import Session
from lwddpm.config import EvaluationConfig, SamplingConfig
from lwddpm.data.store import Dataset
from lwddpm.evaluation.protocol import evaluate, num_evaluated
from lwddpm.evaluation.result import EvaluationResult
from lwddpm.files import whole_file, write_whole
from lwddpm.kinds.evaluate import reconstruction
from lwddpm.training.checkpoint import read_saved_model


class Bench:
    """Samples and measures saved models on one dataset, remembering everything."""

    def __init__(self, folder: Path, dataset: Dataset, session: Session, inception_weights: str | None) -> None:
        self.dataset, self.session = dataset, session
        self._folder = folder
        self._extract = feature_extraction(session, inception_weights)

    def samples(self, model_dir: Path, sampling: SamplingConfig, count: int) -> np.ndarray:
        """Samples 0..count-1 of a model, uint8 [count, S, S]."""
        path = self._path("samples", self._sampling_key(model_dir, sampling), "npy")
        if path.exists():
            kept: np.ndarray = np.load(path, allow_pickle=False)
            if len(kept) >= count:
                return kept[:count]
        images = generate_images(model_dir, sampling, count, self.session)
        _save_array(path, images)
        return images

    def measure(self, model_dir: Path, config: EvaluationConfig) -> EvaluationResult:
        """Evaluate samples of a model, as `config` says."""
        path = self._path("measurements", self._measurement_key(model_dir, config), "json")
        if path.exists():
            return EvaluationResult.model_validate_json(path.read_text())
        images = self.samples(model_dir, config, num_evaluated(self.dataset, config))
        reconstruct = reconstruction(model_dir, config, self.session)
        result = evaluate(images, self.dataset, config, extract=self.features, reconstruct=reconstruct)
        write_whole(path, result.model_dump_json())
        return result

    def adopt(self, model_dir: Path, config: EvaluationConfig, images: np.ndarray, result: EvaluationResult) -> None:
        """Take over what an evaluation of the same settings has made already."""
        _save_array(self._path("samples", self._sampling_key(model_dir, config), "npy"), images)
        path = self._path("measurements", self._measurement_key(model_dir, config), "json")
        write_whole(path, result.model_dump_json())

    def knows(self, model_dir: Path, config: EvaluationConfig) -> bool:
        """Whether `measure` would find its result."""
        return self._path("measurements", self._measurement_key(model_dir, config), "json").exists()

    def features(self, name: str, images: np.ndarray) -> torch.Tensor:
        """Features of slices, float32 [N, D]; a set is sent through a network once."""
        content = hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()
        path = self._path("features", f"{name}-{len(images)}-{content[:16]}", "npy")
        if path.exists():
            return torch.from_numpy(np.load(path, allow_pickle=False))
        features = self._extract(name, images)
        _save_array(path, features.numpy())
        return features

    def _path(self, kind: str, key: str, ending: str) -> Path:
        folder = self._folder / kind
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{key}.{ending}"

    def _sampling_key(self, model_dir: Path, sampling: SamplingConfig) -> str:
        settings = {name: getattr(sampling, name) for name in ("sampler", "num_inference_steps", "eta", "seed")}
        return _digest(self._model_key(model_dir), settings)

    def _measurement_key(self, model_dir: Path, config: EvaluationConfig) -> str:
        return _digest(self._model_key(model_dir), config.model_dump(mode="json"), self.dataset.version)

    @staticmethod
    def _model_key(model_dir: Path) -> str:
        saved = read_saved_model(model_dir)
        return f"{saved.training_digest}-{saved.dataset_version}-{saved.step}"


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _save_array(path: Path, array: np.ndarray) -> None:
    with whole_file(path) as partial, partial.open("wb") as stream:
        np.save(stream, array)
