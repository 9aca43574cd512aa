"""With what a run was made: software, revision, machine, device, weights."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import unibrain_bids
from unibrain_bids import __version__
from unibrain_bids.bids.dataset import container_from_environment

_LIBRARIES = ("torch", "numpy", "scipy", "nibabel", "nipype", "pybids", "nilearn", "pandas", "safetensors", "isal")


def environment() -> dict[str, Any]:
    """Return the versions of all that has a part in the results, and the machine; nothing heavy is imported."""
    return {
        "Version": __version__,
        "Revision": revision(),
        "Python": platform.python_version(),
        "Platform": platform.platform(),
        "Host": platform.node(),
        "Processor": _processor(),
        "Libraries": {name: _version(name) for name in _LIBRARIES},
        "Container": container_from_environment(os.environ),
    }


def device(name: str) -> dict[str, Any]:
    """Return what there is to say of a torch device, such as "cpu" or "cuda:0"; "auto" may be another machine's."""
    import torch

    if not name.startswith("cuda"):
        return {"Name": name}
    found = torch.cuda.get_device_properties(torch.device(name))
    return {
        "Name": name,
        "Model": found.name,
        "MemoryMB": found.total_memory // 10**6,
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
    }


def revision() -> str | None:
    """Return the git revision of this package, "+" where files have been changed since; None where it is not known."""
    installed = _direct_url().get("vcs_info", {}).get("commit_id")
    if installed:
        return str(installed)
    root = Path(unibrain_bids.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "unibrain_bids")
    return f"{commit}+" if commit and changed else commit


def _git(root: Path, *words: str) -> str | None:
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip() or None
    return None


def _direct_url() -> dict[str, Any]:
    """Return what pip notes of a package that comes from a repository (PEP 610)."""
    with suppress(metadata.PackageNotFoundError):
        text = metadata.distribution("unibrain-bids").read_text("direct_url.json")
        return json.loads(text) if text else {}
    return {}


def _processor() -> str | None:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _version(library: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(library)
    return None
