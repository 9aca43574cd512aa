"""The methods text."""

import re

import pytest

from unibrain_bids import __version__
from unibrain_bids.bids.boilerplate import CITATION_FILE, methods_text, write_citation
from unibrain_bids.bids.derivatives import TASKS

ALL = {"templates": ["MNI152NLin2009aSym"], "atlases": ("DK",), "smoothness": 0.1, "weights": "abcdef" * 10}


@pytest.mark.parametrize("tasks", [TASKS, *((task,) for task in TASKS)])
def test_every_citation_has_its_reference(tasks):
    text, _, references = methods_text(tasks=tasks, **ALL).partition("# References")
    numbers = re.findall(r"^(\d+)\. \S", references, re.MULTILINE)
    assert numbers == [str(number + 1) for number in range(len(numbers))]
    assert set(re.findall(r"\d+", " ".join(re.findall(r"\[([\d, ]+)\]", text)))) == set(numbers)
    assert __version__ in text and "abcdefabcdef" in text and "  " not in text


def test_only_what_was_done_is_told():
    whole = methods_text(tasks=TASKS, **ALL)
    for words in ("a smoothness of 0.1", "MNI152NLin2009aSym", "the atlas DK", "Desikan", "Fonov", "Kullback"):
        assert words in whole
        assert words not in methods_text(tasks=("mask",), **ALL)
    other = methods_text(tasks=TASKS, **ALL | {"templates": [], "atlases": ("AAL",)})
    assert "affine" not in other and "Fonov" not in other and "Desikan" not in other and "the atlas AAL" in other


def test_npp_alone_tells_its_own_way():
    unified, npp = (
        methods_text(tasks=("mask", "preproc", "register"), model=name, **ALL) for name in ("unified", "npp")
    )
    for words in ("exceeds 0.2", "a smoothness of 0.1", "predicted by the same network", "Fonov"):
        assert words in npp
    for words in ("structures", "scan's tissues"):
        assert words in unified and words not in npp


def test_place(tmp_path):
    assert write_citation(tmp_path, "text").read_text() == "text"
    assert (tmp_path / CITATION_FILE).parent == tmp_path / "logs"
