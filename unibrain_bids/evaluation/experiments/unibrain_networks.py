"""Learned networks of the two groups, and whether their means differ by more than those of random groups.

Usage: `python -m unibrain_bids.evaluation.experiments.unibrain_networks --data packed/heads.npz`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unibrain_bids.evaluation.experiments.results import Row, write_rows
from unibrain_bids.evaluation.experiments.unibrain import RUNS, load_material, recipe_of
from unibrain_bids.model.published import PublishedUniBrain
from unibrain_bids.model.weights import average_of
from unibrain_bids.training.recipes.cohort import GROUPS, Cohort

SHOWN = ("joint", "class-stopped")
_PERMUTATIONS = 1000


@torch.no_grad()
def networks_of(model: PublishedUniBrain, cohort: Cohort) -> NDArray[np.float64]:
    """Network (persons, 84, 84) of every person."""
    found = torch.cat([model.eval()(image[None]).network for image in cohort.images])
    return found.double().numpy()


def compared(networks: NDArray[np.float64], classes: NDArray[np.int64]) -> Row:
    """Mean edges of the groups, how far their means lie apart, and how far those of groups drawn at random do."""
    rows, columns = np.triu_indices(networks.shape[1], 1)
    edges = networks[:, rows, columns]

    def apart(groups: NDArray[np.int64]) -> float:
        return float(np.abs(edges[groups == 1].mean(0) - edges[groups == 0].mean(0)).mean())

    generator = np.random.default_rng(0)
    chance = np.array([apart(generator.permutation(classes)) for _ in range(_PERMUTATIONS)])
    return {
        f"mean edge, {GROUPS[0]}": f"{edges[classes == 0].mean():.3f}",
        f"mean edge, {GROUPS[1]}": f"{edges[classes == 1].mean():.3f}",
        "apart": f"{apart(classes):.4f}",
        "apart by chance (95 %)": f"{chance.mean():.4f} ({np.percentile(chance, 95):.4f})",
        "p": f"{(1 + (chance >= apart(classes)).sum()) / (1 + _PERMUTATIONS):.3f}",
    }


def draw(path: Path, networks: NDArray[np.float64], classes: NDArray[np.int64]) -> None:
    """Draw the mean matrix of each group, and their difference."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    first, second = (networks[classes == group].mean(0) for group in (0, 1))
    largest = max(float(np.abs(second - first).max()), 1e-6)
    panels = {GROUPS[0]: (first, "viridis", 0, 1), GROUPS[1]: (second, "viridis", 0, 1),
              "second less first": (second - first, "coolwarm", -largest, largest)}  # fmt: skip
    figure, axes = plt.subplots(1, 3, figsize=(12, 4))
    for axis, (title, (matrix, colours, low, high)) in zip(axes, panels.items(), strict=True):
        shown = axis.imshow(matrix, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        axis.set_title(title)
        axis.set_xlabel("region")
        figure.colorbar(shown, ax=axis, shrink=0.8)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main() -> None:
    """Write the table, and the figure of the joint run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("packed/heads.npz"), help="file made by training.packing")
    parser.add_argument("--runs", type=Path, default=Path("work/experiments/unibrain"), help="folder of the runs")
    parser.add_argument("--out", type=Path, default=Path("docs/experiments"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    material = load_material(args.data, args.runs)
    cohort = material.held_out.given
    classes = cohort.classes.numpy()
    rows: list[Row] = []
    for name in SHOWN:
        checkpoint = args.runs / name / "checkpoint.pt"
        if not (args.runs / f"{name}.json").exists():
            continue
        model = recipe_of(RUNS[name], material).model
        assert isinstance(model, PublishedUniBrain)
        model.load_state_dict(average_of(checkpoint))
        networks = networks_of(model, cohort)
        rows.append({"system": RUNS[name].label, **compared(networks, classes)})
        if name == SHOWN[0]:
            draw(args.out / "unibrain-networks.png", networks, classes)
    write_rows(args.out / "unibrain-networks.tsv", rows)


if __name__ == "__main__":
    main()
