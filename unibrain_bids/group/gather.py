"""One pass over all scans: everything that is kept of them is small, or a running sum."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from unibrain_bids.bids.tables import REGION_MEASURES
from unibrain_bids.classification.card import NETWORK
from unibrain_bids.classification.features import Features, features_of
from unibrain_bids.errors import ScanError
from unibrain_bids.group.comparison import Comparison, Question
from unibrain_bids.group.derivatives import NETWORKS, Maker, ScanTables
from unibrain_bids.group.statistics import Means
from unibrain_bids.group.targets import INTRACRANIAL
from unibrain_bids.labels import LabelTable

__all__ = ["Gathered", "ScanData", "gather"]

logger = logging.getLogger(__name__)

_VOLUME = REGION_MEASURES.index("volume")


@dataclass(frozen=True)
class ScanData:
    """The content of the tables of one scan.

    Attributes
    ----------
    scan
        Where they are.
    quality
        Quality measures by name.
    regions
        (R, M) measures of the regions; None where the table is missing or damaged.
    networks
        Measure to (R, R); empty where one is missing or damaged.
    """

    scan: ScanTables
    quality: dict[str, float]
    regions: NDArray[np.float64] | None = None
    networks: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)


@dataclass
class Gathered:
    """What is left of all scans after the pass.

    Attributes
    ----------
    scans, quality, volumes
        The scans in order, their quality measures, and their regions' volumes (R,) in mm3 (NaN without a table).
    excluded
        Scan or participant to the reason why it, or a part of it, is missing.
    makers
        What made the derivatives (None where unknown), and of how many scans.
    means
        Mean networks over participants, by measure; edges (R (R - 1) / 2,).
    regions, edges
        The comparison, if one was asked for: of regions (R x M outcomes), and of edges by network.
    features
        What heads see of each scan with all tables: only if that was asked for.
    """

    scans: list[ScanTables] = field(default_factory=list)
    quality: list[dict[str, float]] = field(default_factory=list)
    volumes: list[NDArray[np.float64]] = field(default_factory=list)
    excluded: dict[str, str] = field(default_factory=dict)
    makers: dict[Maker | None, int] = field(default_factory=dict)
    means: dict[str, Means] = field(default_factory=dict)
    regions: Comparison | None = None
    edges: dict[str, Comparison] = field(default_factory=dict)
    features: list[tuple[ScanTables, Features]] = field(default_factory=list)


def gather(scans: Sequence[ScanTables], *, question: Question | None = None, keep: bool = False) -> Gathered:
    """Read all scans once.

    Parameters
    ----------
    scans
        Sorted by participant.
    question
        A comparison to sum up; participants count once, with the mean of their scans.
    keep
        Whether to keep what heads see (29 kB per scan).
    """
    n_regions = len(LabelTable.load("DK").rows)
    n_edges = n_regions * (n_regions - 1) // 2
    result = Gathered(means={measure: Means(n_edges) for measure in NETWORKS})
    if question is not None:
        result.regions = Comparison(question, n_regions * len(REGION_MEASURES))
        result.edges = {measure: Comparison(question, n_edges) for measure in NETWORKS}
    for participant, group in groupby(_read(scans, result.excluded), key=lambda data: data.scan.participant):
        members = list(group)
        for data in members:
            _note(result, data, n_regions)
            if keep and data.regions is not None:
                features = features_of(data.regions, data.networks[NETWORK], data.quality)
                result.features.append((data.scan, features))
        _add_participant(result, participant, members)
    return result


def upper(network: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the upper triangle (R (R - 1) / 2,) of a network (R, R), without the diagonal."""
    return network[np.triu_indices(len(network), k=1)]


def _read(scans: Iterable[ScanTables], excluded: dict[str, str]) -> Iterator[ScanData]:
    for scan in scans:
        try:
            quality = scan.quality()
        except ScanError as error:
            excluded[scan.record.key] = str(error)
            logger.warning("%s is left out: %s", scan.record.key, error)
            continue
        try:
            regions = scan.regions()
            networks = {measure: scan.network(measure) for measure in NETWORKS}
        except ScanError as error:
            excluded[scan.record.key] = f"only its quality measures are used: {error}"
            yield ScanData(scan, quality)
            continue
        yield ScanData(scan, quality, regions, networks)


def _note(result: Gathered, data: ScanData, n_regions: int) -> None:
    result.scans.append(data.scan)
    result.quality.append(data.quality)
    unknown = np.full(n_regions, np.nan)
    result.volumes.append(unknown if data.regions is None else data.regions[:, _VOLUME].copy())
    maker = data.scan.maker
    result.makers[maker] = result.makers.get(maker, 0) + 1


def _add_participant(result: Gathered, participant: str, members: Sequence[ScanData]) -> None:
    whole = [data for data in members if data.regions is not None]
    if not whole:
        return
    intracranial = _mean([np.array(data.quality.get(INTRACRANIAL, math.nan)) for data in whole])
    if result.regions is not None:
        measures = _mean([data.regions.ravel() for data in whole if data.regions is not None])
        result.regions.add(participant, measures, float(intracranial))
    for measure in NETWORKS:
        edges = _mean([upper(data.networks[measure]) for data in whole])
        result.means[measure].add(edges)
        if result.edges:
            result.edges[measure].add(participant, edges, float(intracranial))


def _mean(values: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """Mean of the known values of a participant's scans, NaN where none is known."""
    table = np.stack(values)
    known = np.isfinite(table)
    with np.errstate(invalid="ignore"):
        return np.where(known, table, 0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)
