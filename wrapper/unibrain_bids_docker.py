"""Run the unibrain-bids container as if it were installed: `unibrain-bids-docker BIDS_DIR OUTPUT_DIR participant ...`.

Every path that the options name is mounted under its own name, so that relative paths, and paths inside of files, mean
the same inside and outside. The raw dataset is mounted read-only; the container runs as the user who calls.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

__version__ = "0.1.0"

IMAGE = f"localhost/unibrain-bids:{__version__}"
ENGINES = ("docker", "podman", "apptainer")
LEVELS = ("participant", "group")
WRITTEN = ("-w", "--work-dir", "--work_dir", "--bids-database-dir", "--bids_database_dir")
# Folders that the container has itself: mounted over, it would not run.
OWN = ("/bin", "/dev", "/etc", "/lib", "/lib64", "/opt/unibrain", "/proc", "/sbin", "/sys", "/usr")


class WrapperError(Exception):
    """The command cannot be made; the message says why."""


@dataclass(frozen=True)
class Mount:
    """A path that the container sees under its own name."""

    path: Path
    writable: bool = False

    def __str__(self) -> str:
        """Return it as the container engines write it."""
        return f"{self.path}:{self.path}:{'rw' if self.writable else 'ro'}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the container, in the place of this process; with `--print-command`, print how."""
    own, words = build_parser().parse_known_args(argv)
    words += ["--help"] if own.help else []
    if own.help:
        build_parser().print_help()
        print("\noptions of unibrain-bids:\n", flush=True)
    try:
        mounts = find_mounts(words)
        command = build_command(own, words, mounts)
        if own.print_command:
            print(shlex.join(command))
            return 0
        if shutil.which(own.engine) is None:
            raise WrapperError(f"{own.engine} is not installed; there are also --engine {', '.join(ENGINES)}.")
        for mount in mounts:
            if mount.writable:  # or the engine makes it, and it belongs to root
                mount.path.mkdir(parents=True, exist_ok=True)
        os.execvp(command[0], command)
    except (WrapperError, OSError) as error:
        print(f"unibrain-bids-docker: {error}", file=sys.stderr)
    return 2


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the wrapper's own options; all others are the app's."""
    parser = argparse.ArgumentParser(
        prog="unibrain-bids-docker",
        usage="%(prog)s [own options] BIDS_DIR OUTPUT_DIR {participant,group} [options of unibrain-bids]",
        allow_abbrev=False,
        add_help=False,
    )
    image = os.environ.get("UNIBRAIN_IMAGE", IMAGE)
    parser.add_argument("--image", default=image, help="image, or SIF file (default: $UNIBRAIN_IMAGE or %(default)s)")
    parser.add_argument("--engine", choices=ENGINES, default="docker", help="what runs it (default: docker)")
    parser.add_argument("--print-command", action="store_true", help="print the command instead of running it")
    parser.add_argument("-h", "--help", action="store_true", help="show this, and the app's own help")
    return parser


def find_mounts(words: Sequence[str]) -> list[Mount]:
    """Return what has to be mounted for the app's words.

    The dataset and the folders that are written are found by their places; of the other words, all that are paths of
    something that exists. What lies within something mounted alike needs no mount of its own.

    Raises
    ------
    WrapperError
        The dataset does not exist, or a path cannot be mounted.
    """
    words = _split(words)
    absolute = [Path(os.path.abspath(word)) for word in words]
    mounts = []
    level = next((index for index, word in enumerate(words) if word in LEVELS and index >= 2), None)
    for index, path in enumerate(absolute):
        is_output = level is not None and index == level - 1
        if is_output or (index > 0 and words[index - 1] in WRITTEN):
            mounts.append(Mount(path, writable=True))
        elif level is not None and index == level - 2:
            if not path.is_dir():
                raise WrapperError(f"{words[index]}: there is no such folder.")
            mounts.append(Mount(path))
        elif not words[index].startswith("-") and index != level:
            named = Path(os.path.abspath(words[index].partition("=")[2] or path))  # NAME=FILE of --output-spaces
            mounts += [Mount(place) for place in dict.fromkeys((path, named)) if place.exists()]
    if "TEMPLATEFLOW_HOME" in os.environ:
        mounts.append(Mount(Path(os.environ["TEMPLATEFLOW_HOME"]).resolve()))
    for mount in mounts:
        if str(mount.path) == "/" or any(mount.path.is_relative_to(folder) for folder in OWN):
            raise WrapperError(f"{mount.path}: a path that the container has itself cannot be mounted; move the data.")
    return _without_nested(mounts)


def build_command(own: argparse.Namespace, words: Sequence[str], mounts: Sequence[Mount]) -> list[str]:
    """Return the command that runs the container."""
    here = os.getcwd()
    templates = os.environ.get("TEMPLATEFLOW_HOME")
    variables = [f"TEMPLATEFLOW_HOME={Path(templates).resolve()}"] if templates else []
    if own.engine == "apptainer":
        command = ["apptainer", "run", "--cleanenv", "--containall", "--no-home", "--pwd", here]
        command += ["--nv"] if wants_gpu(words) else []
        command += [word for mount in mounts for word in ("--bind", str(mount))]
        command += [word for variable in variables for word in ("--env", variable)]
        return [*command, own.image, *words]
    command = [own.engine, "run", "--rm", "--user", f"{os.getuid()}:{os.getgid()}", "--workdir", here]
    command += ["--interactive", "--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    if own.engine == "podman":
        command += ["--userns", "keep-id"] if os.getuid() else []
        command += ["--device", "nvidia.com/gpu=all"] if wants_gpu(words) else []
    elif wants_gpu(words):
        command += ["--gpus", "all"]
    command += [word for mount in mounts for word in ("--volume", str(mount))]
    command += [word for variable in variables for word in ("--env", variable)]
    return [*command, own.image, *words]


def wants_gpu(words: Sequence[str]) -> bool:
    """Tell whether the app is asked to use a GPU."""
    words = _split(words)
    devices = [after for word, after in pairwise(words) if word == "--device"]
    return "--gpu" in words or any(device.startswith("cuda") for device in devices)


def _split(words: Sequence[str]) -> list[str]:
    """Return the words with `--option=value` as two."""
    return [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]


def _without_nested(mounts: Sequence[Mount]) -> list[Mount]:
    """Return the mounts, shortest path first, without those whose nearest folder among them is mounted alike."""
    writable: dict[Path, bool] = {}
    for mount in mounts:
        writable[mount.path] = mount.writable or writable.get(mount.path, False)
    kept: dict[Path, bool] = {}
    for path in sorted(writable, key=lambda path: len(path.parts)):
        outer = next((kept[parent] for parent in path.parents if parent in kept), None)
        if outer != writable[path]:
            kept[path] = writable[path]
    return [Mount(path, write) for path, write in kept.items()]


if __name__ == "__main__":
    sys.exit(main())
