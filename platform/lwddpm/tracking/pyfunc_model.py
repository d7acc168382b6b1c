"""The model as MLflow serves it ("models from code": this file is stored with the model, nothing is pickled).

Input: one row with `count`, `seed` and `preset`, a named way to draw; single settings on top: for diffusion models
`steps`; for those with a guide also `guidance`, and `guidance_low` and `guidance_high`, the noise levels between which
it guides; for those with conditions also `condition_guidance` and these, such as `label`: what is not named is drawn
like the training slices; for GANs `truncation`. Without a preset it is `evaluated`, if the model has that. Output:
uint8 images [count, H, W].
"""

import functools
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch

from lwddpm.config import NO_PRESET, ONE_PASS, SamplingConfig, check_asked
from lwddpm.diffusion.sampling import generate
from lwddpm.models.precision import settled_precision
from lwddpm.training.stored_model import load_for_drawing, load_guide
from lwddpm.training.stored_presets import read_presets
from lwddpm.training.stored_prior import read_prior

MAX_COUNT = 1024  # one request must not fill the server's memory


class LwddpmModel(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        folder = Path(context.artifacts["model"])
        precision = settled_precision("auto", self.device)
        batch_size = SamplingConfig.model_fields["batch_size"].default
        self.network, self.saved = load_for_drawing(folder, precision, self.device, batch_size)
        self.prior = read_prior(folder, self.saved.image_size)
        self.guide = load_guide(folder, precision, self.device, batch_size)
        self.presets = read_presets(folder)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> np.ndarray:
        """Draw `count` slices; image i depends on (seed, i) alone."""
        row = pd.DataFrame(model_input).iloc[0].dropna().to_dict()
        count, seed = int(row.get("count", 1)), int(row.get("seed", 0))
        limit = self.saved.diffusion.num_train_timesteps if self.saved.diffusion else 1  # a GAN draws in one pass
        steps = int(row.get("steps", 1))
        if not 1 <= count <= MAX_COUNT or not 1 <= steps <= limit or seed < 0:
            raise ValueError(
                f"1 <= count <= {MAX_COUNT}, 1 <= steps <= {limit} and seed >= 0 must hold, "
                f"got count {count}, steps {steps}, seed {seed}"
            )
        settings = self._settings({"seed": seed, **self._given(row)})
        vocabulary = self.saved.conditions
        if vocabulary is not None:
            asked = {name: str(row[name]) for name in vocabulary.names if name in row}
            settings = check_asked(settings.model_copy(update={"conditions": asked}), vocabulary, "row")
        draw = functools.partial(
            generate, self.network, self.saved.diffusion, settings, prior=self.prior, guide=self.guide
        )
        return draw(range(count), self.saved.image_size, self.device).numpy()

    def _settings(self, given: dict[str, Any]) -> SamplingConfig:
        """Those of the preset and what is given on top; without a preset a fast sampler."""
        name, settings = self.presets.resolved(SamplingConfig.model_validate(given), "preset")
        if name != NO_PRESET:
            return settings
        usual = {"sampler": "dpmsolver++", "num_inference_steps": 20} if self.saved.diffusion else ONE_PASS
        return SamplingConfig.model_validate({**usual, **given, "preset": None})

    def _given(self, row: dict[Any, Any]) -> dict[str, Any]:
        """Sampling settings that a row gives, checked."""
        names = ("guidance", "condition_guidance", "truncation", "preset")
        given = {name: row[name] for name in names if name in row}
        given |= {"num_inference_steps": row["steps"]} if "steps" in row else {}
        if given.get("condition_guidance", 1) != 1 and not self.saved.draws_without_conditions:
            raise ValueError(
                "condition_guidance takes a model with conditions that were left out in training at times, got "
                f"{given['condition_guidance']:g}"
            )
        alone = self.guide is None and not self.saved.draws_without_conditions
        if given.get("guidance", 1) != 1 and alone:
            raise ValueError(
                f"guidance takes a model with a guide, which this one was stored without, got {given['guidance']:g}"
            )
        if "truncation" in given and self.saved.diffusion is not None:
            raise ValueError("truncation takes a GAN, and this is a diffusion model; leave it out")
        between = [row.get(f"guidance_{end}") for end in ("low", "high")]
        if (between[0] is None) != (between[1] is None):
            raise ValueError(f"guidance_low and guidance_high are given together, got {between[0]} and {between[1]}")
        return given if between[0] is None else given | {"guidance_interval": between}


mlflow.models.set_model(LwddpmModel())
