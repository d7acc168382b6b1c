"""The model as MLflow serves it ("models from code": this file is stored with the model, nothing is pickled).

Input: one row with `count`, `seed` and, for diffusion models, `steps`; for those with a guide also `guidance`, and
`guidance_low` and `guidance_high`, the noise levels between which it guides; for those with conditions also these, such
as `label`: what is not named is drawn like the training slices. Output: uint8 images [count, H, W].
"""

import functools
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch

from lwddpm.config import SamplingConfig, check_asked
from lwddpm.diffusion.sampling import generate
from lwddpm.families import SAMPLER
from lwddpm.models.precision import settled_precision
from lwddpm.training.checkpoint import load_for_drawing, load_guide
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

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> np.ndarray:
        """Draw `count` slices; image i depends on (seed, i) alone."""
        row = pd.DataFrame(model_input).iloc[0].dropna().to_dict()
        diffusion = self.saved.diffusion
        usual, limit = (20, diffusion.num_train_timesteps) if diffusion else (1, 1)  # a GAN draws in one pass
        count, seed, steps = int(row.get("count", 1)), int(row.get("seed", 0)), int(row.get("steps", usual))
        if not 1 <= count <= MAX_COUNT or not 1 <= steps <= limit or seed < 0:
            raise ValueError(
                f"1 <= count <= {MAX_COUNT}, 1 <= steps <= {limit} and seed >= 0 must hold, "
                f"got count {count}, steps {steps}, seed {seed}"
            )
        sampler = "dpmsolver++" if diffusion else SAMPLER
        settings = SamplingConfig(sampler=sampler, num_inference_steps=steps, seed=seed, **self._guidance(row))
        vocabulary = self.saved.conditions
        if vocabulary is not None:
            asked = {name: str(row[name]) for name in vocabulary.names if name in row}
            settings = check_asked(settings.model_copy(update={"conditions": asked}), vocabulary, "row")
        draw = functools.partial(generate, self.network, diffusion, settings, prior=self.prior, guide=self.guide)
        return draw(range(count), self.saved.image_size, self.device).numpy()

    def _guidance(self, row: dict[Any, Any]) -> dict[str, Any]:
        """Settings of guidance that a row gives, checked."""
        weight, between = float(row.get("guidance", 1)), [row.get(f"guidance_{end}") for end in ("low", "high")]
        if weight != 1 and self.guide is None and not (self.saved.conditions and self.saved.conditions.dropout):
            raise ValueError(f"guidance takes a model with a guide, which this one was stored without, got {weight:g}")
        if (between[0] is None) != (between[1] is None):
            raise ValueError(f"guidance_low and guidance_high are given together, got {between[0]} and {between[1]}")
        return {"guidance": weight, "guidance_interval": None if between[0] is None else between}


mlflow.models.set_model(LwddpmModel())
