"""The part `utility` of an audit: slices are drawn by class, and classifiers learn from mixtures, over the workers.

<folder>/utility/KEY/real.npz, test.npz, synthetic.npz    what is learnt from
<folder>/utility/KEY/logistic-r0.1-k2-s3.npz    what a learner of an arm answers: a killed audit goes on there
"""

import functools
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from lwddpm.audit.feature_search import EXTRACTOR
from lwddpm.audit.scores import Scores
from lwddpm.audit.utility.arms import Arm, arms
from lwddpm.audit.utility.learners import Fit, Slices, learn
from lwddpm.audit.utility.result import UtilityResult, method_code, result_of
from lwddpm.cluster.generate import feature_extraction
from lwddpm.config import UtilityConfig
from lwddpm.config.section import hex_digest
from lwddpm.data.store import Dataset
from lwddpm.evaluation.cache import cache_file, cached
from lwddpm.files import whole_file
from lwddpm.kinds.audit.audited import Audited
from lwddpm.kinds.audit.drawings import Drawings
from lwddpm.kinds.audit.parts import CLASS

_Extract = functools.partial[torch.Tensor] | None  # slices -> features; None: no learner needs any


def measure_utility(audited: Audited) -> UtilityResult:
    """Draw what is missing, learn what is missing, and say what it comes to."""
    config, dataset = audited.job.utility, audited.dataset
    sampling = audited.sampling.model_copy(update={"conditions": {}, "like": "train"})  # classes as in the dataset
    drawings = Drawings(audited, sampling, config.num_drawn(dataset.num("train")))
    known = [method_code(), drawings.folder.name, drawings.count, config.steps, config.batch_size]
    with_features = "logistic" in config.learners
    folder = audited.folder / "utility" / hex_digest([*known, with_features])
    folder.mkdir(parents=True, exist_ok=True)
    extract = None
    if with_features:
        extract = functools.partial(feature_extraction(audited.session, None, audited.exported), EXTRACTOR)
    slices = {name: _real(dataset, split, extract) for name, split in (("real", "train"), ("test", "test"))}
    slices["synthetic"] = _drawn(audited, drawings, extract)
    for name, each in slices.items():
        _save(folder / f"{name}.npz", each._asdict())
    fits = {arm: fit for arm in arms(config) if (fit := _kept(folder, arm)) is not None}
    missing = [arm for arm in arms(config) if arm not in fits]
    function = functools.partial(_learnt, str(folder), config, len(dataset.label_names), audited.session.model_device)
    if missing:
        results = audited.session.worker_map(
            function, [[arm] for arm in missing], description="learning from mixtures", exported=audited.exported
        )
        for arm, fit in zip(missing, results, strict=True):
            _save(folder / f"{arm.name}.npz", fit._asdict())
            fits[arm] = fit
    return result_of(fits, config, slices["real"], slices["test"], slices["synthetic"], dataset.label_names, sampling)


def _real(dataset: Dataset, split: str, extract: _Extract) -> Slices:
    """A split of the dataset; its features are shared with evaluations."""
    images, features = dataset.images(split), torch.empty(dataset.num(split), 0)
    if extract is not None:
        features = cached(
            cache_file(dataset, EXTRACTOR, f"features-{split}-{len(images)}"),
            functools.partial(extract, images),
            dump=lambda features: {"features": features.contiguous()},
            load=lambda tensors: tensors["features"],
        )
    return Slices(images, dataset.labels(split), dataset.groups(split), features.numpy())


def _drawn(audited: Audited, drawings: Drawings, extract: _Extract) -> Slices:
    """All slices that are drawn, with the classes that they were asked for."""
    images, features = [], []
    for numbers in drawings.chunks:
        images.append(drawings.slices(numbers))
        features.append(_features(drawings.file(numbers), images[-1], extract))
    vocabulary = audited.saved.conditions
    assert vocabulary is not None
    codes = vocabulary.assigned({}, "train", range(drawings.count))[:, vocabulary.names.index(CLASS)]
    names = audited.dataset.label_names
    asked = [vocabulary.condition(CLASS).decoded(float(code)) for code in codes]
    labels = np.array([names.index(str(name)) if name in names else -1 for name in asked], dtype=np.int64)
    return Slices(np.concatenate(images), labels, np.arange(drawings.count), np.concatenate(features))


def _features(file: Path, images: np.ndarray, extract: _Extract) -> np.ndarray:
    """Of a chunk; those of the part memorisation where it has compared the chunk."""
    if extract is None:
        return np.empty((len(images), 0), np.float32)
    scores = Scores.load(file.with_suffix(".npz"))
    if scores is not None:
        return scores.embedding
    path = file.with_name(f"{file.stem}-features.npy")
    try:
        features: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        features = extract(images).numpy()
        with whole_file(path) as partial, partial.open("wb") as stream:
            np.save(stream, features)
    return features


def _save(path: Path, columns: dict[str, object]) -> None:
    if not path.exists():
        with whole_file(path) as partial, partial.open("wb") as stream:
            np.savez(stream, **columns)  # type: ignore[arg-type]


def _kept(folder: Path, arm: Arm) -> Fit | None:
    """What an arm's learner has answered; None where it has not, or the file is damaged and is made again."""
    path = folder / f"{arm.name}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            return Fit(file["on_real"], file["on_synthetic"], int(file["steps"]))
    except (OSError, ValueError, EOFError, KeyError, BadZipFile):
        path.unlink(missing_ok=True)
        return None


def _learnt(folder: str, config: UtilityConfig, num_classes: int, device: str, chunk: list[Arm]) -> Fit:
    (arm,) = chunk
    return learn(arm, config, *_slices(folder), num_classes, device)


@functools.lru_cache(maxsize=1)
def _slices(folder: str) -> tuple[Slices, Slices, Slices]:
    """Real ones to learn from, test slices, and those drawn; a worker serves many arms."""
    found = []
    for name in ("real", "test", "synthetic"):
        with np.load(Path(folder) / f"{name}.npz", allow_pickle=False) as file:
            found.append(Slices(*(file[column] for column in Slices._fields)))
    real, test, synthetic = found
    return real, test, synthetic
