"""Choosing which model of a training is registered: the last, or the best of it and the snapshots.

A model that returns training slices has the least distance of all and is passed over (`evaluation.copying`).
The reported figures must not be those that were chosen by. So candidates are drawn from another seed, and compared with
the validation split; an evaluation compares with the training split.
"""

from pathlib import Path

import numpy as np
from pydantic import ValidationError

from lwddpm.cluster.exported import ExportedSeries
from lwddpm.cluster.generate import feature_extraction, generate_images, settled
from lwddpm.cluster.session import Session
from lwddpm.config import ONE_PASS, SamplingConfig, TrainJob
from lwddpm.data.store import Dataset
from lwddpm.errors import DataError
from lwddpm.evaluation.choice import MEASURE, Candidate, Choice
from lwddpm.evaluation.copying import copying
from lwddpm.evaluation.distances import ReferenceStatistics
from lwddpm.evaluation.subset import random_subset
from lwddpm.files import write_whole
from lwddpm.progress import say
from lwddpm.training.stored_model import read_saved_model

_KEPT = "choice.json"
_NUM_SAMPLES, _NUM_REFERENCE = 256, 1024
_SEED_APART = 2**62  # from the evaluation's, whose neighbours people take for repetitions
# More calls than this cost more than a choice is worth; DPM-Solver++ then says nearly the same in fewer.
_MOST_CALLS, _FAST = 50, {"sampler": "dpmsolver++", "num_inference_steps": 20, "eta": 0.0}


def check_choice(job: TrainJob, dataset: Dataset) -> None:
    """Refuse, before training, a dataset without slices to choose by.

    Raises:
        DataError: fewer than two validation slices.
    """
    chooses = job.registry is not None and job.registry.choose == "best"
    if chooses and dataset.num("validation") < 2:
        raise DataError(
            f"{dataset.path}: registry.choose: best compares snapshots with 2 or more validation slices, got "
            f"{dataset.num('validation')}; give validation a share in data.splits, or leave choose out"
        )


def chosen_model(
    job: TrainJob, dataset: Dataset, run_dir: Path, session: Session, exported: ExportedSeries
) -> tuple[Path, Choice | None]:
    """The model folder to evaluate and register, and what it was chosen by; None where nothing was to choose.

    The measurement is kept in the run folder, and made again when candidates or settings are others.
    """
    last = run_dir / "model"
    if job.registry is None or job.registry.choose == "last":
        return last, None
    folders = {read_saved_model(path).step: path for path in (*(run_dir / "snapshots").glob("epoch_*"), last)}
    sampling = settled(_sampling(job), session)
    reference = random_subset(dataset.images("validation"), _NUM_REFERENCE)
    choice = _kept(run_dir / _KEPT)
    looked = choice is not None and all(candidate.copied_share is not None for candidate in choice.candidates)
    if (
        choice is None
        or not looked
        or (choice.sampling, [c.step for c in choice.candidates]) != (sampling, sorted(folders))
    ):
        extract = feature_extraction(session, None, exported)
        statistics = ReferenceStatistics.of(extract(MEASURE, np.array(reference)))
        held_out = np.concatenate([dataset.images("validation"), dataset.images("test")])
        train, candidates, floor = np.array(dataset.images("train")), [], 0.0
        for step in sorted(folders):
            images = generate_images(folders[step], sampling, _NUM_SAMPLES, session, exported)
            distance = statistics.distance(extract(MEASURE, images))
            epoch, looked_at = read_saved_model(folders[step]).epoch, copying(images, held_out, train)
            floor = looked_at.floor  # of all alike
            candidates.append(
                Candidate(
                    epoch=epoch,
                    step=step,
                    fd_lite0=distance,
                    copies=looked_at.copies,
                    copied_share=looked_at.share,
                )
            )
        choice = Choice(
            candidates=tuple(candidates),
            n=_NUM_SAMPLES,
            num_reference=len(reference),
            sampling=sampling,
            copied_floor=floor,
        )
        write_whole(run_dir / _KEPT, choice.model_dump_json(indent=2))
    copiers = sum(bool(candidate.copies) for candidate in choice.candidates)
    if copiers:
        what = "no model is left that does not" if choice.best.copies else "they are not chosen"
        say(f"{job.name}: {copiers} of {len(folders)} models return training slices; {what}")
    say(f"{job.name}: of {len(folders)} models that of epoch {choice.best.epoch:g} is the best")
    return folders[choice.best.step], choice


def _sampling(job: TrainJob) -> SamplingConfig:
    """As the evaluation draws, in fewer calls where it takes many, from another seed."""
    if job.evaluation is not None:
        names = SamplingConfig.model_fields
        sampling = SamplingConfig.model_validate({name: getattr(job.evaluation, name) for name in names})
    else:
        sampling = SamplingConfig(**(ONE_PASS if job.diffusion is None else {}))
    changed: dict[str, object] = {"seed": (sampling.seed + _SEED_APART) % 2**63}
    if job.diffusion is not None and sampling.num_inference_steps > _MOST_CALLS:
        changed |= _FAST
    return sampling.model_copy(update=changed)


def _kept(file: Path) -> Choice | None:
    try:
        return Choice.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
