"""Parts of the site that the code itself tells, so that they cannot disagree with it.

The directive `from-code` stands for one of `PARTS`: Markdown made from the parsers, the catalogue of derivatives, the
descriptions of columns and measures, and the exit codes.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bidsschematools.schema import load_schema
from docutils.nodes import Node
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from unibrain_bids.app import options
from unibrain_bids.bids.derivatives import DerivativePath, catalogue
from unibrain_bids.bids.inputs import ScanRecord
from unibrain_bids.bids.sidecars import make_sidecars
from unibrain_bids.bids.texts import texts
from unibrain_bids.errors import ExitCode
from unibrain_bids.evaluation import cli as evaluation
from unibrain_bids.imaging import graphs, quality, regions
from unibrain_bids.training import cli as training
from unibrain_bids.training import finetune_cli as finetuning
from unibrain_bids.workflows.processing import Processing

_SCAN = ScanRecord(Path("/sub-01_T1w.nii.gz"), "sub-01/anat/sub-01_T1w.nii.gz", (("sub", "01"),), "T1w")
# Keys of the draft on connectivity (BEP017) and of this program, which BIDS' schema does not know.
_OWN_KEYS = {
    "Axes": "tables of the regions along rows and columns (BEP017)",
    "Directed": "whether an edge has a direction (BEP017)",
    "NodeFiles": "table of the regions (BEP017)",
    "NonNegative": "whether no edge is negative (BEP017)",
    "RelationshipMeasure": "what an edge measures (BEP017)",
    "Software": "program that made the network (BEP017)",
    "SoftwareVersion": "its version (BEP017)",
    "ValidDiagonal": "whether the diagonal means anything (BEP017)",
    "Weighted": "whether edges have weights (BEP017)",
}


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in line) + " |" for line in lines)


def option_tables(parser: argparse.ArgumentParser) -> str:
    """Return a table for each group of a parser's options; spellings that the help does not list stand below a name."""
    parts = []
    for group in parser._action_groups:
        listed = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        rows = [(_names(action, group._group_actions), _escaped(_help(action))) for action in listed]
        if rows:
            parts.append(f"**{(group.title or '').capitalize()}**\n\n{table(('option', 'what'), rows)}")
    return "\n\n".join(parts)


def _names(action: argparse.Action, siblings: Sequence[argparse.Action]) -> str:
    """Return the spellings of an option, and what it takes."""
    if not action.option_strings:
        return f"`{action.dest}`"
    hidden = [a for a in siblings if a.help == argparse.SUPPRESS and a.dest == action.dest and a.nargs == action.nargs]
    also = [
        name
        for other in hidden
        if other.const == action.const
        for name in other.option_strings
        if "_" not in name and name.startswith("--")
    ]
    shown = ", ".join(f"`{name}`" for name in action.option_strings)
    value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    taken = f" *{_escaped(str(value))}*" if value else ""
    taken += " ..." if action.nargs == "+" else ""
    return shown + taken + (f" (also {', '.join(f'`{name}`' for name in also)})" if also else "")


def _help(action: argparse.Action) -> str:
    text = (action.help or "") % {"default": action.default}
    choices = f"one of {', '.join(map(str, action.choices))}" if action.choices else ""
    return "; ".join(part for part in (text, choices) if part)


def _escaped(text: str) -> str:
    """Return plain text as Markdown that shows it unchanged; options become code, what is code already stays."""

    def escape(found: re.Match[str]) -> str:
        word = found[0]
        return word if word[0] == "`" else f"`{word}`" if word[0] == "-" else f"\\{word}"

    return re.sub(r"`[^`]*`|(?<![\w-])--?[a-z][\w-]*|[\\*_<>\[\]{}]", escape, text)


def exit_codes() -> str:
    """Return the table of exit codes."""
    return table(("code", "meaning"), ((int(code), code.meaning) for code in ExitCode))


