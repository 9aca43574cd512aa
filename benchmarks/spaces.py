"""The affine between two templates' spaces, by ANTs: what `resources/templates/spaces.json` holds.

    python benchmarks/spaces.py HOME_T1.nii.gz SPACE_T1.nii.gz

Both are stripped T1 templates; printed is `home_from_space`, RAS mm. Needs antspyx, which is no dependency of the
package.
"""

from __future__ import annotations

import argparse
import json

import ants
import numpy as np


def home_from_space(home: str, space: str) -> np.ndarray:
    """Return the affine (4, 4) that maps points of the template `space` to the template `home`, RAS mm."""
    found = ants.registration(ants.image_read(home), ants.image_read(space), "Affine")
    transform = ants.read_transform(found["fwdtransforms"][0])
    linear = np.reshape(transform.parameters[:9], (3, 3))
    centre = np.array(transform.fixed_parameters)
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = np.array(transform.parameters[9:]) + centre - linear @ centre
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    return np.linalg.inv(to_ras @ matrix @ to_ras)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home")
    parser.add_argument("space")
    args = parser.parse_args()
    print(json.dumps(home_from_space(args.home, args.space).round(5).tolist()))


if __name__ == "__main__":
    main()
