"""What a classifier trained together with the model sees of a head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unibrain_bids.model import frame
from unibrain_bids.model.unibrain import Outputs

# Keeps the logarithm of an empty region finite.
_SMALLEST_MM3 = 1.0
_VENTRICLES, _WHITE = (4, 5, 14, 43, 44), (2, 41)


@dataclass(frozen=True)
class Description:
    """Differentiable summary of heads; regions in the order of `parcellation.region_numbers`.

    Attributes
    ----------
    regions
        (batch, 84, F + 1): the embeddings H, and the log volume in the person's own mm3.
    whole
        (batch, 3): log volumes of the intracranial space, the ventricles, the cerebral white matter, likewise.
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
    structures = torch.softmax(outputs.dense.structure_logits.float(), dim=1)
    parts = [torch.sigmoid(outputs.dense.mask_logits[:, 1:].float())]
    parts += [structures[:, [frame.STRUCTURES.index(n) + 1 for n in numbers]] for numbers in (_VENTRICLES, _WHITE)]
    whole = voxel * torch.stack([part.flatten(1).sum(1) for part in parts], dim=1)
    return Description(
        regions=torch.cat([outputs.embedding, torch.log(volumes + _SMALLEST_MM3)[..., None]], dim=2),
        whole=torch.log(whole + _SMALLEST_MM3),
        network=outputs.network,
    )
