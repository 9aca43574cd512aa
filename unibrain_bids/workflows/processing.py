"""What is done with each scan: the part of the settings that reaches the workflows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unibrain_bids.bids.atlases import AtlasSource
from unibrain_bids.bids.derivatives import DEFAULT_ATLAS, TASKS
from unibrain_bids.bids.templates import Space
from unibrain_bids.classification.card import HeadFile
from unibrain_bids.labels import LabelTable

# Which results each model gives; the others have no counterpart in its paper.
MODELS: dict[str, tuple[str, ...]] = {
    "unified": TASKS,
    "npp": ("mask", "preproc", "register"),
    "unibrain": ("mask", "register", "segment", "parcellate", "network"),
}
DEFAULT_MODEL = "unified"


@dataclass(frozen=True)
class Processing:
    """How one scan is processed, and where its derivatives go.

    Attributes
    ----------
    bids_dir, output_dir
        Root folders of the raw and of the derived dataset, absolute.
    tasks
        Which derivatives are written, some of `TASKS`.
    spaces
        Templates to whose grids results are resampled too; the quality measures tell of the first.
    atlases
        Names of the parcellations: the package's own, and those of `atlas_sources`.
    atlas_sources
        Where the others come from.
    smoothness
        The lambda of the multiplier field.
    device
        "auto", "cpu", "cuda" or "cuda:N".
    omp_nthreads
        CPU threads of one scan.
    random_seed
        Seed of all random number generators.
    heads
        Trained heads that predict; they need the regions and the network.
    weights
        File with other weights than the shipped ones, or None.
    model
        One of `MODELS`.
    nonlinear
        Whether results are deformed to the templates, not only moved there by an affine.
    """

    bids_dir: Path
    output_dir: Path
    tasks: tuple[str, ...] = TASKS
    spaces: tuple[Space, ...] = (Space(),)
    atlases: tuple[str, ...] = (DEFAULT_ATLAS,)
    atlas_sources: tuple[AtlasSource, ...] = ()
    smoothness: float = 0.1
    device: str = "auto"
    omp_nthreads: int = 1
    random_seed: int = 0
    heads: tuple[HeadFile, ...] = ()
    weights: Path | None = None
    model: str = DEFAULT_MODEL
    nonlinear: bool = False

    @property
    def selection(self) -> dict[str, Any]:
        """Which derivatives there will be: the options of `bids.derivatives.catalogue`."""
        labels = tuple(head.label for head in self.heads)
        return {
            "spaces": self.spaces,
            "atlases": self.atlases,
            "tasks": self.tasks,
            "heads": labels,
            "nonlinear": self.nonlinear,
        }

    @property
    def tables(self) -> tuple[LabelTable, ...]:
        """The regions of each atlas, in the order of `atlases`."""
        given = {source.name: source.table for source in self.atlas_sources}
        return tuple(given.get(name) or LabelTable.load(name) for name in self.atlases)

    @property
    def effective(self) -> dict[str, Any]:
        """What has an effect on the results, in JSON types."""
        return {
            **{key: list(value) if isinstance(value, tuple) else value for key, value in self.selection.items()},
            "spaces": [space.effective for space in self.spaces],
            "atlas_sources": [source.effective for source in self.atlas_sources],
            "smoothness": self.smoothness,
            "model": self.model,
            "random_seed": self.random_seed,
            "head_files": [head.sha256 for head in self.heads],
        }
