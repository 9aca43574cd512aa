"""NPP's tables, reduced to what a processor does in minutes.

    python -m unibrain_bids.evaluation.experiments.npp time intensity lambda rivals page

Each table becomes a file below --out (npp-time.tsv, ...); `page` makes npp.md and its figure from those that are there.
Heads are simulated from the label maps 13-16, which no run has seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unibrain_bids.evaluation.experiments.results import Row, as_markdown, write_rows

if TYPE_CHECKING:
    from unibrain_bids.inference import AnyModel

TABLES = ("time", "intensity", "lambda", "rivals")


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=[*TABLES, "page"])
    parser.add_argument("--data", type=Path, default=Path("packed/heads_dk.npz"), help="file made by training.packing")
    parser.add_argument("--out", type=Path, default=Path("docs/experiments"), help="folder of tables and page")
    parser.add_argument("--runs", type=Path, default=Path("work/experiments"), help="folder of the rivals' runs")
    parser.add_argument("--steps", type=int, default=250, help="training scans of each rival")
    parser.add_argument("--scans", type=int, default=3, help="whole scans of the table `intensity`")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    args = build_parser().parse_args(argv)
    import torch

    from unibrain_bids.evaluation.experiments import npp_page, npp_tables
    from unibrain_bids.inference.models import load_model
    from unibrain_bids.inference.npp import load_npp
    from unibrain_bids.model.presets import NPP, NPP_SMALL
    from unibrain_bids.training.recipes.basis import Heads

    torch.set_num_threads(args.threads)
    heads = Heads.load(args.data, torch.device("cpu"))
    presets = [(NPP_SMALL, 64), (NPP_SMALL, 128), (NPP, 64)]

    def models() -> dict[str, AnyModel]:
        return {name: load_model("cpu", name=name) for name in ("npp", "unified")}

    tables: dict[str, Callable[[], list[Row]]] = {
        "time": lambda: npp_tables.time_rows(presets, npp_tables.full_scan(heads), models()),
        "intensity": lambda: npp_tables.intensity_rows(heads, models(), scans=args.scans),
        "lambda": lambda: npp_tables.lambda_rows(heads, load_npp("cpu")),
        "rivals": lambda: npp_tables.rival_rows(heads, args.runs, steps=args.steps),
    }
    for name in (word for word in args.what if word != "page"):
        rows = tables[name]()
        write_rows(args.out / f"npp-{name}.tsv", rows)
        print(as_markdown(rows), flush=True)
    if "page" in args.what:
        npp_page.write_page(args.out, heads, args.runs, steps=args.steps)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
