"""Resample MOVING onto FIXED through an ITK transform with another tool (run by the peers' Python, not by ours).

Usage: peer_resample.py {SimpleITK,ants} MOVING FIXED TRANSFORM OUTPUT
"""

import sys


def with_simpleitk(moving: str, fixed: str, transform: str, output: str) -> None:
    import SimpleITK as sitk

    image = sitk.ReadImage(moving, sitk.sitkFloat32)
    grid = sitk.ReadImage(fixed)
    sitk.WriteImage(sitk.Resample(image, grid, sitk.ReadTransform(transform), sitk.sitkLinear, 0.0), output)


def with_ants(moving: str, fixed: str, transform: str, output: str) -> None:
    import ants

    moved = ants.apply_transforms(
        fixed=ants.image_read(fixed), moving=ants.image_read(moving), transformlist=[transform], interpolator="linear"
    )
    ants.image_write(moved, output)


if __name__ == "__main__":
    {"SimpleITK": with_simpleitk, "ants": with_ants}[sys.argv[1]](*sys.argv[2:])
