"""One scan through the model: `predict("sub-01_T1w.nii.gz")`.

Example
-------
>>> from unibrain_bids.inference import predict            # doctest: +SKIP
>>> result = predict("sub-01_T1w.nii.gz")                  # doctest: +SKIP
>>> result.mask.shape == result.scan.data.shape            # doctest: +SKIP
True
"""

from unibrain_bids.inference.loading import Model, resolve_device, resource, shipped_weights, weights_digest
from unibrain_bids.inference.models import AnyModel, load_model, predict
from unibrain_bids.inference.prediction import Network, Prediction, named_network

__all__ = [
    "AnyModel",
    "Model",
    "Network",
    "Prediction",
    "load_model",
    "named_network",
    "predict",
    "resolve_device",
    "resource",
    "shipped_weights",
    "weights_digest",
]
