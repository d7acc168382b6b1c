"""Logistic regression on frozen features: a classifier of slices that takes seconds to fit."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

STRENGTH = 0.003  # inverse strength of the penalty on weights of standardised features; chosen on real slices


class Linear(NamedTuple):
    """A classifier of K classes: a score is w f + b, and the highest wins; float64 [K, D], [K]."""

    weights: Tensor
    biases: Tensor

    @classmethod
    def of(cls, features: np.ndarray, classes: np.ndarray, num_classes: int, strength: float = STRENGTH) -> "Linear":
        """Fit it to its optimum. Every class counts alike; one without slices is never answered.

        Args:
            features: float [N, D]; classes: from 0, int64 [N].
            strength: C of scikit-learn, which weighs the sum of the losses of all slices against the penalty.
        """
        # here: scikit-learn takes a second to import
        from sklearn.linear_model import LogisticRegression

        present = np.unique(classes)
        weights = np.zeros((num_classes, features.shape[1]))
        biases = np.full(num_classes, -np.inf)
        if len(present) == 1:
            biases[present] = 0.0
            return cls(torch.from_numpy(weights), torch.from_numpy(biases))
        mean, spread = features.mean(0), features.std(0) + 1e-6
        fitted = LogisticRegression(C=strength, max_iter=200, tol=1e-3, class_weight="balanced")
        fitted.fit((features - mean) / spread, classes)
        rows, intercepts = fitted.coef_ / spread, fitted.intercept_ - (fitted.coef_ / spread) @ mean
        if len(rows) == 1:  # of two classes there is one score, that of the second
            rows, intercepts = np.concatenate([-rows, rows]), np.concatenate([-intercepts, intercepts])
        weights[present], biases[present] = rows, intercepts
        return cls(torch.from_numpy(weights), torch.from_numpy(biases))

    def __call__(self, features: Tensor) -> Tensor:
        """The class of each slice, int64 [N], by its features [N, D]."""
        return (features.double() @ self.weights.T + self.biases).argmax(1)
