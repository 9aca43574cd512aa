"""Tissues from structures, and the intensities that they have at a place."""

from __future__ import annotations

import pytest
import torch

from unibrain_bids.labels import LabelTable
from unibrain_bids.model import frame
from unibrain_bids.model.contrast import Contrast, Levels
from unibrain_bids.model.evidence import Evidence
from unibrain_bids.model.tissues import (
    FLUID,
    GRAY,
    WHITE,
    TissuePrior,
    log_probability,
    shared_evidence,
    tissue_log_probability,
    tissue_of_class,
)

CLASSES = len(frame.STRUCTURES) + 1


def channel(number: int) -> int:
    return 1 + frame.STRUCTURES.index(number)


def one_voxel(shares: dict[int, float]) -> torch.Tensor:
    """Logarithms of the probabilities of FreeSurfer's numbers (0: no structure) in a volume of one voxel."""
    probability = torch.full((1, CLASSES, 1, 1, 1), 1e-9)
    for number, share in shares.items():
        probability[0, channel(number) if number else 0] = share
    return probability.log()


def known(intensities: dict[int, tuple[float, float]]) -> Contrast:
    mean, spread, there = torch.zeros(CLASSES), torch.ones(CLASSES), torch.zeros(CLASSES, dtype=torch.bool)
    for number, (level, sd) in intensities.items():
        where = channel(number) if number else 0
        mean[where], spread[where], there[where] = level, sd, True
    return Contrast(Levels(10.0, 60.0, 100.0), Evidence(mean, spread, there))


def test_each_class_is_of_the_table_s_tissue() -> None:
    tissue = tissue_of_class()
    assert len(tissue) == CLASSES and tissue[0] == FLUID
    for row in LabelTable.load("aseg"):
        assert tissue[channel(row.index)] == {"CSF": FLUID, "GM": GRAY, "WM": WHITE}[row.tissue]


def test_probabilities_of_a_tissue_s_structures_add_up() -> None:
    torch.manual_seed(0)
    structures = torch.randn(1, CLASSES, 3, 2, 2).log_softmax(1)
    tissues = tissue_log_probability(structures).exp()
    torch.testing.assert_close(tissues.sum(1), torch.ones(1, 3, 2, 2))
    gray = structures.exp()[:, tissue_of_class() == GRAY].sum(1)
    torch.testing.assert_close(tissues[:, GRAY], gray)
    assert log_probability(torch.tensor([0.0, 900.0]).view(1, 2, 1, 1, 1)).min() > -13


def test_a_tissue_has_the_intensities_of_the_structures_that_may_lie_there() -> None:
    """Between pallidum and thalamus grey matter is brighter than in the cortex; how far they lie apart is spread, too.

    Fluid is what it is in the ventricles (10), not what sulci that share their voxels with cortex show of it (25).
    """
    contrast = known({3: (60.0, 5.0), 13: (90.0, 3.0), 10: (80.0, 4.0), 2: (100.0, 5.0), 0: (25.0, 6.0)})
    cortex = TissuePrior.of(one_voxel({3: 0.6, 2: 0.3, 0: 0.1}), contrast)
    assert cortex.mean.flatten().tolist() == pytest.approx([10, 60, 100], abs=1.5)
    assert float(cortex.spread) == pytest.approx(((36 + 25 + 25) / 3) ** 0.5, abs=0.6)
    deep = TissuePrior.of(one_voxel({13: 0.25, 10: 0.25, 2: 0.5}), contrast)
    assert float(deep.mean[0, GRAY]) == pytest.approx(85, abs=0.5)
    # The fluid, which is not there, has the usual spread: half of the distance from grey to white matter.
    assert float(deep.spread) == pytest.approx(((3.5**2 + 5**2 + 5**2 + 20**2) / 3) ** 0.5, abs=0.6)
    assert deep.logits.exp().flatten().tolist() == pytest.approx([0, 0.5, 0.5], abs=1e-3)


