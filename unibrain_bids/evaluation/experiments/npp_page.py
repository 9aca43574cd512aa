"""The page of NPP's experiments, made from the tables that are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unibrain_bids.evaluation.experiments.npp_rivals import REDUCED, RIVALS, Answer, RivalRecipe
from unibrain_bids.evaluation.experiments.results import as_markdown, read_rows
from unibrain_bids.model.weights import average_of
from unibrain_bids.training.recipes.basis import EVALUATION_SEED, Heads
from unibrain_bids.training.simulation.simulator import simulate

_HEADINGS = {
    "time": (
        "Run time (the paper's Table 1)",
        "Processor seconds of one thread, without reading or writing; a network's time grows with the voxels, of which "
        "256^3 has 64 times as many as 64^3. The paper: under 8 s on a CPU for 256^3. Reduced: grids "
        "of 64^3 and 128^3, on a machine busy with other work, whose caches the processor's own seconds feel.",
    ),
    "intensity": (
        "Intensity normalisation (Table 2)",
        "Whole scans of 2 mm through each model as the app runs it, compared on the scan's own grid within the true "
        "mask, fields and brains up to one factor; `none` is the scan as it is, in the true mask. The paper (other "
        "data): field SSIM 92.7-98.4 %, brain SSIM 99.1-99.25 %, PSNR 36.2 / 39.4 dB, mask Dice 93.8 %, MSD 2.39 mm. "
        "Reduced: three scans; `npp` is `npp-small`, trained for minutes (its card says how little).",
    ),
    "lambda": (
        "Lambda (Table 3)",
        "One network, whose hypernetwork was taught all lambdas from 0.001 to 10; eight scans on its grid of 4 mm. The "
        "paper's SSIM at 10, 1, .1, .01, .001: 96.4, 99.1, 99.25, 99.24, 99.22 %, best at 0.1.",
    ),
    "rivals": (
        "Rivals (Table 4)",
        "Each was trained on the same simulated scans in the same order for the same number of steps, from the same "
        "parts and with the same settings, and answers in the template's space; twelve scans. The paper's SSIM: naive "
        "U-Net 84.1, U-Net + STN 84.9, UMIRGPIT 84.3, NPP 99.25 %. Reduced: 32 x 40 x 32 voxels of 6 mm, four levels, "
        "{steps} steps of one scan.",
    ),
}
FIGURE = "npp-rivals.png"


def write_page(folder: Path, heads: Heads, runs: Path, *, steps: int) -> None:
    """Write `folder/npp.md` with the tables in `folder`, and the figure of the rivals that are trained."""
    parts = [
        "# NPP's experiments",
        "Made by `python -m unibrain_bids.evaluation.experiments.npp`. Heads are simulated from label maps that were "
        "kept out of training. The paper's figures stand beside for the order of things: its data are real and its "
        "training was long, so that heights don't compare.",
    ]
    for name, (heading, text) in _HEADINGS.items():
        path = folder / f"npp-{name}.tsv"
        if path.exists():
            parts += [f"## {heading}", text.format(steps=steps), as_markdown(read_rows(path)), *_remarks(folder, name)]
    trained = {rival: runs / f"npp-rivals-{steps}" / rival.replace(" ", "-") / "checkpoint.pt" for rival in RIVALS}
    if all(path.exists() for path in trained.values()):
        draw(folder / FIGURE, heads, trained)
        parts.append(
            f"![Scan, answers, truth]({FIGURE})\n\nTwo held-out heads (simulated): the scan, the four answers in the "
            "template's space, the truth."
        )
    (folder / "npp.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _remarks(folder: Path, name: str) -> list[str]:
    """What people have written about a table: `npp-<name>.note` beside it."""
    path = folder / f"npp-{name}.note"
    return [path.read_text(encoding="utf-8").strip()] if path.exists() else []


def draw(path: Path, heads: Heads, trained: dict[str, Path], *, scans: int = 2) -> None:
    """Draw scan, answers and truth of some held-out heads, one row each."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    columns = ["scan", *trained, "truth"]
    figure, axes = plt.subplots(scans, len(columns), figsize=(2 * len(columns), 2.4 * scans), squeeze=False)
    for i, row in enumerate(axes):
        for axis, (name, slice_) in zip(row, _slices(heads, trained, i).items(), strict=True):
            axis.imshow(slice_.T, origin="lower", cmap="gray", vmin=0, vmax=0.6 if name != "scan" else 1)
            axis.set_axis_off()
            axis.set_title(name if i == 0 else "", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _slices(heads: Heads, trained: dict[str, Path], number: int) -> dict[str, NDArray[np.float32]]:
    """An axial slice of the scan, of each answer and of the truth."""
    volumes: dict[str, torch.Tensor] = {}
    for rival, checkpoint in trained.items():
        recipe = RivalRecipe(heads, REDUCED, rival)
        recipe.model.load_state_dict(average_of(checkpoint))
        head = simulate(heads.held_out, recipe.span, EVALUATION_SEED + number, number % len(heads.held_out.heads))
        with torch.inference_mode():
            answer: Answer = recipe.model.eval()(head.image, torch.full((1,), 0.1))
        volumes.setdefault("scan", head.image)
        volumes[rival] = answer.aligned[0]
        truth = recipe.grid.moved(head.normalised, torch.linalg.inv(head.frame_from_grid))
    volumes["truth"] = truth
    return {name: volume[0, 0, :, :, volume.shape[-1] // 2 + 1].numpy() for name, volume in volumes.items()}
