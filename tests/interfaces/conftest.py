"""A tiny scan and a prediction of it, made by hand: every voxel's value is known."""

import os

import nibabel as nib
import numpy as np
import pytest

os.environ["NO_ET"] = "1"

from unibrain_bids.imaging.scan import load_scan
from unibrain_bids.inference import Network, Prediction
from unibrain_bids.labels import LabelTable

SHAPE = (24, 28, 20)


@pytest.fixture(scope="session")
def raw(tmp_path_factory):
    """A raw dataset with one oblique, anisotropic scan."""
    root = tmp_path_factory.mktemp("raw")
    path = root / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    path.parent.mkdir(parents=True)
    data = np.random.default_rng(0).integers(50, 1000, SHAPE).astype(np.int16)
    affine = nib.affines.from_matvec(np.array([[-5.0, 0.3, 0], [0.2, 6.0, 0.1], [0, 0, 7.0]]), [60, -80, -70])
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    (root / "dataset_description.json").write_text('{"Name": "Tiny", "BIDSVersion": "1.10.0"}')
    return root


@pytest.fixture(scope="session")
def prediction(raw):
    scan = load_scan(raw / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:20, 5:23, 3:17] = 1
    tissues = (mask * (1 + np.indices(SHAPE)[0] % 3)).astype(np.uint8)
    regions = np.array(LabelTable.load("DK").indices)
    parcels = (mask * regions[np.arange(mask.size).reshape(SHAPE) % len(regions)]).astype(np.int32)
    preproc = (scan.data * 1.25).astype(np.float32)
    # The model's order is not the table's.
    model_order = tuple(sorted(regions.tolist()))
    return Prediction(
        scan=scan,
        mask=mask,
        preproc=preproc,
        brain=(preproc * mask / 10).astype(np.float32),
        gain=np.full(SHAPE, 1.25, np.float32),
        structures=(mask * 17).astype(np.int16),
        tissues=tissues,
        tissue_probabilities={name: np.float32(tissues == i) for i, name in enumerate(("GM", "WM", "CSF"), start=1)},
        parcellations={"DK": parcels},
        frame_from_scan=np.diag([1.1, 0.9, 1.0, 1.0]),
        intracranial_volume=1.4e6,
        networks={"innerproduct": Network(model_order, tuple(map(str, model_order)), pairs(model_order))},
        quality={"model_realignment_mm": 0.5},
    )


def pairs(indices):
    """Return a matrix whose entries tell which pair of regions they belong to."""
    return np.add.outer(np.array(indices), np.array(indices)).astype(np.float32)