def test_a_voxel_that_two_tissues_share_is_undecided() -> None:
    """However differently their intensities scatter: the half-way intensity says nothing."""
    prior = TissuePrior.of(one_voxel({3: 0.5, 2: 0.5}), known({3: (60.0, 12.0), 2: (100.0, 4.0)}))
    scans = (torch.full((1, 1, 1, 1, 1), level) for level in (80.0, 75.0, 85.0))
    middle, *sides = (prior.log_likelihood(scan).flatten() for scan in scans)
    assert float(middle[GRAY]) == pytest.approx(float(middle[WHITE]), abs=0.05)
    assert [int(side.argmax()) for side in sides] == [GRAY, WHITE]


def test_where_intensities_are_not_known_the_levels_stand_for_them() -> None:
    prior = TissuePrior.of(one_voxel({3: 0.4, 2: 0.4, 0: 0.2}), known({}))
    assert prior.mean.flatten().tolist() == pytest.approx([10, 60, 100], abs=0.1)
    likelihood = prior.log_likelihood(torch.tensor(62.0).view(1, 1, 1, 1, 1))
    assert int(likelihood.argmax()) == GRAY and torch.isfinite(likelihood).all()


def test_levels_that_lie_together_are_no_division_by_zero() -> None:
    contrast = Contrast(Levels(0.0, 0.0, 0.0), known({}).evidence)
    likelihood = TissuePrior.of(one_voxel({3: 1.0}), contrast).log_likelihood(torch.ones(1, 1, 1, 1, 1))
    assert torch.isfinite(likelihood).all()


def test_shades_of_a_place_lie_between_the_means_of_its_tissues() -> None:
    """Near the thalamus half-way to white matter is another intensity than in the cortex; no contrast, no shade."""
    contrast = known({3: (60.0, 2.0), 10: (80.0, 2.0), 2: (100.0, 2.0)})
    for number, half in ((3, 80.0), (10, 90.0)):
        prior = TissuePrior.of(one_voxel({number: 0.5, 2: 0.5}), contrast)
        shades = [prior.shades(torch.full((1, 1, 1, 1, 1), level))[0, 1].item() for level in (half, half + 5, half - 5)]
        assert shades[0] == pytest.approx(0, abs=0.02)
        assert shades[1] == pytest.approx(-shades[2], abs=0.02) and shades[1] > 0.1
    inverted = TissuePrior.of(one_voxel({3: 0.5, 2: 0.5}), known({3: (100.0, 2.0), 2: (60.0, 2.0)}))
    assert float(inverted.shades(torch.full((1, 1, 1, 1, 1), 65.0))[0, 1]) > 0.2
    alike = TissuePrior.of(one_voxel({3: 0.5, 2: 0.5}), known({3: (80.0, 9.0), 2: (80.0, 9.0)}))
    assert float(alike.shades(torch.full((1, 1, 1, 1, 1), 90.0))[0, 1].abs()) < 0.1


def test_evidence_that_is_shared_has_one_spread_and_the_ventricles_fluid() -> None:
    white, gray = (100.0, 3.0), (60.0, 5.0)
    evidence = shared_evidence(known({2: white, 41: white, 3: gray, 42: gray, 0: (25.0, 6.0)}))
    at = {number: channel for channel, number in enumerate((0, *frame.STRUCTURES))}
    means = [float(evidence.mean[at[number]]) for number in (0, 4, 3, 2, 10)]
    # The fluid of sulci shows 25, that of the ventricles 10; nobody has seen the thalamus: it is grey.
    assert means == [10, 10, 60, 100, 60] and bool(evidence.known.all())
    torch.testing.assert_close(evidence.spread, torch.full_like(evidence.spread, 17**0.5))
    torch.testing.assert_close(shared_evidence(known({})).spread, torch.full_like(evidence.spread, 20.0))
