"""What a classifier learns from the slices of a conditional model: a cheap look, for evaluations and searches.

Logistic regression on EfficientNet-Lite0 features of the drawings, tried on real validation slices (train on synthetic,
test on real: Esteban et al. 2017, arXiv:1706.02633). The floor is what as many training slices of the same classes
teach. `audit.utility` looks closer, at mixtures with real slices and on the test split.
"""

import numpy as np
import torch
from torch import Tensor

from lwddpm.evaluation.features import NETWORKS, WEIGHTS_SHA256
from lwddpm.evaluation.inputs import MetricInputs, record_of
from lwddpm.evaluation.linear import Linear
from lwddpm.evaluation.obedience import EXTRACTOR
from lwddpm.evaluation.result import MetricRecord


def utility(inputs: MetricInputs, shown: np.ndarray) -> MetricRecord | None:
    """`utility_lite0`, the balanced accuracy on validation slices; None with fewer than two classes drawn and held.

    Args:
        shown: the class that each generated slice was asked for, as `obedience.class_codes` gives it; -1: for none.
    """
    dataset = inputs.dataset
    names, tested = dataset.label_names, dataset.labels("validation")
    of_train, drawn = dataset.labels("train"), np.bincount(shown[shown >= 0], minlength=len(names))
    numbers = np.minimum(drawn, np.bincount(of_train, minlength=len(names)))
    if len(np.intersect1d(np.flatnonzero(numbers), tested)) < 2:
        return None
    features, validation = inputs.features(EXTRACTOR), inputs.all_features(EXTRACTOR, ("validation",))
    told, draw = np.flatnonzero(shown >= 0), np.random.default_rng(0)
    alike = [draw.choice(np.flatnonzero(of_train == k), num, replace=False) for k, num in enumerate(numbers)]
    real = np.concatenate(alike)
    sensitivities = [
        _sensitivities(rows, classes, validation, tested, names)
        for rows, classes in (
            (features[torch.from_numpy(told)], shown[told]),
            (inputs.all_features(EXTRACTOR, ("train",))[torch.from_numpy(real)], of_train[real]),
        )
    ]
    value, floor = (float(np.mean(list(each.values()))) for each in sensitivities)
    return record_of(
        "utility_lite0",
        inputs,
        value=value,
        floor=floor,
        parts=sensitivities[0],
        floor_parts=sensitivities[1],
        n=len(told),
        num_reference=len(tested),
        reference="validation",
        extractor=NETWORKS[EXTRACTOR],
        weights_sha256=WEIGHTS_SHA256[EXTRACTOR],
        protocol=f"balanced accuracy on {len(tested)} validation slices of logistic regression on "
        f"{NETWORKS[EXTRACTOR]} features of {len(told)} generated slices and the classes that they were asked for; "
        f"floor: of {len(real)} training slices of the same classes",
    )


def _sensitivities(
    features: Tensor, classes: np.ndarray, validation: Tensor, tested: np.ndarray, names: tuple[str, ...]
) -> dict[str, float]:
    """The share of each class's validation slices that is recognised, where there are any."""
    right = Linear.of(features.double().numpy(), classes, len(names))(validation).numpy() == tested
    return {name: float(right[tested == k].mean()) for k, name in enumerate(names) if (tested == k).any()}
