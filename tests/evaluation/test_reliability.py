"""How well networks repeat: against known cases and the textbook's example."""

from __future__ import annotations

import numpy as np
import pytest

from unibrain_bids.evaluation.networks import MARK, Study, as_markdown, document, sensitivity, summary, write_below_mark
from unibrain_bids.evaluation.reliability import edges, icc, identifiability, self_others_gap, similarity_of_networks

# Shrout and Fleiss (1979), six targets and four judges: ICC(2,1) = .29
TEXTBOOK = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=np.float64
)


def test_icc_of_the_textbook() -> None:
    np.testing.assert_allclose(icc(TEXTBOOK[:, :, None]), 0.29, atol=0.005)


def test_icc_asks_for_agreement_not_for_order() -> None:
    persons = np.arange(5.0)[:, None]
    same = np.repeat(persons, 3, axis=1)
    shifted = persons + np.array([0.0, 5.0, 10.0])
    found = icc(np.stack([same, shifted, np.ones((5, 3))], axis=2))
    assert found[0] == pytest.approx(1.0) and found[1] < 0.2 and np.isnan(found[2])


def test_edges_leave_out_what_any_network_lacks() -> None:
    networks = np.arange(2 * 3 * 16, dtype=np.float64).reshape(2, 3, 4, 4)
    networks[1, 2, 0, 1] = np.nan
    values = edges(networks)
    assert values.shape == (2, 3, 5)
    np.testing.assert_array_equal(values[0, 0], [2, 3, 6, 7, 11])


class TestIdentifiability:
    def scans(self, noise: float, *, common: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        own, shared = rng.normal(size=(6, 200)), common * rng.normal(size=200)
        return own + shared, own + shared + noise * rng.normal(size=(6, 200))

    def test_persons_are_found_unless_noise_drowns_them(self) -> None:
        assert identifiability(similarity_of_networks(*self.scans(0.2), centred=False)) == 1.0
        assert identifiability(similarity_of_networks(*self.scans(100.0), centred=False)) < 0.7

    def test_what_all_share_counts_for_nothing_when_centred(self) -> None:
        first, second = self.scans(0.2, common=10.0)
        plain, centred = (similarity_of_networks(first, second, centred=c) for c in (False, True))
        assert self_others_gap(plain) < 0.05 < 0.9 < self_others_gap(centred)

    def test_similarity_is_a_correlation(self) -> None:
        first, second = self.scans(1.0)
        expected = np.corrcoef(first, second)[:6, 6:]
        np.testing.assert_allclose(similarity_of_networks(first, second, centred=False), expected, atol=1e-12)


@pytest.fixture
def study() -> Study:
    """Four persons: one kind of network repeats, the other is noise."""
    rng = np.random.default_rng(0)

    def symmetric(values: np.ndarray) -> np.ndarray:
        return values + np.swapaxes(values, -1, -2)

    persons = symmetric(rng.normal(size=(4, 1, 12, 12)))
    noise = symmetric(rng.normal(size=(4, 3, 12, 12)))
    networks = {"kls": persons + 0.05 * noise, "msn": noise}
    return Study("toy", ("original", "noise", "bias"), networks)


def test_study_tells_good_networks_from_noise(study: Study) -> None:
    good, bad = summary(study)
    assert good["ICC(2,1), median"] > 0.95 and good["identifiability"] == 1.0
    assert bad["ICC(2,1), median"] < 0.5 and bad["identifiability"] < 1.0
    good, bad = sensitivity(study)
    assert good["noise: r"] > 0.95 > 0.5 > bad["bias: r"]


def test_document_keeps_what_was_written_above_the_mark(study: Study, tmp_path) -> None:
    path = tmp_path / "networks.md"
    path.write_text("# Words\n\nof a person\n")
    for _ in range(2):
        write_below_mark(path, document([study], "Weights x."))
    text = path.read_text()
    assert text.startswith("# Words\n\nof a person\n") and text.count(MARK) == 1 and text.count("### toy") == 1
    assert as_markdown(summary(study)) in text
