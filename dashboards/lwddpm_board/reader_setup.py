"""Setting a reader study up: which slices it shows, and its run in MLflow."""

import json
from collections.abc import Sequence

import numpy as np
from mlflow.entities import Param

from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError
from lwddpm.tracking.attachments import READER_EXPERIMENT
from lwddpm.tracking.registry import RegisteredVersion
from lwddpm.tracking.store import open_experiment
from lwddpm_board.reader_study import KEY, KIND, MOST_CLASSES, Question
from lwddpm_board.stores import Stores

FEWEST, MOST = 4, 200  # slices of a study


def create(
    stores: Stores,
    version: RegisteredVersion,
    synthetic: np.ndarray,
    how: str,
    dataset: Dataset,
    num: int,
    seed: int,
    *,
    question: Question = "synthetic",
    asked: Sequence[str | None] | None = None,
) -> str:
    """Set a study up.

    Args:
        version: the version to be judged.
        synthetic: its slices, uint8 [N, S, S].
        how: how they were drawn, in words.
        dataset: what it was trained on; the real slices are from its test split, or from validation if that is larger.
        num: slices of the study; half of them real.
        seed: decides which slices are taken.
        question: what readers are asked; `class`: every class has as many slices as any other, or one more.
        asked: the class that each synthetic slice was asked for; for the question `class`.

    Returns:
        The study's run id.

    Raises:
        ConfigError: too few slices of either kind; says how many there are.
    """
    half = num // 2
    split = max(("test", "validation"), key=dataset.num)
    if synthetic.shape[1] != dataset.manifest.image_size:
        raise ConfigError(
            f"slices: must be of one size, the model draws {synthetic.shape[1]} px and the dataset has "
            f"{dataset.manifest.image_size} px"
        )
    random = np.random.default_rng(seed)
    of_real = [dataset.label_names[code] for code in dataset.labels(split)]
    if question == "class":
        classes = _classes(asked, of_real)
        rows = [
            _balanced(labels, classes, half, num, kind, random)
            for kind, labels in (("real", of_real), ("synthetic", asked or ()))
        ]
    else:
        classes = ()
        rows = [
            _any(count, half, num, kind, random)
            for kind, count in (("real", len(of_real)), ("synthetic", len(synthetic)))
        ]
    images = np.concatenate([dataset.images(split)[rows[0]], synthetic[rows[1]]])
    sources = dataset.sources(split)
    key = [{"synthetic": False, "source": sources[row]} for row in rows[0]]
    key += [{"synthetic": True, "source": f"sample {row}"} for row in rows[1]]
    if question == "class":
        shown = [of_real[row] for row in rows[0]] + [str((asked or ())[row]) for row in rows[1]]
        key = [entry | {"class": name} for entry, name in zip(key, shown, strict=True)]
    shuffled = random.permutation(2 * half)

    client = stores.client
    name = f"{version.name} version {version.version}, {2 * half} slices"
    run = client.create_run(
        open_experiment(client, stores.tracking, READER_EXPERIMENT),
        run_name=name + (", which class?" if question == "class" else ""),
        tags=_tags(version, question),
    )
    settings = {"num": 2 * half, "seed": seed, "split": split, "dataset_version": dataset.version, "drawn": how}
    if question == "class":
        settings |= {"question": question, "classes": json.dumps(classes)}
    status = "FAILED"
    try:
        client.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in settings.items()])
        client.log_dict(run.info.run_id, {"key": [key[index] for index in shuffled]}, KEY)
        with stores.folder() as folder:
            np.save(folder / "images.npy", images[shuffled])
            client.log_artifact(run.info.run_id, str(folder / "images.npy"), "study")
        status = "FINISHED"
    finally:
        client.set_terminated(run.info.run_id, status)
    return str(run.info.run_id)


def _any(there: int, half: int, num: int, kind: str, random: np.random.Generator) -> np.ndarray:
    """Rows of half of a study, drawn at random, in their order."""
    if there < half:
        raise ConfigError(f"slices: half of {num} must be {kind}, there are {there}; ask for {2 * there} at most")
    return np.sort(random.choice(there, half, replace=False))


def _classes(asked: Sequence[str | None] | None, of_real: Sequence[str]) -> tuple[str, ...]:
    """The classes that both kinds of slices show.

    Raises:
        ConfigError: fewer than two, or more than there are keys.
    """
    classes = tuple(sorted({label for label in asked or () if label is not None} & set(of_real)))
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise ConfigError(
            f"question: class takes 2 to {MOST_CLASSES} classes that synthetic slices were asked for and held-out ones "
            f"show, got {len(classes)}; take a model with model.conditions: [label], or ask whether slices are real"
        )
    return classes


def _balanced(
    labels: Sequence[str | None],
    classes: Sequence[str],
    half: int,
    num: int,
    kind: str,
    random: np.random.Generator,
) -> np.ndarray:
    """Rows of half of a study, of each class as many as of any other, or one more; in their order."""
    wanted = [half // len(classes) + (number < half % len(classes)) for number in range(len(classes))]
    chosen = []
    for name, count in zip(classes, wanted, strict=True):
        rows = np.array([row for row, label in enumerate(labels) if label == name], int)
        if len(rows) < count:
            raise ConfigError(
                f"slices: {count} of {num} must be {kind} ones of {name}, there are {len(rows)}; ask for "
                f"{2 * len(rows) * len(classes)} at most"
            )
        chosen.append(random.choice(rows, count, replace=False))
    return np.sort(np.concatenate(chosen))


def _tags(version: RegisteredVersion, question: Question) -> dict[str, str]:
    what = "tell slices of {} from real ones" if question == "synthetic" else "name the class of real slices and of {}"
    return {
        "lwddpm.kind": KIND,
        "lwddpm.question": question,
        "lwddpm.model": version.name,
        "lwddpm.model_version": str(version.version),
        "mlflow.note.content": (
            f"Readers {what.format(f'models:/{version.name}/{version.version}')}. "
            "Each reader is a run beneath this one."
        ),
    }
