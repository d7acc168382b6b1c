"""The model card of a registered version: what it is, what it was made from, how good it is, what it is not for."""

from lwddpm.config import TrainJob
from lwddpm.data.store import Dataset
from lwddpm.evaluation.result import EvaluationResult
from lwddpm.training.checkpoint import SavedModel


def model_card(job: TrainJob, saved: SavedModel, dataset: Dataset, evaluation: EvaluationResult | None) -> str:
    """Markdown with YAML front matter, as model hubs read it."""
    manifest = dataset.manifest
    source = "simulated phantoms (no patient data)" if saved.dataset_simulated else manifest.source
    splits = ", ".join(f"{split.num} {name}" for name, split in manifest.splits.items())
    length = f"{saved.step} steps ({saved.epoch:.1f} epochs)"
    diffusion, training = job.diffusion, job.training
    return f"""---
library_name: lwddpm
pipeline_tag: unconditional-image-generation
tags: [diffusion, mri, brain, synthetic{", simulated-training-data" if saved.dataset_simulated else ""}]
---
# {job.registry.name if job.registry else job.name}

Unconditional generator of 2D brain MRI slices, {saved.image_size}x{saved.image_size}, one channel.

**Not for diagnosis.** Every image it draws is synthetic and shows no real person's anatomy; details inside the
brain are invented. Do not mix its images with clinical records, and mark them as synthetic wherever they go.

| | |
|---|---|
| network | U-Net, {job.model.family}, attention `{job.model.attention}`, {saved.parameters:,} parameters |
| diffusion | {diffusion.num_train_timesteps} steps, {diffusion.beta_schedule} schedule, {diffusion.prediction_type}, \
{diffusion.loss} loss |
| training | {length}, batch {training.batch_size}, Adam {training.lr:g}, EMA {training.ema_decay:g}, seed {job.seed} |
| data | {source}; version `{dataset.version[:16]}`; {splits} |
| duplicates | {manifest.duplicates.exact_copies} exact copies, {manifest.duplicates.near_pairs} near-duplicate pairs, \
none across splits |

## Evaluation

{evaluation.table() if evaluation else "Not evaluated."}

A Fréchet distance or SSIM can be read only beside its real-versus-real floor, and compared only with numbers of the
same protocol, extractor, image size and n.

## Limits

- Trained on slices without patient identifiers unless `data.subject_pattern` was given: neighbouring slices of one
  patient may lie in different splits, which flatters every number.
- No memorisation audit has been made: assume that it may reproduce training slices.

Source: lightweight denoising diffusion for brain MRI synthesis, Peng, Chen, Saruta, Terata 2024.
"""
