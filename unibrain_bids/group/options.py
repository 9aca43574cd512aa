"""What the group level is asked to do: the part of the settings that reaches it."""

from __future__ import annotations

from dataclasses import dataclass

from unibrain_bids.classification.card import HeadFile

__all__ = ["GroupOptions"]


@dataclass(frozen=True)
class GroupOptions:
    """Options of the group level; column names are those of participants.tsv.

    Attributes
    ----------
    compare
        Column by which regions and edges are compared: two classes, or numbers.
    classify, regress
        Column that a classifier, or a regression, learns to predict.
    classes
        The two values that are compared or told apart, where the column has more; the second one is the positive
        class.
    covariates
        Columns that comparisons are adjusted for and that the baseline without images sees; None for those of age and
        sex.
    site
        Column with the site of each participant; None for one that is named so, if there is one.
    heads
        Trained heads that predict.
    permutations
        Random permutations of the labels in each test.
    random_seed
        Seed of splits, permutations and networks.
    """

    compare: str | None = None
    classify: str | None = None
    regress: str | None = None
    classes: tuple[str, str] | None = None
    covariates: tuple[str, ...] | None = None
    site: str | None = None
    heads: tuple[HeadFile, ...] = ()
    permutations: int = 1000
    random_seed: int = 0
