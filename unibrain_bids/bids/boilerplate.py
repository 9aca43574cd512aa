"""The methods text of a run, with what to cite: `logs/CITATION.md`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from unibrain_bids import __version__
from unibrain_bids.bids.atomic import write_text

__all__ = ["CITATION_FILE", "methods_text", "write_citation"]

CITATION_FILE = Path("logs", "CITATION.md")

_UNIBRAIN = (
    "Su, Y., Han, K., Zeng, M., Sun, L., Zhan, L., Yang, C., He, L., & Kong, X. (2025). End-to-End Deep Learning for "
    "Structural Brain Imaging: A Unified Framework. arXiv:2502.18523."
)
_NPP = (
    "He, X., Wang, A. Q., & Sabuncu, M. R. (2023). Neural Pre-processing: A Learning Framework for End-to-End Brain "
    "MRI Pre-processing. MICCAI 2023. doi:10.1007/978-3-031-43993-3_25"
)
_NIPYPE = (
    "Gorgolewski, K., Burns, C. D., Madison, C., et al. (2011). Nipype: a flexible, lightweight and extensible "
    "neuroimaging data processing framework in Python. Frontiers in Neuroinformatics 5:13. doi:10.3389/fninf.2011.00013"
)
_BIDS = (
    "Gorgolewski, K. J., Auer, T., Calhoun, V. D., et al. (2016). The brain imaging data structure, a format for "
    "organizing and describing outputs of neuroimaging experiments. Scientific Data 3:160044. doi:10.1038/sdata.2016.44"
)
_MNI = (
    "Fonov, V., Evans, A. C., McKinstry, R. C., Almli, C. R., & Collins, D. L. (2009). Unbiased nonlinear average "
    "age-appropriate brain templates from birth to adulthood. NeuroImage 47:S102. doi:10.1016/S1053-8119(09)70884-5"
)
_DK = (
    "Desikan, R. S., Ségonne, F., Fischl, B., et al. (2006). An automated labeling system for subdividing the human "
    "cerebral cortex on MRI scans into gyral based regions of interest. NeuroImage 31:968-980. "
    "doi:10.1016/j.neuroimage.2006.01.021"
)
_KLS = (
    "Kong, X., Liu, Z., Huang, L., et al. (2015). Mapping individual brain networks using statistical similarity in "
    "regional morphology from MRI. PLOS ONE 10:e0141840. doi:10.1371/journal.pone.0141840"
)
_MIND = (
    "Sebenius, I., Seidlitz, J., Warrier, V., et al. (2023). Robust estimation of cortical similarity networks from "
    "brain MRI. Nature Neuroscience 26:1461-1471. doi:10.1038/s41593-023-01376-7"
)

_PREPROC = (
    "The intensity inhomogeneity was corrected by a smooth multiplicative field that the model predicts and that is "
    "then fitted to the scan's tissues, with a smoothness of {:g}, and the intensities were scaled so that white "
    "matter lies at 110."
)
_MASK = "The brain was extracted by the model; the mask includes ventricles and closed sulci."
_REGISTER = (
    "An affine transform to {} was found by registering the image and the template to the frame of the model, and "
    "refined on the overlap of their structures and the correlation of their tissues; images were resampled once."
)
_DEFORM = (
    "On top of it, a diffeomorphism (the exponential of a stationary velocity field with values every 8 mm) was fitted "
    "to the overlap of all structures and the correlation of intensities."
)
# What the published systems say otherwise, by --model and task.
_ALONE = {
    "npp": {
        "preproc": "The model was Neural Pre-processing by itself [2]. One smooth multiplicative field, with a "
        "smoothness of {:g}, both extracts the brain and corrects and normalises its intensities.",
        "mask": "The brain is where that field exceeds 0.2.",
        "register": "An affine transform to {} was predicted by the same network; images were resampled once.",
    },
    "unibrain": {
        "mask": "The model was UniBrain by itself [1], after the head had been found by this program's own. Its first "
        "network extracted the brain.",
        "segment": "A further network segmented grey matter, white matter and cerebrospinal fluid. Structures with "
        "FreeSurfer's numbers are those of one template, warped to the brain by an affine.",
        "parcellate": "Regions are those of the atlas {}.",
    },
}
_SEGMENT = (
    "The model segmented structures with FreeSurfer's numbers at 2 mm and refined their tissues at 1 mm (not in scans "
    "whose voxels are larger than 1.5 mm); each voxel of the scan weighed the answer with its own intensity. Grey "
    "matter, white matter and cerebrospinal fluid follow from them."
)
_REGIONS = (
    "Regions are those of the atlas {}, brought to each brain by deforming the template MNI152NLin2009aSym to it (a "
    "stationary velocity field, fitted to structures and intensities), and kept to its own cortex."
)
_NETWORK = (
    "Networks of the regions are the similarity of features that the model has learned, the Kullback-Leibler "
    "similarity of the regions' intensity distributions {}, and the inverse divergence of local features after MIND {}."
)
_HEADS = "From volumes, intensities and network, the head(s) {} predicted; for research only."
_NOTE = "This text was written by unibrain-bids, to be used as it is, under CC0."


def methods_text(
    *,
    tasks: Sequence[str],
    templates: Sequence[str],
    atlases: Sequence[str],
    smoothness: float,
    weights: str,
    heads: Sequence[str] = (),
    model: str = "unified",
    nonlinear: bool = False,
) -> str:
    """Return the methods text in Markdown.

    Parameters
    ----------
    tasks, templates, atlases, smoothness
        What was done (`workflows.processing.Processing`).
    weights
        SHA-256 of the model's weights.
    heads
        Labels of the heads that predicted.
    model
        One of `workflows.processing.MODELS`.
    nonlinear
        Whether results were deformed to the templates.
    """
    own = {"preproc": _PREPROC, "mask": _MASK, "register": _REGISTER, "segment": _SEGMENT, "parcellate": _REGIONS}
    own |= _ALONE.get(model, {})
    references = _References([_UNIBRAIN, _NPP, _NIPYPE, _BIDS])
    opening = (
        f"Results were obtained with *unibrain-bids* {__version__}, which runs one neural model on the raw data [1, 2] "
        f"within *Nipype* {metadata.version('nipype')} [3] and writes BIDS derivatives [4]. The weights are those with "
        f"the SHA-256 {weights[:12]}. Each T1-weighted image was processed for itself, and never averaged with others."
    )
    register = f"{own['register']} {_DEFORM}" if nonlinear else own["register"]
    sentences = {
        "preproc": own["preproc"].format(smoothness),
        "mask": own["mask"],
        "register": _registration(register, templates, references) if "register" in tasks else "",
        "segment": own["segment"],
        "parcellate": _regions(own["parcellate"], atlases, references)
        if {"parcellate", "network"} & set(tasks)
        else "",
        "network": _networks(references) if "network" in tasks else "",
    }
    said = [opening, *(text for task, text in sentences.items() if task in tasks or task == "parcellate")]
    if heads and "network" in tasks:
        said.append(_HEADS.format(", ".join(heads)))
    text = " ".join(" ".join(said).split())
    return f"# Methods\n\n{text}\n\n# References\n\n{references.listed()}\n\n*{_NOTE}*\n"


class _References:
    """The references so far, numbered in the order of the text."""

    def __init__(self, cited: Sequence[str]) -> None:
        self.cited = list(cited)

    def cite(self, reference: str) -> str:
        """Return the reference's number in brackets."""
        if reference not in self.cited:
            self.cited.append(reference)
        return f"[{self.cited.index(reference) + 1}]"

    def listed(self) -> str:
        """Return all of them as a numbered list."""
        return "\n".join(f"{number}. {reference}" for number, reference in enumerate(self.cited, start=1))


def _registration(text: str, templates: Sequence[str], references: _References) -> str:
    goals = [f"{name} {references.cite(_MNI)}" if name.startswith("MNI152") else name for name in templates]
    return text.format(" and one to ".join(goals)) if goals else ""


def _regions(text: str, atlases: Sequence[str], references: _References) -> str:
    names = ", ".join(f"{atlas} {references.cite(_DK)}" if atlas == "DK" else atlas for atlas in atlases)
    return text.format(names)


def _networks(references: _References) -> str:
    return _NETWORK.format(references.cite(_KLS), references.cite(_MIND))


def write_citation(output_dir: Path, text: str) -> Path:
    """Write the methods text to its place; returns the path."""
    path = output_dir / CITATION_FILE
    write_text(path, text)
    return path
