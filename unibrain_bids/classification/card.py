"""The card of a trained head, which travels inside its file; read without torch.

The file is safetensors, with the card as its metadata: numbers and text, no code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from unibrain_bids import __version__
from unibrain_bids.errors import ResourceError

__all__ = [
    "FORMAT",
    "FROM_MODEL",
    "FROM_TABLES",
    "NETWORK",
    "RESEARCH_USE",
    "HeadFile",
    "find_head",
    "new_card",
    "release",
]

RESEARCH_USE = "Research use only: not a diagnosis, and not for decisions about a person."
FORMAT = 1
NETWORK = "innerproduct"
# What heads see: of the derivatives' tables (`features.features_of`), or of the model's own outputs
# (`model.description`), for heads that were trained together with it. To be changed together with those two.
FROM_TABLES = {
    "regions": ["log volume", "mean intensity"],
    "whole": ["log intracranial volume"],
    "network": NETWORK,
}
FROM_MODEL = {
    "regions": ["embedding", "log volume"],
    "whole": ["log intracranial volume", "log volume of ventricles", "log volume of cerebral white matter"],
    "network": NETWORK,
}


@dataclass(frozen=True)
class HeadFile:
    """A head on disk.

    Attributes
    ----------
    path
        Its file.
    label
        Label in the names of its predictions.
    sha256
        Of the file.
    card
        JSON: label, target, classes, weights and atlas whose derivatives it was trained on, validation, use.
    """

    path: Path
    label: str
    sha256: str
    card: dict[str, Any]

    @property
    def sees_model(self) -> bool:
        """Whether it sees the model's own outputs, and not the tables of the derivatives."""
        return bool(self.card["Model"]["Features"] == FROM_MODEL)

    def check(self, *, weights: str | None, atlas: str, version: str = __version__) -> None:
        """See to it that the head was trained on derivatives of the same making.

        Parameters
        ----------
        weights
            SHA-256 of the model's weights; None, where they are not known, fits no head.
        atlas
            Label of the atlas.
        version
            Of the package that made the derivatives; what follows the second number does not matter.

        Raises
        ------
        ResourceError
            It was not.
        """
        model = self.card["Model"]
        remedy = "Use a head that was trained with this version of the package, or train it again (group --classify)."
        if model["Atlas"] != atlas:
            raise ResourceError(f"{self.path}: trained on regions of the atlas {model['Atlas']}, not {atlas}.", remedy)
        if model["Features"] not in (FROM_TABLES, FROM_MODEL):
            raise ResourceError(f"{self.path}: made for other features of the regions.", remedy)
        if model["Weights"] != weights:
            here, now = model["Weights"][:12], (weights or "unknown")[:12]
            remedy += " Weights of your own are given as --weights FILE."
            raise ResourceError(f"{self.path}: trained with the model's weights {here}, not {now}.", remedy)
        if model["Version"] != release(version):
            here, now = model["Version"], release(version)
            raise ResourceError(f"{self.path}: trained on derivatives by version {here}, not {now}.", remedy)


def find_head(name: str | Path) -> HeadFile:
    """Read the card of a head: a file, or the name of one that comes with the package.

    Raises
    ------
    ResourceError
        There is none, the file is damaged, or it is no head of this format.
    """
    from safetensors import SafetensorError, safe_open

    folder = Path(str(files("unibrain_bids") / "resources" / "heads"))
    built_in = {path.stem: path for path in sorted(folder.glob("*.safetensors"))}
    path = built_in.get(str(name), Path(name).absolute())  # nodes run in folders of their own
    if not path.is_file():
        known = f"Give the .safetensors file of a head{', or one of: ' if built_in else ''}{', '.join(built_in)}."
        raise ResourceError(f"{path}: there is no such head.", known)
    try:
        with safe_open(path, framework="numpy") as opened:
            card = json.loads((opened.metadata() or {}).get("card", "null"))
    except (OSError, SafetensorError, ValueError) as error:
        raise ResourceError(f"{path}: cannot be read as a head ({error}).", "Give a head's .safetensors.") from error
    if not isinstance(card, dict) or card.get("Format") != FORMAT:
        raise ResourceError(f"{path}: is no head of format {FORMAT}.", "Train it again with this version.")
    return HeadFile(path, str(card["Label"]), hashlib.sha256(path.read_bytes()).hexdigest(), card)


def release(version: str) -> str:
    """Return the first two numbers of a version: derivatives of the same release can be compared."""
    return ".".join(version.split(".")[:2])


def new_card(
    label: str,
    target: str,
    classes: tuple[str, str] | None,
    *,
    weights: str,
    version: str,
    atlas: str,
    features: Mapping[str, Any] = FROM_TABLES,
    **more: Any,
) -> dict[str, Any]:
    """Return a card with what a head needs to be applied, and `more`."""
    return {
        "Format": FORMAT,
        "Label": label,
        "Target": target,
        "Classes": list(classes) if classes else None,
        "Use": RESEARCH_USE,
        "Model": {"Weights": weights, "Version": release(version), "Atlas": atlas, "Features": features},
        **more,
    }
