"""The options of `unibrain-bids`, with the aliases that users of other BIDS Apps expect.

argparse only collects the words here, of the command line and of `--config-file`; `settings.make_settings` judges them,
so that all mistakes are shown at once.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from unibrain_bids import __version__
from unibrain_bids.app.config import as_words, load_config
from unibrain_bids.errors import ExitCode, UsageError
from unibrain_bids.workflows.processing import TASKS

DESCRIPTION = """\
Processes the T1-weighted heads of a BIDS dataset with one neural model: brain mask, bias-corrected and normalised
image, affine to the template, tissues, structures, cortical parcellation, region tables, networks, quality measures.
For research use only."""

EPILOG = "exit codes:\n" + "\n".join(f"  {code:>3}  {code.meaning}" for code in ExitCode)


POSITIONALS = ("bids_dir", "output_dir", "analysis_level")
_ONLY_ON_THE_COMMAND_LINE = ("config_file", "help", "print_completion", "version")


class Parser(argparse.ArgumentParser):
    """Keeps what is wrong instead of printing and exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`."""
        raise UsageError(f"{message}.", "See unibrain-bids --help.")

    @property
    def flags(self) -> frozenset[str]:
        """The options that take no value."""
        return frozenset(name for action in self._actions if action.nargs == 0 for name in action.option_strings)

    def read(self, words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Return the options in `words`, and what is wrong with these as sentences."""
        words = list(words)
        problems: list[str] = []
        while True:
            try:
                given, unclaimed = self.parse_known_args(words)
                return given, [*problems, *map(self.unknown, unclaimed)]
            except argparse.ArgumentError as error:  # argparse stops at the first one: go on without that option
                names = str(error.argument_name).split("/")
                problems.append(f"{names[-1]}: {error.message}.")
                left = [word for word in words if word.partition("=")[0] not in names]
                if left == words:
                    raise UsageError(problems[-1], "See unibrain-bids --help.") from error
                words = left

    def as_config(self, given: argparse.Namespace) -> dict[str, Any]:
        """Return the options that differ from their defaults as `--config-file` takes them."""
        listed = [action for action in self._actions if action.help != argparse.SUPPRESS]
        names = {action.dest: max((*action.option_strings, action.dest), key=len) for action in reversed(listed)}
        return {
            name.removeprefix("--"): getattr(given, dest)
            for dest, name in names.items()
            if dest not in _ONLY_ON_THE_COMMAND_LINE and getattr(given, dest) != self.get_default(dest)
        }

    def unknown(self, word: str) -> str:
        """Return what is wrong with a word that no option claims."""
        if not word.startswith("-"):
            return f"{word}: no option takes this word."
        close = difflib.get_close_matches(word, self._option_string_actions, n=1)
        return f"{word}: there is no such option" + (f"; did you mean {close[0]}?" if close else ".")


def parse_options(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Read the command line, and what it leaves open from `--config-file`.

    Returns
    -------
    options
        Not yet judged.
    problems
        What is wrong with the form of the words, one sentence each.

    Raises
    ------
    UsageError
        The configuration file cannot be read.
    """
    parser = build_parser()
    given, problems = parser.read(sys.argv[1:] if argv is None else argv)
    if given.config_file is not None:
        problems += _fill_in(given, Path(given.config_file), parser)
    given.config = parser.as_config(given)
    return given, problems


def _fill_in(given: argparse.Namespace, path: Path, parser: Parser) -> list[str]:
    """Take what the command line leaves open from the configuration file; return what is wrong there."""
    content = {key.replace("-", "_"): value for key, value in load_config(path).items()}
    places = {name: str(content.pop(name)) for name in POSITIONALS if name in content}
    wrong = [f"{key}: only on the command line." for key in _ONLY_ON_THE_COMMAND_LINE if content.pop(key, None)]
    configured, more = parser.read(list(as_words(content, parser.flags)))
    stray = [parser.unknown(word) for word in map(vars(configured).pop, POSITIONALS) if word]
    for name, value in (vars(configured) | places).items():
        if getattr(given, name) == parser.get_default(name):
            setattr(given, name, value)
    return [f"{path}: {problem}" for problem in (*wrong, *more, *stray)]


class PrintCompletion(argparse.Action):
    """Prints the completion script for a shell, and ends the program."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: object, values: Any, option: object = None) -> None:
        """Print it; `values` is the shell's name."""
        import shtab

        if values not in shtab.SUPPORTED_SHELLS:
            raise argparse.ArgumentError(self, f"expected one of {', '.join(shtab.SUPPORTED_SHELLS)}")
        for known in parser._actions:
            if known.metavar == "FILE":
                known.complete = shtab.FILE  # type: ignore[attr-defined]
            elif known.metavar == "DIR" or known.dest in ("bids_dir", "output_dir"):
                known.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        print(shtab.complete(parser, shell=values))
        parser.exit()


def build_parser() -> Parser:
    """Build the parser; every value stays a string."""
    parser = Parser(
        prog="unibrain-bids",
        usage="unibrain-bids BIDS_DIR OUTPUT_DIR {participant,group} [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=36, width=116),
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("bids_dir", nargs="?", help="the BIDS dataset to read; it is never written to")
    parser.add_argument("output_dir", nargs="?", help="the BIDS-Derivatives dataset to write")
    parser.add_argument(
        "analysis_level", nargs="?", help="participant: process scans; group: summarise what that has written"
    )
    text = "options under their names, in TOML (.toml) or YAML; those of the command line win"
    _add(parser, "--config-file", metavar="FILE", help=text)
    text = "print what makes this shell complete the options, and stop: bash, zsh, ..."
    _add(parser, "--print-completion", metavar="SHELL", action=PrintCompletion, help=text)
    parser.add_argument("--version", action="version", version=f"unibrain-bids {__version__}")
    _add_selection(parser.add_argument_group("which scans"))
    _add_processing(parser.add_argument_group("what to compute"))
    _add_group(parser.add_argument_group("group level (columns are those of participants.tsv)"))
    _add_resources(parser.add_argument_group("resources"))
    _add_behaviour(parser.add_argument_group("behaviour"))
    return parser


def _add(group: argparse._ActionsContainer, *names: str, aliases: Sequence[str] = (), **details: Any) -> None:
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
    text = (
        "grids to write besides the scan's own (default: MNI152NLin2009aSym:res-1): templates of TemplateFlow, "
        "NAME[:cohort-N][:res-N], or files, NAME=FILE; T1w alone: no template's grid"
    )
    _add(group, "--output-spaces", metavar="SPACE", help=text, **several)
    text = (
        "deform results to the templates, too, not by an affine alone, and write the displacements; parcellations "
        "follow the deformed template in any case"
    )
    _add(group, "--nonlinear", action="store_true", help=text)
    text = (
        "parcellations (default: DK): also a label image with its table beside it, FILE[:TEMPLATE], or an atlas of "
        "TemplateFlow, NAME:TEMPLATE[:desc-...]; TEMPLATE is the space it lies in, such as MNI152NLin6Asym"
    )
    _add(group, "--atlas", aliases=["--atlases"], dest="atlases", metavar="ATLAS", help=text, **several)
    text = (
        "unified (default): the model of this program; npp or unibrain: the published system of that name by itself, "
        "with weights that were trained little (npp: mask, preproc and register only; unibrain: all but preproc)"
    )
    _add(group, "--model", metavar="MODEL", help=text)
    text = f"which results to write (default: all that the model gives): {', '.join(TASKS)}"
    _add(group, "--tasks", metavar="TASK", help=text, **several)
    text = "smoothness of the bias correction, from 0.001 (follows the image) to 10 (default: 0.1)"
    _add(group, "--smoothness", aliases=["--lambda"], metavar="LAMBDA", help=text)
    text = "weights other than the shipped ones, such as `unibrain-train finetune` writes; research use only"
    _add(group, "--weights", metavar="FILE", help=text)
    text = "trained heads that predict, at either level: files, or names of built-in ones; research use only"
    _add(group, "--classifier", aliases=["--classifiers"], dest="classifiers", metavar="HEAD", help=text, **several)
    text = "seed of every random number generator (default: 0); at participant level no result depends on it so far"
    _add(group, "--random-seed", metavar="N", help=text)


def _add_group(group: argparse._ArgumentGroup) -> None:
    text = "compare regions and edges by this column: two classes, or numbers"
    _add(group, "--compare", metavar="COLUMN", help=text)
    text = "validate and train a head that tells two classes of this column"
    _add(group, "--classify", metavar="COLUMN", help=text)
    _add(group, "--regress", metavar="COLUMN", help="validate and train a head that predicts this number")
    text = "the two values to compare or to tell apart, where the column has more; the second one is the positive class"
    _add(group, "--classes", nargs="+", action="extend", metavar="VALUE", help=text)
    text = (
        "covariates of comparisons and of the baseline without images: columns, intracranial_volume, or none "
        "(default: age, sex, site and intracranial_volume, where they are known)"
    )
    _add(group, "--covariates", nargs="+", action="extend", metavar="COLUMN", help=text)
    text = "column with the site (default: one that is named so)"
    _add(group, "--site-column", metavar="COLUMN", help=text)
    text = "random exchanges of the labels in each permutation test (default: 1000)"
    _add(group, "--permutations", metavar="N", help=text)


def _add_resources(group: argparse._ArgumentGroup) -> None:
    text = "folder for intermediate files (default: a temporary one); they are removed once all is done"
    _add(group, "-w", "--work-dir", metavar="DIR", help=text)
    text = "first remove what interrupted runs have left in --work-dir; not while another run uses it"
    _add(group, "--clean-workdir", aliases=["--clean-work-dir"], action="store_true", help=text)
    aliases = ["--nthreads", "--n-cpus", "--ncpus"]
    text = "CPUs to use in all (default: all that this process may use)"
    _add(group, "--nprocs", aliases=aliases, metavar="N", help=text)
    text = "CPUs for one scan (default: --nprocs shared out among the scans)"
    _add(group, "--omp-nthreads", metavar="N", help=text)
    text = "memory for all workers together, in GB or with a unit: 8, 8G, 8000M (default: what is free)"
    _add(group, "--mem", aliases=["--mem-gb"], metavar="GB", help=text)
    text = "one scan at a time, however many --nprocs there are"
    _add(group, "--low-mem", action="store_true", help=text)
    _add(group, "--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N (default: auto)")
    _add(group, "--gpu", action="store_const", const="cuda", dest="device", help="the same as --device cuda")
    text = "YAML file with a Nipype plugin and its plugin_args, for clusters"
    _add(group, "--use-plugin", aliases=["--nipype-plugin-file"], metavar="FILE", help=text)


def _add_behaviour(group: argparse._ArgumentGroup) -> None:
    _add(group, "--dry-run", action="store_true", help="print what would be written, and stop")
    _add(group, "--force", action="store_true", help="process scans again whose derivatives are complete")
    text = "stop at the first scan that fails (default: the others go on)"
    _add(group, "--stop-on-first-crash", action="store_true", help=text)
    text = "make the participants' reports (sub-<label>.html) again from the derivatives that are there, and stop"
    _add(group, "--reports-only", action="store_true", help=text)
    _add(group, "--no-report", aliases=["--no-reports"], action="store_true", help="make no reports")
    text = "write the methods text with citations, logs/CITATION.md, and stop"
    _add(group, "--boilerplate-only", aliases=["--md-only-boilerplate"], action="store_true", help=text)
    text = "write memory and CPU over time to logs/<run>/resources.tsv"
    _add(group, "--resource-monitor", action="store_true", help=text)
    text = "write the workflow of a scan to logs/<run>/graph.dot"
    _add(group, "--write-graph", action="store_true", help=text)
    _add(group, "-v", "--verbose", action="count", default=0, help="say more: -v each step, -vv for debugging")
