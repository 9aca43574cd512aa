"""Muon: steps whose matrices are orthogonalised, for the hidden layers of a network (Jordan et al. 2024).

`torch.optim.Muon` (torch 2.9 and later) takes matrices alone; the kernels here have five dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

# Coefficients of the quintic iteration, and its length.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
# With it a step is as large as one of Adam's (Liu et al. 2025, arXiv 2502.16982).
_LIKE_ADAM = 0.2


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; a kernel (outputs, inputs, ...) counts as a matrix (outputs, everything else).

    Parameters
    ----------
    parameters
        Of two dimensions or more.
    lr
        As for Adam.
    momentum
        Nesterov's.
    weight_decay
        Decoupled, as AdamW's.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                average = state["momentum"]
                average.lerp_(parameter.grad, 1 - group["momentum"])
                direction = parameter.grad.lerp(average, group["momentum"])
                update = orthogonalised(direction.flatten(1))
                size = _LIKE_ADAM * max(update.shape) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.view_as(parameter), alpha=-group["lr"] * size)


def orthogonalised(matrix: Tensor) -> Tensor:
    """A matrix (m, n) with its singular values brought near 1, by a quintic Newton-Schulz iteration."""
    a, b, c = _QUINTIC
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide is matrix else x.T
