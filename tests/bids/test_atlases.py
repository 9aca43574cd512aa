"""Atlases by file: name, template, table, description; and what is said of those that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from unibrain_bids.bids.atlases import find_atlas, load_atlas_image
from unibrain_bids.errors import ResourceError


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    """A BIDS-named atlas of two regions with its table."""
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1], labels[2] = 5, 9
    path = tmp_path / "tpl-MNI152NLin6Asym_res-1_atlas-Two_dseg.nii.gz"
    nib.Nifti1Image(labels, np.diag([2.0, 2, 2, 1])).to_filename(path)
    (tmp_path / "tpl-MNI152NLin6Asym_res-1_atlas-Two_dseg.tsv").write_text("index\tname\n5\tfront\n9\tback\n")
    return path


def test_everything_from_the_name(atlas: Path) -> None:
    source = find_atlas(str(atlas))
    assert (source.name, source.space, source.image) == ("Two", "MNI152NLin6Asym", atlas)
    assert source.table.names == ("front", "back")
    assert source.description["Name"] == "Two" and source.description["License"]
    labels, affine = load_atlas_image(source)
    assert set(np.unique(labels)) == {0, 5, 9} and affine[0, 0] == 2


def test_a_named_space_wins_and_a_plain_name_becomes_the_label(atlas: Path, tmp_path: Path) -> None:
    plain = tmp_path / "my atlas_v2.nii.gz"
    atlas.rename(plain)
    (tmp_path / "tpl-MNI152NLin6Asym_res-1_atlas-Two_dseg.tsv").rename(tmp_path / "my atlas_v2.tsv")
    assert find_atlas(f"{plain}:MNI152NLin2009cAsym").space == "MNI152NLin2009cAsym"
    assert find_atlas(f"{plain}:MNI152NLin2009cAsym").name == "myatlasv2"
    with pytest.raises(ResourceError, match="which template's space"):
        find_atlas(str(plain))


def test_description_beside_it(atlas: Path) -> None:
    beside = atlas.with_name("atlas-Two_description.json")
    beside.write_text(json.dumps({"Name": "The two", "License": "CC0"}))
    assert find_atlas(str(atlas)).description == {"Name": "The two", "License": "CC0"}


def test_results_depend_on_image_table_and_space(atlas: Path) -> None:
    before = find_atlas(str(atlas)).effective
    assert find_atlas(f"{atlas}:MNI152NLin2009cAsym").effective != before
    table = atlas.with_name(atlas.name.replace(".nii.gz", ".tsv"))
    table.write_text(table.read_text().replace("back", "rear"))
    assert find_atlas(str(atlas)).effective != before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path, table: path.unlink(), "no such atlas"),
        (lambda path, table: path.write_bytes(b"no image"), "cannot be read"),
        (lambda path, table: table.unlink(), "label table cannot be read"),
        (lambda path, table: table.write_text("index\tname\n5\tfront\n"), "lacks the labels 9"),
        (lambda path, table: table.write_text("index\tname\n5\tx\n9\tx\n"), "repeats a name"),
        (
            lambda path, table: nib.Nifti1Image(np.full((4, 4, 4), 0.5, np.float32), np.eye(4)).to_filename(path),
            "no label image",
        ),
    ],
)
def test_damaged_atlases_are_refused_with_the_file(atlas: Path, damage, message: str) -> None:
    table = atlas.with_name(atlas.name.replace(".nii.gz", ".tsv"))
    damage(atlas, table)
    with pytest.raises(ResourceError, match=message) as caught:
        find_atlas(str(atlas))
    assert atlas.parent.name in str(caught.value)
    assert caught.value.remedy


def aal(folder: Path, labels: int) -> Path:
    """An image with `atlas-AAL` in its name that holds so many labels, and no table."""
    path = folder / "tpl-MNI152NLin6Asym_res-1_atlas-AAL_dseg.nii.gz"
    image = np.broadcast_to(np.arange(labels + 1, dtype=np.int16)[:, None, None], (labels + 1, 2, 2))
    nib.Nifti1Image(image, np.eye(4)).to_filename(path)
    return path


def test_the_names_of_aal_come_with_the_package(tmp_path: Path) -> None:
    image = aal(tmp_path, 116)
    source = find_atlas(str(image))
    assert (len(source.table), source.table[37].name, source.table[114].name) == (116, "Hippocampus_L", "Vermis_8")
    image.with_name(image.name.replace(".nii.gz", ".tsv")).write_text(
        "index\tname\n" + "".join(f"{i}\tmine-{i}\n" for i in range(1, 117))
    )
    assert find_atlas(str(image)).table[37].name == "mine-37", "a table beside the image wins"


def test_later_editions_of_aal_need_their_own_table(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="lacks the labels 117"):
        find_atlas(str(aal(tmp_path, 120)))


AAL = Path(__file__).parents[3] / "shared/data/atlas/tpl-MNI152NLin6Asym_res-1_atlas-AAL_dseg.nii.gz"


@pytest.mark.data
@pytest.mark.skipif(not AAL.exists(), reason="needs ../shared/data/atlas")
def test_the_names_of_aal_lie_where_they_say() -> None:
    source = find_atlas(str(AAL))
    labels, affine = load_atlas_image(source)
    assert set(np.unique(labels)) == {0, *source.table.indices}
    x, y, z = (
        {row.name: centre for row, centre in zip(source.table, axis, strict=True)}
        for axis in nib.affines.apply_affine(affine, ndimage.center_of_mass(labels > 0, labels, source.table.indices)).T
    )
    for row in source.table:
        assert {"left": x[row.name] < 0, "right": x[row.name] > 0, "midline": abs(x[row.name]) < 4}[row.hemisphere]
    assert y["Frontal_Sup_L"] > y["Precentral_L"] > y["Postcentral_L"] > y["Occipital_Sup_L"]
    assert z["Precentral_R"] > z["Insula_R"] > z["Hippocampus_R"] > z["Cerebelum_Crus1_R"]
    assert abs(x["Thalamus_L"]) < abs(x["Putamen_L"]) < abs(x["Insula_L"]) < abs(x["Temporal_Mid_L"])


def test_unknown_names_say_what_there_is() -> None:
    with pytest.raises(ResourceError, match="DK"):
        find_atlas("AAL116")
