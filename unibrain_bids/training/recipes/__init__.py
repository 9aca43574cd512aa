"""Recipes: what each training command trains, on what, towards what."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unibrain_bids.errors import UsageError
from unibrain_bids.model.atlas import Atlas
from unibrain_bids.model.presets import NPP, NPP_SMALL, UNIBRAIN, UNIBRAIN_8MM, UNIBRAIN_SMALL, UNIBRAIN_TINY
from unibrain_bids.model.weights import average_of, load_weights
from unibrain_bids.training.recipes.basis import Heads
from unibrain_bids.training.recipes.locating import AlignerRecipe, FirstLookRecipe
from unibrain_bids.training.recipes.network import PERSONS, NetworkRecipe
from unibrain_bids.training.recipes.npp import NppRecipe
from unibrain_bids.training.recipes.parcellation import ParcellationRecipe
from unibrain_bids.training.recipes.published import PublishedRecipe
from unibrain_bids.training.recipes.refiner import RefinerRecipe
from unibrain_bids.training.recipes.unified import UnifiedRecipe
from unibrain_bids.training.trainer import Recipe

# Name, in the weights file, of the module that each recipe trains.
MODULES = {
    "first-look": "first_look", "aligner": "aligner", "unified": "unibrain",
    "parcellation": "unibrain.parcellation", "network": "unibrain.network", "refiner": "refiner",
    "npp": "npp", "npp-small": "npp",
    "unibrain": "published", "unibrain-small": "published", "unibrain-8mm": "published", "unibrain-tiny": "published",
}  # fmt: skip

_NPP = {preset.name: preset for preset in (NPP, NPP_SMALL)}
_PUBLISHED = {preset.name: preset for preset in (UNIBRAIN, UNIBRAIN_SMALL, UNIBRAIN_8MM, UNIBRAIN_TINY)}


def make(
    name: str,
    heads: Heads,
    atlas_path: Path,
    unified: Path | None,
    folder: Path,
    *,
    parcellation: Path | None = None,
    persons: int = PERSONS,
) -> Recipe | NetworkRecipe:
    """The recipe of that name.

    Parameters
    ----------
    heads
        Label maps.
    atlas_path
        The population's soft atlas.
    unified
        Folder of a run of `unified`, or a weights file, on which `refiner`, `parcellation` and `network` build.
    folder
        Of the run to come.
    parcellation
        Folder of a run of `parcellation` that `network` shall take into the model.
    persons
        How many the recipe `network` simulates for training.
    """
    if name == "first-look":
        return FirstLookRecipe(heads)
    if name in _NPP:
        return NppRecipe(heads, _NPP[name])
    with np.load(atlas_path) as arrays:
        atlas = Atlas.from_arrays(arrays)
    if name in _PUBLISHED:
        return PublishedRecipe.simulated(heads, atlas, _PUBLISHED[name])
    if name == "aligner":
        return AlignerRecipe(heads, atlas)
    recipe = UnifiedRecipe(heads, atlas)
    if name == "unified":
        return recipe
    if unified is None:
        raise UsageError(f"The recipe {name!r} needs a trained model.", "Give --unified, a run's folder or weights.")
    model = recipe.model.to(heads.training.t1.device).eval().requires_grad_(False)
    if unified.is_file():
        load_weights(unified, {MODULES["unified"]: model})
    else:
        model.load_state_dict(average_of(unified / "checkpoint.pt"))
    if name == "refiner":
        return RefinerRecipe(heads, model)
    if name == "parcellation":
        model.parcellation.requires_grad_(True)
        return ParcellationRecipe(heads, model)
    if parcellation is not None:
        model.parcellation.load_state_dict(average_of(parcellation / "checkpoint.pt"))
    return NetworkRecipe.build(model, heads.training, heads.held_out, folder, persons)
