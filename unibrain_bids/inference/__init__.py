"""One scan through the model: `predict("sub-01_T1w.nii.gz")`.

Example
-------
>>> from unibrain_bids.inference import predict            # doctest: +SKIP
>>> result = predict("sub-01_T1w.nii.gz")                  # doctest: +SKIP
>>> result.mask.shape == result.scan.data.shape            # doctest: +SKIP
True
"""

from unibrain_bids.inference.loading import Model, load_model, resolve_device, resource, weights_digest
from unibrain_bids.inference.prediction import Network, Prediction, named_network
from unibrain_bids.inference.unified import predict

__all__ = [
    "Model",
    "Network",
    "Prediction",
    "load_model",
    "named_network",
    "predict",
    "resolve_device",
    "resource",
    "weights_digest",
]
