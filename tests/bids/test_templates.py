"""Output spaces: TemplateFlow's files on this machine, files of one's own, and what is said of those that cannot be."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from unibrain_bids.bids.templates import Space, find_in_templateflow, find_space, image_of
from unibrain_bids.errors import ResourceError


def save(path: Path, spacing: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.indices((80, 82, 84), np.uint8)[0]  # as large as a head has to be
    image = nib.Nifti1Image(data, np.diag([spacing, spacing, spacing, 1]))
    image.set_sform(image.affine, 1)
    image.to_filename(path)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """TemplateFlow's folder with some files; its client is not installed."""
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "flow"))
    monkeypatch.setitem(sys.modules, "templateflow", None)
    adult, children = (tmp_path / "flow" / name for name in ("tpl-Adult", "tpl-Children"))
    for size in (1, 2):
        save(adult / f"tpl-Adult_res-0{size}_T1w.nii.gz", size)
        save(adult / f"tpl-Adult_res-0{size}_desc-brain_T1w.nii.gz", size)
    for cohort in (1, 2):
        save(children / f"cohort-{cohort}" / f"tpl-Children_cohort-{cohort}_res-1_desc-brain_T1w.nii.gz")
    save(tmp_path / "flow" / "tpl-Old" / "tpl-Old_T1w.nii.gz", 1.5)
    (tmp_path / "flow" / "tpl-Far").mkdir()
    (tmp_path / "flow" / "tpl-Far" / "tpl-Far_res-01_T1w.nii.gz").touch()
    return tmp_path / "flow"


@pytest.mark.parametrize(
    ("word", "file", "label", "resolution", "grid"),
    [
        ("Adult", "tpl-Adult/tpl-Adult_res-01_T1w.nii.gz", "Adult", "1", "1 mm isotropic"),
        ("Adult:res-2", "tpl-Adult/tpl-Adult_res-02_T1w.nii.gz", "Adult", "2", "2 mm isotropic"),
        ("Old", "tpl-Old/tpl-Old_T1w.nii.gz", "Old", None, "1.5 mm isotropic"),
        (
            "Children:res-1:cohort-2",
            "tpl-Children/cohort-2/tpl-Children_cohort-2_res-1_desc-brain_T1w.nii.gz",
            "Children+2", "1", "1 mm isotropic",
        ),
    ],
)  # fmt: skip
def test_templateflow_on_this_machine(home: Path, word, file, label, resolution, grid) -> None:
    space = find_space(word)
    assert (space.image, space.label, space.resolution) == (home / file, label, resolution)
    assert space.grid.startswith(grid)
    assert space.reference == f"https://templateflow.s3.amazonaws.com/{file}"
    assert image_of(space.reference) == home / file


def test_own_file(tmp_path: Path) -> None:
    path = save(tmp_path / "my head.nii.gz", 2)
    space = find_space(f"mine={path}")
    assert (space.label, space.resolution, space.image) == ("mine", None, path)
    assert space.reference is not None and " " not in space.reference
    assert image_of(space.reference) == path
    save(path, 3)
    assert find_space(f"mine={path}").effective != space.effective


def test_the_packages_own_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPLATEFLOW_HOME", "/nowhere")
    assert find_space("MNI152NLin2009aSym") == find_space("MNI152NLin2009aSym:res-1") == Space()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("Unknown", "not on this machine"),
        ("Far", "unibrain-bids\\[templateflow\\]"),
        ("Adult:res-3", "resolution 3"),
        ("Children", "not on this machine"),
        ("Adult:2", "no output space"),
        ("my_name=/x.nii", "letters and digits"),
        ("T1w=/x.nii", "letters and digits"),
        ("mine=/no/such.nii", "/no/such.nii: no such file"),
        ("mine=" + __file__, "not a NIfTI image"),
    ],
)
def test_mistakes_name_the_remedy(home: Path, word: str, said: str) -> None:
    with pytest.raises(ResourceError, match=said):
        find_space(word)


def test_several_files_are_no_choice(home: Path) -> None:
    with pytest.raises(ResourceError, match=r"res-01_T1w.*res-02_T1w"):
        find_in_templateflow("Adult", "T1w", desc=None)


def test_the_client_is_asked_for_what_is_not_here(home: Path) -> None:
    """With the client installed, an unknown template is its error, told as ours."""
    sys.modules.pop("templateflow")
    pytest.importorskip("templateflow")
    with pytest.raises(ResourceError, match="gives no file"):
        find_space("Unknown")
