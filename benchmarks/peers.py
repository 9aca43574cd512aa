"""Affine registration of the labelled heads by ANTs, dipy or SimpleITK, for `unibrain-evaluate --peers FILE ...`.

Runs in an environment of its own (antspyx pins an older numpy), made once by

    python3 -m venv .venv-peers
    .venv-peers/bin/pip install -c benchmarks/constraints-peers.txt antspyx dipy SimpleITK nibabel

and then, from the repository root, for each tool (ants, dipy, SimpleITK):

    PYTHONPATH=. .venv-peers/bin/python benchmarks/peers.py --tool ants --data DATA --out work/peers/ants.json

Each head is masked by its true solid mask and registered to the stripped MNI152NLin6Asym T1 (`DATA/atlas`): the best
case for a classical tool, which gets the mask for nothing. Written per head: `template_from_scan` (4 x 4, RAS mm) and
the wall and CPU seconds of the registration alone. Heads that the file already holds, by the same version, are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

# ITK and ANTs read both when they are loaded: one thread, so that CPU seconds compare, and a fixed random seed.
os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
os.environ.setdefault("ANTS_RANDOM_SEED", "1")

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from unibrain_bids.evaluation.heads import muse_heads
from unibrain_bids.evaluation.metrics import normalised_cross_correlation
from unibrain_bids.evaluation.registration import TemplateTruth, load_template_truth, warp_to_template
from unibrain_bids.evaluation.unlabelled import unlabelled_heads

LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

Volume = NDArray[np.float32]
Matrix = NDArray[np.float64]
Result = tuple[Matrix, Volume]
"""`scan_from_template`, RAS mm, and the scan as the tool itself resamples it to the template's grid."""


def with_ants(stripped: Volume, affine: Matrix, template: TemplateTruth) -> Result:
    """ANTs, `Affine` with ANTsPy's defaults."""
    import ants

    def image(data: Volume, matrix: Matrix) -> ants.core.ANTsImage:
        origin, spacing, direction = _lps_geometry(matrix)
        return ants.from_numpy(
            data.astype(np.float32), origin=origin.tolist(), spacing=spacing.tolist(), direction=direction
        )

    fixed, moving = image(template.brain, template.affine), image(stripped, affine)
    result = ants.registration(fixed=fixed, moving=moving, type_of_transform="Affine")
    transform = ants.read_transform(result["fwdtransforms"][0])
    return _in_ras(transform.parameters, transform.fixed_parameters), result["warpedmovout"].numpy()


def with_dipy(stripped: Volume, affine: Matrix, template: TemplateTruth) -> Result:
    """dipy, `affine_registration` with its defaults: mutual information, 3 levels, centre of mass to affine."""
    from dipy.align import affine_registration

    moved, matrix = affine_registration(stripped, template.brain, moving_affine=affine, static_affine=template.affine)
    return np.asarray(matrix, dtype=np.float64), moved


def with_simpleitk(stripped: Volume, affine: Matrix, template: TemplateTruth) -> Result:
    """SimpleITK's registration method Mattes' mutual information, L-BFGS-B, two levels, moments first."""
    import SimpleITK as sitk

    def image(data: Volume, matrix: Matrix) -> sitk.Image:
        result = sitk.GetImageFromArray(data.astype(np.float32).T)
        origin, spacing, direction = _lps_geometry(matrix)
        result.SetOrigin(origin.tolist())
        result.SetSpacing(spacing.tolist())
        result.SetDirection(direction.ravel().tolist())
        return result

    fixed, moving = image(template.brain, template.affine), image(stripped, affine)
    start = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.AffineTransform(3), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    method = sitk.ImageRegistrationMethod()
    method.SetGlobalDefaultNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.2)
    method.SetInterpolator(sitk.sitkLinear)
    # The best of what was tried: gradient descent stops early (structure Dice .513 on one head, this .526).
    method.SetOptimizerAsLBFGSB(gradientConvergenceTolerance=1e-5, numberOfIterations=100)
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([4, 2])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(start, inPlace=True)
    method.Execute(fixed, moving)
    moved = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, start, sitk.sitkLinear, 0.0)).T
    return _in_ras(start.GetParameters(), start.GetFixedParameters()), moved


