"""What a classifier trained together with the model sees of a head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unibrain_bids.model.unibrain import Outputs

# Keeps the logarithm of an empty region finite.
_SMALLEST_MM3 = 1.0


@dataclass(frozen=True)
class Description:
    """Differentiable summary of heads; regions in the order of `parcellation.region_numbers`.

    Attributes
    ----------
    regions
        (batch, 84, F + 1): the embeddings H, and the log volume in the person's own mm3.
    whole
        (batch, 1): log volume of the intracranial space, likewise.
    network
        (batch, 84, 84): C.
    """

    regions: Tensor
    whole: Tensor
    network: Tensor


def describe_head(outputs: Outputs, voxel: float) -> Description:
    """Summarise the model's outputs.

    Parameters
    ----------
    outputs
        On the model grid.
    voxel
        Volume of one of its voxels in the scan, mm3: the frame's size is that of the mean head, not the person's.
    """
    volumes = voxel * outputs.regions.flatten(2).sum(2)
    intracranial = voxel * torch.sigmoid(outputs.dense.mask_logits[:, 1:].float()).flatten(1).sum(1, keepdim=True)
    return Description(
        regions=torch.cat([outputs.embedding, torch.log(volumes + _SMALLEST_MM3)[..., None]], dim=2),
        whole=torch.log(intracranial + _SMALLEST_MM3),
        network=outputs.network,
    )
