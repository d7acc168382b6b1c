"""The trained model that consistency tuning begins with.

The run folder keeps a copy of it, so that a killed training goes on without the registry.
"""

from pathlib import Path

from lwddpm.config import DiffusionConfig, TrainJob
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError
from lwddpm.files import complete_folder, link_or_copy
from lwddpm.tracking import model_files, registry
from lwddpm.tracking.store import connect, tracking_uri
from lwddpm.training.consistency import TEACHER_FOLDER
from lwddpm.training.stored_guide import GUIDE_FOLDER, has_guide, write_guide
from lwddpm.training.stored_model import WEIGHTS_FILE, SavedModel, read_saved_model
from lwddpm.training.stored_prior import PRIOR_FILE

_OF_THE_LOSS = {"loss", "min_snr_gamma"}  # which tuning replaces


def settled(job: TrainJob) -> TrainJob:
    """The job with its teacher by number, where it is an alias, which may move.

    Raises:
        ConfigError: there is no such model.
    """
    if job.consistency is None or "@" not in job.consistency.teacher:
        return job
    connect(tracking_uri(job.tracking))
    version = registry.find_version(job.consistency.teacher)
    uri = f"models:/{version.name}/{version.version}"
    return job.model_copy(update={"consistency": job.consistency.model_copy(update={"teacher": uri})})


def keep_teacher(job: TrainJob, dataset: Dataset, folder: Path) -> None:
    """Put the teacher into a run folder, once, and its guide with it where it is led away from that.

    Raises:
        ConfigError: there is none, or it is not of this network, process and dataset, or it has no guide.
        CheckpointError: it cannot be read.
    """
    if job.consistency is None or (folder / TEACHER_FOLDER).exists():
        return
    connect(tracking_uri(job.tracking))
    model_dir = model_files.fetch_model(job.consistency.teacher, None)
    check_teacher(job, dataset, read_saved_model(model_dir))
    guided = job.consistency.guidance not in (None, 1)
    if guided and not has_guide(model_dir):
        raise ConfigError(
            f"consistency.guidance: leads the teacher away from its guide, and {job.consistency.teacher} has none, got "
            f"{job.consistency.guidance:g}; set 1, or train it with training.guide_epoch"
        )
    with complete_folder(folder / TEACHER_FOLDER) as copy:
        for name in ("config.json", WEIGHTS_FILE, PRIOR_FILE):
            if (model_dir / name).exists():
                link_or_copy(model_dir / name, copy / name)
        if guided:
            write_guide(copy, model_dir / GUIDE_FOLDER)


def check_teacher(job: TrainJob, dataset: Dataset, teacher: SavedModel) -> None:
    """Refuse a teacher whose weights mean something else in this job.

    Raises:
        ConfigError: names the settings that differ.
    """
    wanted = _compared(job.model.model_dump(), job.diffusion, dataset.manifest.image_size, dataset.version)
    given = _compared(teacher.model.model_dump(), teacher.diffusion, teacher.image_size, teacher.dataset_version)
    differing = [
        f"{key} is {wanted.get(key)} here and {given.get(key)} there"
        for key in sorted(wanted.keys() | given.keys())
        if wanted.get(key) != given.get(key)
    ]
    if differing:
        raise ConfigError(
            "consistency.teacher: must have the network, the diffusion process and the dataset of this job: "
            f"{'; '.join(differing)}; change the job to the teacher's settings"
        )


def _compared(
    model: dict[str, object], diffusion: DiffusionConfig | None, image_size: int, version: str
) -> dict[str, object]:
    process = diffusion.model_dump(exclude=_OF_THE_LOSS) if diffusion is not None else {}
    return {
        **{f"model.{name}": value for name, value in model.items()},
        **{f"diffusion.{name}": value for name, value in process.items()},
        "data.image_size": image_size,
        "the dataset's version": version,
    }
