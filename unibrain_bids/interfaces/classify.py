"""Trained heads as a Nipype interface: tables of a scan in, predictions out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, TraitedSpec, traits

from unibrain_bids.bids.atomic import write_tsv
from unibrain_bids.bids.derivatives import DEFAULT_ATLAS
from unibrain_bids.bids.tables import read_network, read_quality, read_regions
from unibrain_bids.classification.card import NETWORK, RESEARCH_USE, HeadFile
from unibrain_bids.classification.features import Features, features_of
from unibrain_bids.classification.head import load_head
from unibrain_bids.classification.tables import column_texts, prediction_row


class _ClassifyInput(BaseInterfaceInputSpec):
    heads = traits.List(traits.Instance(HeadFile), mandatory=True, desc="trained heads")
    files = traits.Dict(
        traits.Str,
        traits.Str,
        mandatory=True,
        desc="quality measures, learned network, the model's description, by role",
    )
    regions = traits.Dict(traits.Str, traits.Str, mandatory=True, desc="tables of regions, by role")


class _ClassifyOutput(TraitedSpec):
    files = traits.Dict(traits.Str, traits.Str, desc="role in `bids.derivatives.catalogue` -> table")
    sidecars = traits.Dict(traits.Str, traits.Any, desc="role -> what its sidecar says beyond the catalogue")


class ClassifyScan(SimpleInterface):
    """Write one table of one row per head, and what its sidecar says: the columns, and the head's card."""

    input_spec = _ClassifyInput
    output_spec = _ClassifyOutput

    def _run_interface(self, runtime: Any) -> Any:
        tables, sidecars = {}, {}
        for file in self.inputs.heads:
            head = load_head(file)
            features = self._model_features() if file.sees_model else self._table_features()
            role = f"prediction_{file.label}"
            path = Path(runtime.cwd) / f"{role}.tsv"
            write_tsv(path, [prediction_row(head, head.apply(features))])
            tables[role] = str(path)
            sidecars[role] = {
                **column_texts(head),
                "Use": RESEARCH_USE,
                "Classifier": {"SHA256": file.sha256, "Card": file.card},
            }
        self._results["files"], self._results["sidecars"] = tables, sidecars
        return runtime

    def _table_features(self) -> Features:
        return features_of(
            read_regions(Path(self.inputs.regions[f"regions_{DEFAULT_ATLAS}"])),
            read_network(Path(self.inputs.files[f"network_{DEFAULT_ATLAS}_{NETWORK}"])),
            read_quality(Path(self.inputs.files["quality"])),
        )

    def _model_features(self) -> Features:
        with np.load(self.inputs.files["description"]) as stored:
            return Features(**stored)
