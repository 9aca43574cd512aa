"""The validation finds what is there and nothing else, and nobody stands on both sides of a split."""

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from unibrain_bids.classification.cohort import Cohort, Scaler
from unibrain_bids.classification.graph import Graph
from unibrain_bids.classification.linear import Ridge
from unibrain_bids.classification.permutation import exchanged_targets, refitted_test
from unibrain_bids.classification.scores import auc, classification_scores, youden_threshold
from unibrain_bids.classification.splits import inner_splits, outer_splits, site_splits
from unibrain_bids.classification.validation import HEAD, leakage, validate
from unibrain_bids.errors import UsageError

BENCHMARK = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "classification.py"))
simulated_cohort = BENCHMARK["simulated_cohort"]
RIDGE = (Ridge("ridge"),)


def doubled(cohort: Cohort) -> Cohort:
    """Two scans of each participant."""
    return cohort.take(np.repeat(np.arange(len(cohort)), 2))


def at_sites(cohort: Cohort, count: int) -> Cohort:
    return replace(cohort, sites=np.array([f"site{k // 2 % count}" for k in range(len(cohort))]))


def test_known_effect_is_found_by_ridge_and_permutations():
    validation = validate(
        simulated_cohort(0.9, seed=1, participants=80, regions=20, hit=range(6)), candidates=RIDGE, permutations=199
    )
    assert validation.figures[HEAD]["auc"] > 0.75
    assert validation.refitted.p == pytest.approx(1 / 200)
    assert validation.figures["covariates"]["auc"] < 0.7
    assert validation.refitted.null.mean() == pytest.approx(0.5, abs=0.03)


