"""Which parts an audit has: what the job asks for, as far as the model and its dataset have what they need."""

import numpy as np

from lwddpm.config import AuditJob, Part
from lwddpm.data.store import Dataset
from lwddpm.errors import ConfigError, DataError
from lwddpm.training.stored_model import SavedModel

CLASS = "label"  # the condition that utility needs
_REMEDY = "train one that is told the class of each slice: lwddpm run jobs/kaggle_conditional.yaml"
_WHY = f"takes a model with classes (model.conditions: [{CLASS}]), and this one has none"
NO_CLASSES = f"{_WHY}; {_REMEDY}"  # why utility is not measured
_FEWEST = 2  # groups of training slices of a class


def parts_of(job: AuditJob, saved: SavedModel, where: object) -> tuple[tuple[Part, ...], dict[Part, str]]:
    """The parts that are made, and why another one is not.

    Args:
        where: the model, for messages.

    Raises:
        ConfigError: utility is asked for, and the model has no classes.
    """
    asked = job.audit.parts
    if has_classes(saved) or (asked is not None and "utility" not in asked):
        return asked or ("memorisation", "utility"), {}
    if asked is not None:
        raise ConfigError(
            f"audit.parts: utility {_WHY}, got {where}; leave utility out of audit.parts, or {_REMEDY}, and audit that"
        )
    return ("memorisation",), {"utility": NO_CLASSES}


def has_classes(saved: SavedModel) -> bool:
    """Whether a model is told the class, which utility takes."""
    return saved.conditions is not None and CLASS in saved.conditions.names


def check_classes(dataset: Dataset) -> None:
    """Refuse a dataset that utility cannot be measured with.

    Raises:
        DataError: fewer than two classes with training and test slices, or a class of a single training group.
    """
    labels, tested = dataset.labels("train"), dataset.labels("test")
    both = sorted(set(labels.tolist()) & set(tested.tolist()))
    if len(both) < 2:
        raise DataError(
            f"{dataset.path}: utility takes 2 or more classes with training and test slices, got {len(both)}; give "
            "test a larger share in data.splits, or set audit.parts=[memorisation]"
        )
    groups = dataset.groups("train")
    for code in both:
        num = len(np.unique(groups[labels == code]))
        if num < _FEWEST:
            raise DataError(
                f"{dataset.path}: utility takes {_FEWEST} or more groups of training slices of a class, got {num} of "
                f"{dataset.label_names[code]}; give training more slices of it, or set audit.parts=[memorisation]"
            )
