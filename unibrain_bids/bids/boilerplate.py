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


def methods_text(
    *,
    tasks: Sequence[str],
    templates: Sequence[str],
    atlases: Sequence[str],
    smoothness: float,
    weights: str,
    heads: Sequence[str] = (),
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
    """
    said = [
        f"Results were obtained with *unibrain-bids* {__version__}, which runs one neural model on the raw data [1, 2] "
        f"within *Nipype* {metadata.version('nipype')} [3] and writes BIDS derivatives [4]. The weights are those with "
        f"the SHA-256 {weights[:12]}.",
        "Each T1-weighted image was processed for itself, and never averaged with others.",
    ]
    cited = [_UNIBRAIN, _NPP, _NIPYPE, _BIDS]

    def cite(reference: str) -> str:
        if reference not in cited:
            cited.append(reference)
        return f"[{cited.index(reference) + 1}]"

    if "preproc" in tasks:
        said.append(
            "The intensity inhomogeneity was corrected by a smooth multiplicative field that the model predicts, with "
            f"a smoothness of {smoothness:g}, and the intensities were scaled so that white matter lies at 110."
        )
    if "mask" in tasks:
        said.append("The brain was extracted by the model; the mask includes ventricles and closed sulci.")
    if "register" in tasks and templates:
        goals = [f"{name} {cite(_MNI)}" if name.startswith("MNI152") else name for name in templates]
        said.append(
            f"An affine transform to {' and one to '.join(goals)} was found by registering the image and the template "
            "to the frame of the model, and images were resampled once."
        )
    if "segment" in tasks:
        said.append(
            "The model segmented structures with FreeSurfer's numbers, and from these grey matter, white matter and "
            "cerebrospinal fluid."
        )
    if {"parcellate", "network"} & set(tasks):
        names = ", ".join(f"{atlas} {cite(_DK)}" if atlas == "DK" else atlas for atlas in atlases)
        said.append(f"Regions are those of the atlas {names}, in each brain's own cortex.")
    if "network" in tasks:
        said.append(
            "Networks of the regions are the similarity of features that the model has learned, and the "
            "Kullback-Leibler similarity of the regions' intensity distributions."
        )
    if heads and "network" in tasks:
        said.append(
            f"From volumes, intensities and network, the head(s) {', '.join(heads)} predicted; for research only."
        )
    references = "\n".join(f"{number}. {reference}" for number, reference in enumerate(cited, start=1))
    note = "This text was written by unibrain-bids, to be used as it is, under CC0."
    return f"# Methods\n\n{' '.join(' '.join(said).split())}\n\n# References\n\n{references}\n\n*{note}*\n"


def write_citation(output_dir: Path, text: str) -> Path:
    """Write the methods text to its place; returns the path."""
    path = output_dir / CITATION_FILE
    write_text(path, text)
    return path