def test_no_effect_is_not_found():
    p = [
        refitted_test(cohort, outer_splits(cohort, 5, seed), 99, seed).p
        for seed in range(40)
        for cohort in [simulated_cohort(0.0, seed=seed, participants=40, regions=10)]
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.15
    assert 0.35 < np.mean(p) < 0.65


def test_graph_learns_and_repeats_itself():
    cohort = simulated_cohort(1.5, seed=2, participants=64, regions=12, hit=range(6))
    half = np.arange(64) < 40
    train, test = cohort.take(np.flatnonzero(half)), cohort.take(np.flatnonzero(~half))
    scores = Graph().fit(train, 16, seed=3).scores(test)
    assert auc(test.target, scores) > 0.75
    np.testing.assert_array_equal(scores, Graph().fit(train, 16, seed=3).scores(test))


def test_graph_stopped_early_is_the_graph_trained_that_long():
    cohort = simulated_cohort(1.0, seed=2, participants=40, regions=8, hit=range(4))
    splits = inner_splits(cohort, 3, 0, by_site=False)
    setting, held_out = Graph().tune(cohort, splits, seed=5)
    again = Graph().fit(cohort.take(splits[0].train), setting, seed=5).scores(cohort.take(splits[0].test))
    np.testing.assert_allclose(held_out[splits[0].test], again, rtol=1e-5)


def test_participants_are_kept_together_everywhere():
    cohort = at_sites(doubled(simulated_cohort(0.0, seed=1, participants=60, regions=4)), 3)
    for splits in (outer_splits(cohort, 5, 0), inner_splits(cohort, 3, 0, by_site=True), site_splits(cohort)):
        tested = np.concatenate([split.test for split in splits])
        assert sorted(tested) == list(range(len(cohort)))
        for split in splits:
            assert not set(cohort.participants[split.train]) & set(cohort.participants[split.test])


def test_repeated_scans_count_once():
    once = simulated_cohort(0.9, seed=1, participants=60, regions=10, hit=range(5))
    validation = validate(doubled(once), candidates=RIDGE, permutations=19)
    assert len(validation.target) == 60


def test_site_splits_hold_out_whole_sites():
    cohort = at_sites(simulated_cohort(0.0, seed=1, participants=60, regions=4), 3)
    for split in site_splits(cohort):
        assert not set(cohort.sites[split.train]) & set(cohort.sites[split.test])


def test_exchanges_keep_classes_of_folds_and_sites():
    cohort = at_sites(simulated_cohort(0.0, seed=1, participants=60, regions=4), 2)
    splits = outer_splits(cohort, 5, 0)
    targets = exchanged_targets(cohort, splits, 20, 0)
    assert (targets[:, 0] == cohort.target).all()
    assert (targets[:, 1:] != targets[:, :1]).any()
    for split in splits:
        for site in set(cohort.sites):
            rows = split.test[cohort.sites[split.test] == site]
            assert len(set(targets[rows].sum(axis=0))) == 1


def test_scaling_is_learned_from_the_training_part_alone():
    """A wild held-out scan changes its own score and nobody else's."""
    cohort = simulated_cohort(0.9, seed=1, participants=60, regions=10, hit=range(5))
    splits = outer_splits(cohort, 5, 0)
    wild = replace(cohort, regions=cohort.regions.copy())
    wild.regions[splits[0].test[0]] = 1e6
    model = Ridge("ridge").fit(wild.take(splits[0].train), 0.01, 0)
    scores, wild_scores = (model.scores(one.take(splits[0].test)) for one in (cohort, wild))
    assert np.isfinite(wild_scores).all()
    assert wild_scores[0] != scores[0]
    np.testing.assert_array_equal(scores[1:], wild_scores[1:])


def test_age_is_regressed():
    cohort = simulated_cohort(0.0, seed=4, participants=80, regions=10)
    age = 40 + 10 * cohort.regions[:, 0, 0].astype(float) + np.random.default_rng(0).normal(size=80)
    validation = validate(replace(cohort, target=age, classes=None), candidates=RIDGE, permutations=99)
    assert validation.figures[HEAD]["r"] > 0.8
    assert validation.figures[HEAD]["mean_absolute_error"] < 5
    assert validation.refitted.p == pytest.approx(0.01)


def test_features_that_give_the_site_away_are_noticed():
    cohort = at_sites(simulated_cohort(0.0, seed=1, participants=80, regions=6), 2)
    clean = leakage(cohort)
    shifted = replace(cohort, regions=cohort.regions + 2 * (cohort.sites == "site1")[:, None, None].astype("f4"))
    assert clean["balanced_accuracy"] < 0.7 < 0.9 < leakage(shifted)["balanced_accuracy"]
    assert leakage(simulated_cohort(0.0, seed=1, participants=20)) is None


def test_too_few_for_the_folds():
    cohort = simulated_cohort(0.0, seed=1, participants=8, regions=4)
    with pytest.raises(UsageError, match=r"Only 4 participant\(s\) of class control"):
        validate(cohort, candidates=RIDGE)


def test_auc_is_sklearns_and_counts_ties():
    generator = np.random.default_rng(0)
    target, scores = generator.integers(0, 2, (5, 40)).astype(float), generator.integers(0, 9, (5, 40)).astype(float)
    np.testing.assert_allclose(auc(target, scores), [roc_auc_score(*pair) for pair in zip(target, scores, strict=True)])
    assert np.isnan(auc(np.ones(4), np.arange(4.0)))


def test_calibration_of_true_and_of_overconfident_probabilities():
    generator = np.random.default_rng(0)
    logits = 2 * generator.normal(size=4000)
    target = (generator.random(4000) < 1 / (1 + np.exp(-logits))).astype(float)
    good = classification_scores(target, logits, logits > 0, seed=0)
    bold = classification_scores(target, 3 * logits, logits > 0, seed=0)
    assert good["calibration_slope"] == pytest.approx(1, abs=0.1)
    assert bold["calibration_slope"] == pytest.approx(1 / 3, abs=0.05)
    assert good["brier"] < bold["brier"] < good["brier_of_prevalence"]
    low, high = good["auc_interval"]
    assert low < good["auc"] < high < low + 0.06


def test_threshold_separates():
    assert 1 < youden_threshold(np.array([0, 0, 1, 1.0]), np.array([-1, 1, 2, 5.0])) < 2


def test_unknown_and_constant_features_do_no_harm():
    values = np.array([[1.0, np.nan, 3.0], [2.0, np.nan, 3.0], [np.nan, np.nan, 3.0]])
    scaled = Scaler.fit(values)(values)
    assert np.isfinite(scaled).all()
    assert (scaled[:, 1:] == 0).all()
    assert scaled[2, 0] == 0