def _lps_geometry(affine: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Origin (3,), spacing (3,) and direction (3, 3) of a grid in ITK's world from its voxel-to-RAS matrix."""
    lps = LPS_FROM_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return lps[:3, 3], spacing, lps[:3, :3] / spacing


def _in_ras(parameters: object, centre: object) -> Matrix:
    """Turn ITK's affine, x -> A (x - c) + c + t in LPS, into a 4 x 4 matrix in RAS mm."""
    values, middle = np.asarray(parameters, dtype=np.float64), np.asarray(centre, dtype=np.float64)[:3]
    lps = np.eye(4)
    lps[:3, :3] = values[:9].reshape(3, 3)
    lps[:3, 3] = values[9:] + middle - lps[:3, :3] @ middle
    return LPS_FROM_RAS @ lps @ LPS_FROM_RAS


@dataclass(frozen=True)
class Tool:
    """A peer: its name in tables, the package that knows the version, the module to load, and its registration."""

    title: str
    package: str
    module: str
    run: Callable[[Volume, Matrix, TemplateTruth], Result]


TOOLS = {
    "ants": Tool("ANTs Affine", "antspyx", "ants", with_ants),
    "dipy": Tool("dipy affine", "dipy", "dipy.align", with_dipy),
    "SimpleITK": Tool("SimpleITK affine", "SimpleITK", "SimpleITK", with_simpleitk),
}


def register(tool: str, stripped: Volume, affine: Matrix, template: TemplateTruth) -> dict[str, object]:
    """Register one stripped head to the template; returns the JSON entry of this head.

    Raises
    ------
    RuntimeError
        If our reading of the matrix does not give the image that the tool itself resampled.
    """
    import_module(TOOLS[tool].module)  # loading it is no registration
    wall, cpu = time.perf_counter(), time.process_time()
    scan_from_template, theirs = TOOLS[tool].run(stripped, affine, template)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    template_from_scan = np.linalg.inv(scan_from_template)
    ours = warp_to_template(stripped, affine, template, template_from_scan, order=1)
    agreement = normalised_cross_correlation(ours, theirs)
    if agreement < 0.999:
        raise RuntimeError(f"the matrix was misread: correlation with the image that {tool} resampled {agreement:.4f}")
    return {"template_from_scan": template_from_scan.tolist(), "seconds": wall, "cpu_seconds": cpu}


def stripped_heads(options: argparse.Namespace, known: dict[str, object]) -> Iterator[tuple[str, Volume, Matrix]]:
    """Yield name, stripped image and voxel-to-world matrix of the scan asked for, or of the heads not known yet."""
    if options.scan:
        scan, mask = (nib.Nifti1Image.from_filename(path) for path in options.scan)
        stripped = np.where(np.asarray(mask.dataobj) > 0, np.asarray(scan.dataobj, dtype=np.float32), 0)
        yield Path(options.scan[0]).name, stripped, scan.affine
        return
    records = muse_heads(options.data)
    records += unlabelled_heads(options.data, options.unlabelled) if options.unlabelled else []
    for record in records:
        if record.name in known:
            continue
        head = record.load()
        yield head.name, np.where(head.masks["solid"], head.image, 0), head.affine


def main() -> None:
    """Register the heads and write the JSON after each, so that an interrupted run keeps what it has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds muse/ and atlas/")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--tool", choices=TOOLS, default="ants", help="which one (default: %(default)s)")
    parser.add_argument("--scan", nargs=2, metavar=("IMAGE", "MASK"), help="this one head instead of the MUSE heads")
    parser.add_argument("--unlabelled", type=Path, help="folder with masks of heads without labels (benchmarks/n4.py)")
    options = parser.parse_args()
    template = load_template_truth(options.data)
    tool = TOOLS[options.tool]
    peer = {"name": tool.title, "version": version(tool.package), "template": template.name, "heads": {}}
    if options.out.is_file():
        before = json.loads(options.out.read_text())
        if all(before[key] == peer[key] for key in ("name", "version", "template")):
            peer = before
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name, stripped, affine in stripped_heads(options, peer["heads"]):
        peer["heads"][name] = register(options.tool, stripped, affine, template)
        print(f"{name}: {peer['heads'][name]['cpu_seconds']:.1f} CPU s", flush=True)
        options.out.write_text(json.dumps(peer, indent=1))


if __name__ == "__main__":
    main()