def file_table() -> str:
    """Return a table of the derivatives of a scan, in the order in which they are listed in the package."""
    outputs, sidecars = _example()
    on_grid = {_own(output) for output in outputs.values() if output.in_template}
    rows = []
    for role, output in outputs.items():
        if not output.in_template:
            text = sidecars.get(role, {}).get("Description", "Quality measures and flags.")
            task = texts("derivatives")[output.kind]["task"] or "always"
            rows.append((f"`{output.name}`", task, "yes" if _own(output) in on_grid else "", _escaped(text)))
    return table(("file", "task", "also with `space-`, `res-`", "what"), rows)


def _own(output: DerivativePath) -> tuple[str, frozenset[tuple[str, str]]]:
    """Return what a derivative has in common with the same one on another grid."""
    return output.suffix, frozenset(pair for pair in output.entities if pair[0] not in ("space", "res"))


def key_table() -> str:
    """Return a table of the keys in sidecars, with BIDS' own description where it has one."""
    _, sidecars = _example()
    known = load_schema().objects.metadata
    columns = {*regions.COLUMNS, *graphs.COLUMNS}
    keys = {key for content in sidecars.values() for key in content} - columns
    return table(
        ("key", "what"),
        ((f"`{key}`", _OWN_KEYS.get(key) or _first_sentence(known[key].description)) for key in sorted(keys)),
    )


def _first_sentence(text: str) -> str:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(text.split()))
    return plain.partition(". ")[0].rstrip(".")


def entity_table() -> str:
    """Return a table of the entities that derivatives add to those of the scan, with the values they take."""
    outputs, _ = _example()
    values: dict[str, dict[str, None]] = {}
    for output in outputs.values():
        for key, value in output.entities:
            values.setdefault(key, {})[f"`{value}`"] = None
    ordered = sorted(values, key=texts("terms")["entity_order"].index)
    return table(("entity", "values by default"), ((f"`{key}-`", ", ".join(values[key])) for key in ordered))


def _example() -> tuple[dict[str, DerivativePath], dict[str, dict[str, Any]]]:
    """Return the default derivatives of a scan `sub-01_T1w.nii.gz`, with a head named `example`, and their sidecars."""
    selection = Processing(Path("bids"), Path("out")).selection | {"heads": ("example",)}
    outputs = catalogue(_SCAN, **selection)
    return outputs, make_sidecars(outputs)


def column_table(columns: Mapping[str, Mapping[str, str]]) -> str:
    """Return a table of described columns or measures."""
    rows = ((f"`{name}`", _escaped(text["Description"]), text.get("Units", "")) for name, text in columns.items())
    return table(("name", "what", "unit"), rows)


def limit_table() -> str:
    """Return a table of the limits beyond which a scan is flagged."""
    rows = (
        (f"`{name}`", f"{low:,.10g}" if low else "", f"{high:,.10g}" if math.isfinite(high) else "", _escaped(meaning))
        for name, (low, high, meaning) in quality.LIMITS.items()
    )
    return table(("measure", "flagged below", "flagged above", "may mean"), rows)


PARTS: dict[str, Callable[[], str]] = {
    "options": lambda: option_tables(options.build_parser()),
    "training options": lambda: option_tables(training.build_parser()),
    "fine-tuning options": lambda: option_tables(finetuning.build_parser()),
    "evaluation options": lambda: option_tables(evaluation.build_parser()),
    "exit codes": exit_codes,
    "files": file_table,
    "entities": entity_table,
    "sidecar keys": key_table,
    "region columns": partial(column_table, regions.COLUMNS),
    "graph columns": partial(column_table, graphs.COLUMNS),
    "quality measures": partial(column_table, quality.MEASURES),
    "quality limits": limit_table,
}


class FromCode(SphinxDirective):
    """The directive; its argument is a key of `PARTS`."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[Node]:
        """Return the part's Markdown, parsed."""
        return self.parse_text_to_nodes(PARTS[self.arguments[0]]())


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("from-code", FromCode)
    return {"parallel_read_safe": True}
