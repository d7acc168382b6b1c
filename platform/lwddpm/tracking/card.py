"""The model card of a registered version: what it is, what it was made from, how good it is, what it is not for."""

from lwddpm.conditions import Category, Vocabulary
from lwddpm.config import TrainingConfig, TrainJob
from lwddpm.config.training import ADAM_BETAS
from lwddpm.data.store import Dataset
from lwddpm.diffusion.prior import Prior
from lwddpm.evaluation.choice import Choice
from lwddpm.evaluation.result import EvaluationResult
from lwddpm.training.stored_model import SavedModel
from lwddpm.training.stored_presets import Presets
from lwddpm.wording import measured, number


def model_card(
    job: TrainJob,
    saved: SavedModel,
    dataset: Dataset,
    evaluation: EvaluationResult | None,
    prior: Prior | None,
    choice: Choice | None = None,
) -> str:
    """Markdown with YAML front matter, as model hubs read it.

    Args:
        choice: by which this model was taken among the snapshots, if it was.
    """
    manifest = dataset.manifest
    source = "simulated phantoms (no patient data)" if saved.dataset_simulated else manifest.source
    splits = ", ".join(f"{split.num} {name}" for name, split in manifest.splits.items())
    length = f"{saved.step} steps ({saved.epoch:.1f} epochs)"
    training, kind = job.training, "gan" if job.diffusion is None else "diffusion"
    kind_of_generator = "Unconditional generator" if saved.conditions is None else "Generator"
    return f"""---
library_name: lwddpm
pipeline_tag: unconditional-image-generation
tags: [{kind}, mri, brain, synthetic{", simulated-training-data" if saved.dataset_simulated else ""}]
---
# {job.registry.name if job.registry else job.name}

{kind_of_generator} of 2D brain MRI slices, {saved.image_size}x{saved.image_size}, one channel.

**Not for diagnosis.** Every image it draws is synthetic and shows no real person's anatomy; details inside the
brain are invented. Do not mix its images with clinical records, and mark them as synthetic wherever they go.

| | |
|---|---|
{_method(job, saved, prior)}
| training | {length}, batch {training.batch_size}, {_optimizer(job)} {training.lr:g}, {_average(job, saved)}, \
{f"augmented with probability {training.augment:g}, " if training.augment else ""}{_crops(training)}seed {job.seed} |
| data | {source}; version `{dataset.version[:16]}`; {splits} |
| duplicates | {manifest.duplicates.exact_copies} exact copies, {manifest.duplicates.near_pairs} near-duplicate pairs, \
none across splits |

## Evaluation

{evaluation.table() if evaluation else "Not evaluated."}

A Fréchet distance or SSIM can be read only beside its real-versus-real floor, and compared only with numbers of the
same protocol, extractor, image size and n.
{_chosen(choice)}
## Release

`lwddpm models show` says whether this version passes the policy of its model. `lwddpm models dossier` writes the page
for whoever decides about its release: what was tested, who approved, and until when that counts.

## Limits

- Trained on slices without patient identifiers unless `data.subject_pattern` was given: neighbouring slices of one
  patient may lie in different splits, which flatters every number.
- Assume that it may reproduce training slices, unless an audit (`kind: audit`) of this version says otherwise.

Source: lightweight denoising diffusion for brain MRI synthesis, Peng, Chen, Saruta, Terata 2024.
"""


_PRESETS = "## Ways to draw\n"
_METRICS = ("fd_lite0", "precision_lite0", "recall_lite0", "coverage_lite0")


def with_presets(card: str, presets: Presets) -> str:
    """A card with the table of the model's presets, in place of the one that it has; before the limits."""
    before, _, rest = card.partition(f"\n{_PRESETS}")
    if rest:
        card = before + "\n## " + rest.partition("\n## ")[2] if "\n## " in rest else before + "\n"
    if not presets.presets:
        return card
    names = [name for name in _METRICS if any(name in preset.figures for preset in presets.presets.values())]
    heads = [*(f"{name} (floor)" for name in names), "n"]
    rows = [f"| preset | drawn with | network calls | {' | '.join(heads)} |", f"|---|---|---:|{'---:|' * len(heads)}"]
    for title, preset in presets.presets.items():
        cells = []
        for name in names:
            figure = preset.figures.get(name)
            floor = f" ({measured(figure.floor)})" if figure is not None and figure.floor is not None else ""
            cells.append("-" if figure is None else f"{measured(figure.value)}{floor}")
        n = next((f"{f.samplings} x {f.n}" if f.samplings > 1 else f"{f.n}" for f in preset.figures.values()), "-")
        rows.append(f"| `{title}` | {preset.words} | {number(preset.network_calls)} | {' | '.join([*cells, n])} |")
    reasons = [f"- `{title}`: {preset.why}" for title, preset in presets.presets.items() if preset.why]
    use = "`lwddpm sample MODEL --preset NAME`; without one, `evaluated`."
    section = "\n".join([f"\n{_PRESETS}", use, "", *rows, "", *reasons, ""])
    head, limits, tail = card.partition("\n## Limits\n")
    return f"{head.rstrip()}\n{section}{limits}{tail}" if limits else f"{card.rstrip()}\n{section}"


