"""Templates to whose grids results are brought, and the files of TemplateFlow.

    MNI152NLin2009aSym[:res-1]             the package's own
    MNI152NLin6Asym[:res-2]                TemplateFlow's
    MNIPediatricAsym:cohort-3[:res-1]      one of its cohorts
    mine=/data/mine_T1w.nii.gz             a file, and what the template is to be called

TemplateFlow's files are taken from this machine (`TEMPLATEFLOW_HOME`); what is not there is fetched by its client, if
that is installed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from unibrain_bids.errors import ResourceError, ScanError

__all__ = ["DEFAULT_TEMPLATE", "NATIVE_SPACES", "Space", "find_in_templateflow", "find_space", "image_of"]

DEFAULT_TEMPLATE = "MNI152NLin2009aSym"
NATIVE_SPACES = ("T1w", "anat", "native")
_ARCHIVE = "https://templateflow.s3.amazonaws.com"


@dataclass(frozen=True)
class Space:
    """A template's grid.

    Attributes
    ----------
    label
        What file names call the template; a cohort stands behind a plus, as in "MNIInfant+2".
    resolution
        `res-` label, or None.
    image
        T1-weighted image, absolute; None for the template that comes with the package.
    sha256
        Of the image.
    reference
        URI of the image, for `SpatialReference`; None where the label says it all.
    spacing
        Voxel sizes, mm.
    """

    label: str = DEFAULT_TEMPLATE
    resolution: str | None = "1"
    image: Path | None = None
    sha256: str | None = None
    reference: str | None = None
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)

    @property
    def grid(self) -> str:
        """What sidecars say of the resolution."""
        sizes = [f"{size:.4g}" for size in self.spacing]
        size = f"{sizes[0]} mm isotropic" if len(set(sizes)) == 1 else f"{' x '.join(sizes)} mm"
        return f"{size}, the grid of the template"

    def role(self, native: str) -> str:
        """Return the role (`bids.derivatives.catalogue`) of what is `native` on the scan's own grid."""
        return f"{self.label}_{native}"

    @property
    def effective(self) -> dict[str, Any]:
        """What has an effect on results, in JSON types."""
        return {"label": self.label, "resolution": self.resolution, "sha256": self.sha256}


def find_space(word: str) -> Space:
    """Return the template that a word of `--output-spaces` names (see the module's text).

    Raises
    ------
    ResourceError
        There is no such template on this machine and none can be fetched, its image cannot be read, or its name is no
        BIDS label.
    """
    name, given, file = word.partition("=")
    if given:
        return _from_file(name, Path(file).expanduser().absolute())
    template, *details = word.split(":")
    known = [re.fullmatch("(res|cohort)-([0-9a-zA-Z]+)", part) for part in details]
    if not re.fullmatch("[0-9a-zA-Z]+", template) or not all(known):
        raise ResourceError(f"{word}: is no output space.", "Expected TEMPLATE[:cohort-N][:res-N] or NAME=FILE.")
    asked = {match[1]: match[2] for match in known if match}
    if template == DEFAULT_TEMPLATE and asked in ({}, {"res": "1"}):
        return Space()
    return _from_templateflow(template, asked.get("cohort"), asked.get("res"))


def find_in_templateflow(template: str, suffix: str, **entities: str | None) -> Path:
    """Return the one file of a template with this suffix and these entities (None: the entity is absent).

    Raises
    ------
    ResourceError
        There is none, there are several, or it is not on this machine and cannot be fetched.
    """
    named = [path for path in _names_on_this_machine(template, suffix) if _has(path.name, entities)]
    if len(named) == 1 and named[0].stat().st_size:  # its client makes empty files where nothing is fetched yet
        return named[0]
    if len(named) > 1:
        raise _several(named)
    size = entities.pop("res", None)  # the client has names and types of its own
    resolution = int(size) if size and size.isdecimal() else size
    query = {"suffix": suffix, "extension": ".nii.gz", "resolution": resolution, **entities}
    try:
        from templateflow import api

        found = api.get(template, **query, raise_empty=True)
    except ImportError as error:
        raise ResourceError(
            f"{template}: TemplateFlow's file for {_shown(query)} is not on this machine ({templateflow_home()}).",
            'Fetch it to there, or install the client: pip install "unibrain-bids[templateflow]".',
        ) from error
    except Exception as error:  # offline, unknown template or entity: TemplateFlow has no common error for them
        raise ResourceError(
            f"{template}: TemplateFlow gives no file for {_shown(query)} ({type(error).__name__}: {error}).",
            f"Check the names and the network, or put the file into {templateflow_home()}.",
        ) from error
    if isinstance(found, list):
        raise _several(found)
    return Path(found)


