"""The tables of NPP's paper on held-out label maps: run time, intensity normalisation, lambda, and rivals.

Each function gives the rows of one table; `python -m unibrain_bids.evaluation.experiments npp-...` writes them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unibrain_bids.evaluation import metrics
from unibrain_bids.evaluation.experiments.results import Row

if TYPE_CHECKING:
    from unibrain_bids.imaging.scan import Scan
    from unibrain_bids.inference import AnyModel, Prediction
    from unibrain_bids.inference.npp import NppModel
    from unibrain_bids.model.presets import NppPreset
    from unibrain_bids.training.recipes.basis import Heads
    from unibrain_bids.training.simulation.simulator import SimulatedHead

LAMBDAS = (10.0, 1.0, 0.1, 0.01, 0.001)
# Voxels of the scans of `intensity_rows`, mm, and their grid.
_SPACING, _SHAPE = 2.0, (104, 128, 112)
_SMALLEST = 1e-6
_RIVAL_FIGURES = {
    "SSIM, whole grid": "ssim", "SSIM, brain": "ssim_brain", "PSNR, brain (dB)": "psnr_brain",
    "SSIM, brain, unmoved": "ssim_brain_in_place", "PSNR, brain, unmoved (dB)": "psnr_brain_in_place",
}  # fmt: skip


def time_rows(presets: Sequence[tuple[NppPreset, int]], scan: Scan, models: Mapping[str, AnyModel]) -> list[Row]:
    """Table 1: processor seconds of one thread.

    Parameters
    ----------
    presets
        Networks to time by themselves, each on a cube of so many voxels a side.
    scan
        What the app's models are timed on, from the scan to all of its results in memory.
    models
        Those models, by name.
    """
    import torch

    from unibrain_bids.inference import predict
    from unibrain_bids.model.npp import NPP

    rows: list[Row] = []
    for preset, side in presets:
        network = NPP(replace(preset, shape=(side, side, side), spacing=256 / side)).eval()
        image, smoothness = torch.rand(1, 1, side, side, side), torch.full((1,), 0.1)
        with torch.inference_mode():
            seconds = _processor_seconds(partial(network, image, smoothness))
        parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        what = {"what": f"network of {preset.name}", "grid": f"{side}^3"}
        rows.append({**what, "parameters (M)": f"{parameters:.2f}", "s": seconds})
    for name, model in models.items():
        seconds = _processor_seconds(partial(predict, scan, model=model))
        size = " x ".join(map(str, scan.data.shape))
        rows.append({"what": f"predict, --model {name}", "grid": size, "parameters (M)": "", "s": seconds})
    return rows


def full_scan(heads: Heads) -> Scan:
    """A whole simulated head with voxels of 1 mm: one of 2 mm, interpolated (simulating it takes too much memory)."""
    from torch.nn import functional

    from unibrain_bids.evaluation.networks import as_scan

    coarse = simulated_scan(heads, 0, _SPACING)[0].image
    return as_scan(functional.interpolate(coarse, scale_factor=_SPACING, mode="trilinear")[0, 0].numpy(), 1.0)


def _processor_seconds(work: Callable[[], object]) -> float:
    """Processor time of this process: what other processes do at the same time does not count."""
    start = time.process_time()
    work()
    return time.process_time() - start


def intensity_rows(
    heads: Heads, models: Mapping[str, AnyModel], *, scans: int = 4, spacing: float = _SPACING
) -> list[Row]:
    """Table 2: field, brain and mask of whole scans, by each model and without any correction.

    Fields and brains are compared up to a factor within the true mask; "none" is the scan as it is in the true mask.
    """
    from unibrain_bids.inference import predict

    found: dict[str, list[dict[str, float]]] = {}
    for i in range(scans):
        head, scan = simulated_scan(heads, i, spacing)
        found.setdefault("none", []).append(_compared(head, scan.data, np.ones_like(scan.data), None, spacing))
        for name, model in models.items():
            seen: Prediction = predict(scan, model=model)
            found.setdefault(name, []).append(_compared(head, seen.brain, seen.gain, seen.mask, spacing))
            print(f"scan {i + 1} of {scans}, {name}: {found[name][-1]}", flush=True)
    return [{"method": name, **_means(records)} for name, records in found.items()]


def simulated_scan(heads: Heads, number: int, spacing: float) -> tuple[SimulatedHead, Scan]:
    """A whole simulated head with its truth, and as a scan with voxels of so many mm."""
    from unibrain_bids.evaluation.networks import as_scan
    from unibrain_bids.training.recipes.basis import EVALUATION_SEED
    from unibrain_bids.training.simulation.geometry import PoseRange
    from unibrain_bids.training.simulation.simulator import SimulationRange, simulate

    x, y, z = (round(n * _SPACING / spacing) for n in _SHAPE)
    pose = PoseRange(8.0, 6.0, 0.06, 0.02)
    span = SimulationRange((x, y, z), spacing, pose, t1_fraction=1.0, bias=0.4, missing_parts=False)
    head = simulate(heads.held_out, span, EVALUATION_SEED + 500 + number, number % len(heads.held_out.heads))
    return head, as_scan(head.image[0, 0].numpy(), spacing)


def _compared(
    head: SimulatedHead, brain: NDArray, gain: NDArray, mask: NDArray | None, spacing: float
) -> dict[str, float]:
    truth = head.brain[0, 0].numpy() > 0
    clean, bias = head.normalised[0, 0].numpy(), np.exp(-head.log_gain[0, 0].numpy())
    inside = truth if mask is None else mask > 0
    values = {}
    for name, exact, estimate in (("field", bias, 1 / np.maximum(gain, _SMALLEST)), ("brain", clean, brain)):
        scaled = metrics.scaled_to(exact, estimate, truth)
        peak = float(np.percentile(exact[truth], 99.9))
        values[f"{name} SSIM"] = metrics.ssim(exact, scaled, truth, data_range=peak)
        values[f"{name} PSNR (dB)"] = metrics.psnr(exact, scaled, truth, data_range=peak)
    values["mask Dice"] = metrics.dice(truth, inside) if mask is not None else float("nan")
    distance = metrics.surface_distances(truth, inside, [spacing] * 3).mean if mask is not None else float("nan")
    return values | {"mask MSD (mm)": distance}


def lambda_rows(heads: Heads, model: NppModel, *, scans: int = 8) -> list[Row]:
    """Table 3: one network (the hypernetwork knows all lambdas) at each lambda, on its own conformed grid."""
    import torch

    from unibrain_bids.training import objectives
    from unibrain_bids.training.recipes.basis import EVALUATION_SEED
    from unibrain_bids.training.recipes.npp import npp_figures, span_of
    from unibrain_bids.training.simulation.simulator import simulate

    span = replace(span_of(model.network.preset), missing_parts=False)
    found: dict[float, list[dict[str, float]]] = {value: [] for value in LAMBDAS}
    for i in range(scans):
        head = simulate(heads.held_out, span, EVALUATION_SEED + i, i % len(heads.held_out.heads))
        truth = head.brain[0, 0].numpy() > 0
        clean = head.normalised[0, 0].numpy()
        for value in LAMBDAS:
            with torch.inference_mode():
                outputs = model.network(head.image, torch.full((1,), value))
                figures = npp_figures(model.network, outputs, head)
            estimate, peak = outputs.normalised[0, 0].numpy(), float(np.percentile(clean[truth], 99.9))
            found[value].append(
                {
                    "SSIM, whole grid": figures["ssim"],
                    "SSIM, brain": metrics.ssim(clean, estimate, truth, data_range=peak),
                    "PSNR, brain (dB)": metrics.psnr(clean, estimate, truth, data_range=peak),
                    "mask Dice": figures["brain_dice"],
                    "total variation of chi": float(objectives.total_variation(outputs.multiplier.chi_half())),
                }
            )
    return [{"lambda": value, **_means(records)} for value, records in found.items()]


def rival_rows(heads: Heads, folder: Path, *, steps: int) -> list[Row]:
    """Table 4: rivals trained for the same number of scans; runs that are in `folder` already go on from there."""
    from unibrain_bids.evaluation.experiments.npp_rivals import REDUCED, RIVALS, train_rival

    rows: list[Row] = []
    for rival, kind in RIVALS.items():
        run = folder / f"npp-rivals-{steps}" / rival.replace(" ", "-")
        figures = train_rival(heads, rival, run, steps=steps)
        parameters = sum(parameter.numel() for parameter in kind(REDUCED).parameters()) / 1e6
        shown = {title: figures.get(name, math.nan) for title, name in _RIVAL_FIGURES.items()}
        rows.append({"method": rival, "parameters (M)": parameters, **shown})
    return rows


def _means(records: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([record[name] for record in records])) for name in records[0]}
