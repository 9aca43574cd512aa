"""Operations whose digits do not depend on the number of threads.

PyTorch computes a convolution of one voxel otherwise with one thread than with several, and a sum over many voxels in
as many parts as there are threads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_VOXELS_AT_ONCE = 8192


class Pointwise(nn.Conv3d):
    """A convolution of one voxel as a product of matrices, whose sums run over the channels alone.

    On grids of thousands of voxels, that is: of a handful, the product divides the channels among the threads, too.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, X, Y, Z) to (batch, outputs, X, Y, Z)."""
        assert self.bias is not None
        weight = self.weight.flatten(1).expand(len(x), -1, -1)
        return torch.baddbmm(self.bias[:, None], weight, x.flatten(2)).unflatten(2, x.shape[2:])


def voxel_sums(weight: Tensor, values: Tensor) -> Tensor:
    """Weighted sums over voxels, `weight @ values`, in double precision.

    Parameters
    ----------
    weight
        (batch, regions, N).
    values
        (batch or 1, N, channels).

    Returns
    -------
    Tensor
        (batch, regions, channels); float64, but in training, where it would only cost memory.
    """
    if torch.is_grad_enabled():
        return weight @ values
    sums = torch.zeros(*weight.shape[:2], values.shape[2], dtype=torch.float64, device=weight.device)
    for part in (slice(start, start + _VOXELS_AT_ONCE) for start in range(0, weight.shape[2], _VOXELS_AT_ONCE)):
        sums += weight[..., part].double() @ values[:, part].double()
    return sums
