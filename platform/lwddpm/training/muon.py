"""Muon: gradient momentum of which every matrix is orthogonalised (Jordan 2024, "Muon"; of kernels as matrices too).

For a kernel as a matrix W of m rows (output channels) and n columns, with its gradient G and beta = `momentum`,

    M <- beta M + (1 - beta) G
    W <- W - lr 0.2 sqrt(max(m, n)) O(beta M + (1 - beta) G)

where O(X) replaces the singular values of X by values near 1. The factor gives an update the root mean square of one of
Adam's (Liu et al. 2025, arXiv:2502.16982, equation 4), so that both take the same learning rate.

torch.optim.Muon takes no kernels of convolutions. timm's does, and multiplies the whole matrix in each iteration of O:
on CPUs the update of `jobs/best_small.yaml` then takes twice as long as here.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn

_LEAST_SIDE = 8  # a narrower matrix has few directions: the layers to and from single pixels, the narrow side of an SE
_ITERATIONS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic; Jordan 2024: singular values end between 0.7 and 1.2
_SMALLEST_NORM = 1e-7


def is_matrix(parameter: nn.Parameter) -> bool:
    """Whether Muon takes it: the weight of a linear layer or a convolution, both of whose sides are wide enough."""
    return parameter.ndim >= 2 and min(parameter.shape[0], parameter[0].numel()) >= _LEAST_SIDE


class Muon(torch.optim.Optimizer):
    """Of parameters for which `is_matrix` holds; the others are an optimizer's of their own.

    Args:
        parameters: float32, at least two-dimensional; all but the first dimension are the columns.
        lr: learning rate, on Adam's scale.
        momentum: beta above, in [0, 1).
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        assert closure is None, "a training step takes its gradients itself"
        for group in self.param_groups:
            of_shape: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    of_shape[parameter.shape[0], parameter[0].numel()].append(parameter)
            for (rows, columns), parameters in of_shape.items():
                updates = torch.stack([self._momentum(p, group["momentum"]).reshape(rows, columns) for p in parameters])
                scale = -group["lr"] * 0.2 * max(rows, columns) ** 0.5
                for parameter, update in zip(parameters, orthogonalized(updates), strict=True):
                    parameter.add_(update.view(parameter.shape), alpha=scale)
        return None

    def _momentum(self, parameter: nn.Parameter, beta: float) -> Tensor:
        """Nesterov's: the gradient counts once more."""
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum_buffer"]
        assert parameter.grad is not None
        momentum.lerp_(parameter.grad, 1 - beta)
        return parameter.grad.lerp(momentum, beta)


def orthogonalized(matrices: Tensor) -> Tensor:
    """Matrices with the same singular vectors, whose singular values are near 1; zero stays zero.

    X <- a X + b (X X') X + c (X X')^2 X, five times. Each X is a polynomial in the first X X', times the first X, so
    all but the first and the last product are of square matrices of the shorter side.

    Args:
        matrices: float32 [K, m, n].
    """
    if matrices.shape[-2] > matrices.shape[-1]:
        return orthogonalized(matrices.mT).mT
    x = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=_SMALLEST_NORM)
    gram = x @ x.mT
    polynomial = factor = _factor(gram)
    for _ in range(_ITERATIONS - 1):
        gram = factor @ gram @ factor  # all of them are polynomials in the first X X', so they commute
        factor = _factor(gram)
        polynomial = factor @ polynomial
    return polynomial @ x


def _factor(gram: Tensor) -> Tensor:
    """What an iteration multiplies X by, from X X'."""
    first, second, third = _COEFFICIENTS
    factor = torch.baddbmm(gram, gram, gram, beta=second, alpha=third)
    factor.diagonal(dim1=-2, dim2=-1).add_(first)
    return factor
