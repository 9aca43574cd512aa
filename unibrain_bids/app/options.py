"""The options of `unibrain-bids`, with the aliases that users of other BIDS Apps expect.

argparse only collects the words here; `settings.make_settings` judges them, so that all mistakes are shown at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from unibrain_bids import __version__
from unibrain_bids.errors import ExitCode, UsageError
from unibrain_bids.workflows.processing import TASKS

DESCRIPTION = """\
Processes the T1-weighted heads of a BIDS dataset with one neural model: brain mask, bias-corrected and normalised
image, affine to the template, tissues, structures, cortical parcellation, region tables, networks, quality measures.
For research use only."""

EPILOG = "exit codes:\n" + "\n".join(f"  {code:>3}  {code.meaning}" for code in ExitCode)


class Parser(argparse.ArgumentParser):
    """Raises `UsageError` where argparse would print and exit."""

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`."""
        raise UsageError(f"{message}.", "See unibrain-bids --help.")


def parse_options(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Read the command line; returns the options, not yet judged, and the words that no option claims."""
    return build_parser().parse_known_args(argv)


def build_parser() -> Parser:
    """Build the parser; every value stays a string."""
    parser = Parser(
        prog="unibrain-bids",
        usage="unibrain-bids BIDS_DIR OUTPUT_DIR participant [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=36, width=116),
        allow_abbrev=False,
    )
    parser.add_argument("bids_dir", nargs="?", help="the BIDS dataset to read; it is never written to")
    parser.add_argument("output_dir", nargs="?", help="the BIDS-Derivatives dataset to write")
    parser.add_argument("analysis_level", nargs="?", help="participant (group comes with a later release)")
    parser.add_argument("--version", action="version", version=f"unibrain-bids {__version__}")
    _add_selection(parser.add_argument_group("which scans"))
    _add_processing(parser.add_argument_group("what to compute"))
    _add_resources(parser.add_argument_group("resources"))
    _add_behaviour(parser.add_argument_group("behaviour"))
    return parser


def _add(group: argparse._ArgumentGroup, *names: str, aliases: Sequence[str] = (), **details: Any) -> None:
    """Add an option whose `aliases`, and spellings with underscores, are understood but not listed."""
    action = group.add_argument(*names, **details)
    spellings = [name for name in (*names, *aliases) if name.startswith("--")]
    spellings += ["--" + name[2:].replace("-", "_") for name in spellings]
    hidden = [name for name in dict.fromkeys(spellings) if name not in names]
    if hidden:
        group.add_argument(*hidden, **details | {"dest": action.dest, "help": argparse.SUPPRESS})


def _add_selection(group: argparse._ArgumentGroup) -> None:
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "metavar": "LABEL"}
    aliases = ["--participant-labels"]
    text = "participants, with or without sub- (default: all)"
    _add(group, "--participant-label", aliases=aliases, dest="participants", help=text, **several)
    aliases = ["--session-labels", "--session-id"]
    text = "sessions, with or without ses- (default: all)"
    _add(group, "--session-label", aliases=aliases, dest="sessions", help=text, **several)
    text = (
        'JSON with entities of the scans to read: {"t1w": {"acquisition": "mprage", "run": null}}; null asks for the '
        'absence of an entity, "*" for its presence'
    )
    _add(group, "--bids-filter-file", metavar="FILE", help=text)
    text = "folder of a pybids index, made there if it is missing: saves time with thousands of participants"
    _add(group, "--bids-database-dir", metavar="DIR", help=text)
    text = "do not run bids-validator-deno (it runs where it is installed; its findings are reported, and stop nothing)"
    _add(group, "--skip-bids-validation", aliases=["--skip-bids-validator"], action="store_true", help=text)


def _add_processing(group: argparse._ArgumentGroup) -> None:
    several: dict[str, Any] = {"nargs": "+", "action": "extend"}
    text = "grids to write besides the scan's own (default: MNI152NLin2009aSym:res-1); T1w alone: no template's grid"
    _add(group, "--output-spaces", metavar="SPACE[:res-N]", help=text, **several)
    text = "cortical parcellations (default: DK)"
    _add(group, "--atlas", aliases=["--atlases"], dest="atlases", metavar="NAME", help=text, **several)
    text = f"which results to write (default: all): {', '.join(TASKS)}"
    _add(group, "--tasks", metavar="TASK", help=text, **several)
    text = "smoothness of the bias correction, from 0.001 (follows the image) to 10 (default: 0.1)"
    _add(group, "--smoothness", aliases=["--lambda"], metavar="LAMBDA", help=text)
    text = "seed of every random number generator (default: 0); no result depends on it so far"
    _add(group, "--random-seed", metavar="N", help=text)


def _add_resources(group: argparse._ArgumentGroup) -> None:
    text = "folder for intermediate files (default: a temporary one); a scan's are removed once it is done"
    _add(group, "-w", "--work-dir", metavar="DIR", help=text)
    aliases = ["--nthreads", "--n-cpus", "--ncpus"]
    text = "CPUs to use in all (default: all that this process may use)"
    _add(group, "--nprocs", aliases=aliases, metavar="N", help=text)
    text = "CPUs for one scan (default: --nprocs shared out among the scans)"
    _add(group, "--omp-nthreads", metavar="N", help=text)
    text = "memory for all workers together, in GB or with a unit: 8, 8G, 8000M (default: what is free)"
    _add(group, "--mem", aliases=["--mem-gb"], metavar="GB", help=text)
    _add(group, "--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N (default: auto)")
    _add(group, "--gpu", action="store_const", const="cuda", dest="device", help="the same as --device cuda")
    text = "YAML file with a Nipype plugin and its plugin_args, for clusters"
    _add(group, "--use-plugin", aliases=["--nipype-plugin-file"], metavar="FILE", help=text)


def _add_behaviour(group: argparse._ArgumentGroup) -> None:
    _add(group, "--dry-run", action="store_true", help="print what would be written, and stop")
    _add(group, "--force", action="store_true", help="process scans again whose derivatives are complete")
    text = "stop at the first scan that fails (default: the others go on)"
    _add(group, "--stop-on-first-crash", action="store_true", help=text)
    _add(group, "-v", "--verbose", action="count", default=0, help="say more: -v each step, -vv for debugging")