def templateflow_home() -> Path:
    """Return the folder where TemplateFlow's client keeps its files."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~", ".cache").expanduser()
    return Path(os.environ.get("TEMPLATEFLOW_HOME") or Path(cache, "templateflow")).absolute()


def image_of(reference: str) -> Path | None:
    """Return the file behind a `SpatialReference` if it is on this machine."""
    parts = urlparse(reference)
    inside = reference.removeprefix(f"{_ARCHIVE}/")
    path = Path(unquote(parts.path)) if parts.scheme == "file" else templateflow_home() / inside
    return path if path.is_file() and path.stat().st_size else None


def _from_file(name: str, path: Path) -> Space:
    """Return a template of the user's own."""
    if not re.fullmatch("[0-9a-zA-Z]+", name) or name in NATIVE_SPACES:
        raise ResourceError(f"'{name}' cannot be the name of a template.", "Use letters and digits: NAME=FILE.")
    return _space(name, None, path, reference=path.as_uri())


def _from_templateflow(template: str, cohort: str | None, resolution: str | None) -> Space:
    """Return a template of TemplateFlow: the whole head rather than the brain, at 1 mm unless asked otherwise."""
    problems = []
    for brain, size in product((None, "brain"), [resolution] if resolution else ["1", None]):
        try:
            path = find_in_templateflow(template, "T1w", cohort=cohort, desc=brain, res=size)
        except ResourceError as error:
            problems.append(error)
            continue
        folder = Path(f"tpl-{template}", f"cohort-{cohort}" if cohort else "")
        label = f"{template}+{cohort}" if cohort else template
        return _space(label, size, path, reference=f"{_ARCHIVE}/{(folder / path.name).as_posix()}")
    remedy = f"{problems[0].remedy} {DEFAULT_TEMPLATE} comes with the package; NAME=FILE takes any image."
    raise ResourceError(problems[0].message, remedy)


def _space(label: str, resolution: str | None, path: Path, *, reference: str) -> Space:
    """Read an image once, to say at once what is wrong with it."""
    from nibabel.affines import voxel_sizes

    from unibrain_bids.imaging.scan import load_scan

    try:
        spacing = voxel_sizes(load_scan(path).affine)
    except ScanError as error:
        raise ResourceError(error.message, error.remedy) from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Space(label, resolution, path, digest, reference, tuple(spacing.tolist()))


def _names_on_this_machine(template: str, suffix: str) -> list[Path]:
    return sorted((templateflow_home() / f"tpl-{template}").rglob(f"tpl-{template}_*{suffix}.nii.gz"))


def _has(name: str, entities: Mapping[str, str | None]) -> bool:
    """Tell whether a file's name has these entities; numbers may have leading zeros."""
    own = dict(re.findall("(?:^|_)([a-z]+)-([0-9a-zA-Z+]+)", name))
    return all(_number(own.get(key)) == _number(value) for key, value in entities.items())


def _number(label: str | None) -> str | None:
    return label.lstrip("0") if label is not None and label.isdecimal() else label


def _several(paths: Sequence[Path]) -> ResourceError:
    names = ", ".join(path.name for path in paths)
    return ResourceError(f"TemplateFlow has several: {names}.", "Choose one by further entities (cohort-, desc-, ...).")


def _shown(query: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in query.items() if value is not None)