def _crops(training: TrainingConfig) -> str:
    patches = training.patches
    if patches is None or patches.share == 0:
        return ""
    until = f" of the first {patches.until:.0%} of the training" if patches.until < 1 else ""
    return f"{patches.share:.0%} of the steps on crops of {patches.size:g} of the side{until}, "


def _method(job: TrainJob, saved: SavedModel, prior: Prior | None) -> str:
    """Rows of the table: the network, how it learns and where it starts to draw."""
    model, diffusion, adversarial = job.model, job.diffusion, job.adversarial
    if diffusion is not None:
        layout = f", patches of {model.patch} x {model.patch}" if model.patch > 1 else ""
        layout += ", told where pixels lie" if model.coordinates else ""
        layout += ", first skip joined to the head" if model.head_skip else ""
        tone = f", intensities to the power of {diffusion.intensity_gamma:g}" if diffusion.intensity_gamma != 1 else ""
        network = f"U-Net, {model.family}, attention `{model.attention}`{layout}"
        told = f"| conditions | {_told(saved.conditions, job)} |\n" if saved.conditions is not None else ""
        return (
            f"| network | {network}, {saved.parameters:,} parameters |\n"
            f"| diffusion | {diffusion.num_train_timesteps} steps, {diffusion.beta_schedule} schedule, "
            f"{diffusion.prediction_type}, {diffusion.loss} loss{_levels(job)}{tone} |\n{told}"
            f"| drawing | {_start(prior)}{_guide(job)} |"
        )
    assert adversarial is not None
    bounds = {"clip": adversarial.clip, "gradient penalty": adversarial.gradient_penalty}
    settings = [f"{adversarial.n_critic} discriminator updates a step", f"{adversarial.discriminator_norm} norm"]
    settings += [f"{name} {value:g}" for name, value in bounds.items() if value is not None]
    return (
        f"| network | generator, {model.family}, {model.latent_dim} latent dimensions, {saved.parameters:,} parameters "
        f"|\n| discriminator | {', '.join(settings)} |"
    )


def _told(vocabulary: Vocabulary, job: TrainJob) -> str:
    """What slices can be asked for by, and how the network learnt it."""
    conditions = [
        f"{condition.name} ({', '.join(condition.values)})" if isinstance(condition, Category) else condition.name
        for condition in vocabulary.conditions
    ]
    learnt = f"left out of {vocabulary.dropout:.0%} of the samples in training"
    return f"{'; '.join(conditions)}; {learnt}" + (", classes balanced" if job.training.sampling == "balanced" else "")


def _chosen(choice: Choice | None) -> str:
    if choice is None:
        return ""
    return f"""
## Choice

The best of {len(choice.candidates)} models of one training (`registry.choose: best`): that of epoch \
{choice.best.epoch:g}.

{choice.table()}"""


def _start(prior: Prior | None) -> str:
    """How drawing begins, and what that keeps of the training slices."""
    if prior is None:
        return "from noise: no prior is stored"
    components, directions = prior.centres.shape
    mixture = "a Gaussian" if components == 1 else f"a mixture of {components} Gaussians"
    mixture += "" if prior.classes is None else ", each of one class where that has enough slices,"
    return (
        f"from the prior in `prior.safetensors`: the mean training slice, the {directions} directions of largest "
        f"variance and {mixture} in them, fitted to all training slices (docs/sampling.md says what they reveal)"
    )


def _levels(job: TrainJob) -> str:
    """How the training chooses and weighs noise levels, where it is not the usual way."""
    normal = job.training.log_sigma
    levels = f", ln sigma normal around {normal[0]:g} with {normal[1]:g}" if normal is not None else ""
    return levels + (", learned weights of noise levels" if job.training.loss_weighting == "learned" else "")


def _average(job: TrainJob, saved: SavedModel) -> str:
    """Of which steps the weights are the average, and how that was chosen."""
    kept, lengths = saved.ema_length, job.training.ema_lengths
    average = f"EMA {job.training.ema_decay:g}" if kept is None else f"EMA over {kept:g} of the training"
    if not lengths:
        return average
    others = [f"decay {job.training.ema_decay:g}", *(f"{length:g}" for length in lengths)]
    return f"{average} (of {', '.join(others)} that with the least loss on validation slices)"


def _guide(job: TrainJob) -> str:
    """What the model can be guided by."""
    if job.training.guide_epoch is None:
        return ""
    return f"; its guide in `guide/` is the network after {job.training.guide_epoch:g} epochs"


def _optimizer(job: TrainJob) -> str:
    if job.diffusion is not None:
        betas = job.training.adam_betas
        adam = "Adam" if betas == ADAM_BETAS else f"Adam (betas {betas[0]:g} and {betas[1]:g})"
        return adam if job.training.optimizer == "adam" else f"Muon, and {adam} for what is no matrix"
    return "RMSprop" if job.adversarial is not None and job.adversarial.optimizer == "rmsprop" else "Adam"
