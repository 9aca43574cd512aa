#!/usr/bin/env python3
"""Print the Boutiques descriptor of `unibrain-bids`, made from its parser.

`make descriptor` puts it into boutiques.json. It follows the BIDS profile of Boutiques (`bosh validate -b`), which
fixes the form of the command line and wants the output folder twice: as a path that need not exist (String), and as one
that does (File).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from unibrain_bids import __version__
from unibrain_bids.app.options import build_parser
from unibrain_bids.errors import ExitCode

COMMAND = "mkdir -p [OUTPUT_DIR]; unibrain-bids [BIDS_DIR] [OUTPUT_DIR] [ANALYSIS_LEVEL]"
LEVELS = ["participant", "group"]
# What a metavar means to Boutiques; everything else is a string. A folder that the app makes itself is no File, since
# Boutiques wants those to exist.
TYPES: dict[str, dict[str, Any]] = {
    "FILE": {"type": "File"},
    "N": {"type": "Number", "integer": True, "minimum": 0},
    "LAMBDA": {"type": "Number"},
}
NOT_FOR_PIPELINES = ("help", "version", "print_completion")


def positionals() -> list[dict[str, Any]]:
    """Return the inputs that have no flag."""
    output = {"value-key": "[OUTPUT_DIR]", "optional": True, "description": "the BIDS-Derivatives dataset to write"}
    return [
        {
            "id": "bids_dir",
            "name": "BIDS dataset",
            "type": "File",
            "value-key": "[BIDS_DIR]",
            "optional": False,
            "description": "the BIDS dataset to read; it is never written to",
        },
        {"id": "output_dir", "name": "output folder", "type": "String", **output},
        {"id": "output_dir_file", "name": "output folder that exists", "type": "File", **output},
        {
            "id": "analysis_level",
            "name": "level",
            "type": "String",
            "value-key": "[ANALYSIS_LEVEL]",
            "value-choices": LEVELS,
            "optional": False,
            "description": "each scan for itself (participant), or all that are done together (group)",
        },
    ]


def options(parser: argparse.ArgumentParser) -> Iterator[dict[str, Any]]:
    """Yield the inputs that have a flag: every option that `--help` lists."""
    for action in parser._actions:
        flags = [flag for flag in action.option_strings if flag.startswith("--")]
        if not flags or action.help == argparse.SUPPRESS or action.dest in NOT_FOR_PIPELINES:
            continue
        name = flags[0].removeprefix("--").replace("-", "_")
        kind = {"type": "Flag"} if action.nargs == 0 else TYPES.get(str(action.metavar), {"type": "String"})
        yield {
            "id": name,
            "name": name.replace("_", " "),
            **kind,
            **({"list": True} if action.nargs == "+" else {}),
            "command-line-flag": flags[0],
            "value-key": f"[{name.upper()}]",
            "optional": True,
            "description": action.help,
        }


def descriptor() -> dict[str, Any]:
    """Return the whole descriptor."""
    parser = build_parser()
    flagged = sorted(options(parser), key=lambda entry: entry["id"] not in ("participant_label", "session_label"))
    outputs = ["output_dir", "output_dir_file"]
    return {
        "name": "unibrain-bids",
        "description": " ".join(str(parser.description).split()),
        "author": "The unibrain_bids contributors",
        "tool-version": __version__,
        "schema-version": "0.5",
        "command-line": " ".join([COMMAND, *(entry["value-key"] for entry in flagged)]),
        "container-image": {"type": "docker", "image": f"localhost/unibrain-bids:{__version__}", "index": "docker://"},
        "inputs": [*positionals(), *flagged],
        "groups": [
            {
                "id": "output_group",
                "name": "output folder",
                "members": outputs,
                "mutually-exclusive": True,
                "one-is-required": True,
            },
        ],
        "output-files": [
            {
                "id": "derivatives",
                "name": "BIDS-Derivatives dataset",
                "path-template": "[OUTPUT_DIR]",
                "optional": False,
                "description": "one folder per participant, label tables, reports, and logs of each run",
            },
        ],
        "error-codes": [{"code": code, "description": code.meaning} for code in ExitCode if code],
        "suggested-resources": {"cpu-cores": 2, "ram": 4, "walltime-estimate": 120},
        "tags": {"domain": ["neuroinformatics", "bids"], "modality": ["mri"]},
    }


if __name__ == "__main__":
    print(json.dumps(descriptor(), indent=1))
