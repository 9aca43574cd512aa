"""`unibrain-evaluate`: measure the app's inference on labelled heads, beside its peers."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from unibrain_bids import __version__
from unibrain_bids.errors import ExitCode, UnibrainError

if TYPE_CHECKING:
    from unibrain_bids.evaluation.evaluate import Predictor
    from unibrain_bids.evaluation.heads import HeadRecord
    from unibrain_bids.inference import AnyModel

SOURCES = ("muse", "simulated", "unlabelled")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns an exit code of `unibrain_bids.errors.ExitCode`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = build_parser().parse_args(arguments)
    try:
        return _run(options, shlex.join(["unibrain-evaluate", *arguments]))
    except UnibrainError as error:
        print(f"unibrain-evaluate: {error}", file=sys.stderr)
        return error.exit_code


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = argparse.ArgumentParser(prog="unibrain-evaluate", description=__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("../shared/data"),
        help="folder with atlas/ and muse/, labelmaps/ or ds000011/ and heads/ (default: %(default)s)",
    )
    parser.add_argument("--heads", nargs="+", choices=SOURCES, default=["muse"], help="which heads (default: muse)")
    parser.add_argument("--count", type=int, default=8, help="how many simulated heads (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("work/evaluation"), help="folder for the TSV files (default: %(default)s)"
    )
    parser.add_argument("--markdown", type=Path, help="also write the tables as one document, e.g. docs/accuracy.md")
    parser.add_argument("--picture", type=Path, help="draw the best and the worst simulated head (PNG)")
    parser.add_argument("--peers", type=Path, nargs="+", default=[], help="JSON files of benchmarks/peers.py")
    parser.add_argument("--n4", type=Path, help="JSON file of benchmarks/n4.py")
    parser.add_argument("--weights", type=Path, help="weights file (default: those of the package)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<number> (default: %(default)s)")
    parser.add_argument("--smoothness", type=float, default=0.1, help="NPP's lambda (default: %(default)s)")
    return parser


def _run(options: argparse.Namespace, command: str) -> int:
    from unibrain_bids.evaluation import tables
    from unibrain_bids.evaluation.evaluate import Evaluator
    from unibrain_bids.evaluation.measures import read_uniformity
    from unibrain_bids.evaluation.pictures import write_pictures
    from unibrain_bids.evaluation.registration import Peer, load_template_truth
    from unibrain_bids.inference import load_model, predict

    peers = [Peer.read(path) for path in options.peers]
    corrected = read_uniformity(options.n4) if options.n4 else {}
    template = load_template_truth(options.data)
    model = load_model(options.device, options.weights)
    predictor = partial(predict, model=model, smoothness=options.smoothness)
    sources = {name: _records(name, options, predictor) for name in options.heads}
    template_prediction = predictor(template.path)
    report = partial(print, flush=True)
    evaluator = Evaluator(predictor, template, template_prediction, peers, report, corrected)
    evaluations = []
    for name, records in sources.items():
        evaluation = evaluator.run(name, records)
        evaluations.append(evaluation)
        report(f"\n{tables.summary(evaluation)}\n")
        for path in tables.write_tsv(evaluation, options.out):
            report(f"wrote {path}")
    if options.picture and "simulated" in sources:
        scores = next(evaluation.scores for evaluation in evaluations if evaluation.source == "simulated")
        ranked = sorted(scores, key=lambda head: head.measures.values["structure_dice"])
        chosen = {ranked[-1].name, ranked[0].name}
        records = [record for record in sources["simulated"] if record.name in chosen]
        write_pictures(records, predictor, options.picture)
        report(f"wrote {options.picture}")
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        options.markdown.write_text(
            tables.markdown(evaluations, _facts(options, command, model), picture=options.picture)
        )
        report(f"wrote {options.markdown}")
    return ExitCode.SCANS_FAILED if any(evaluation.failures for evaluation in evaluations) else ExitCode.SUCCESS


def _records(source: str, options: argparse.Namespace, predictor: Predictor) -> list[HeadRecord]:
    if source == "muse":
        from unibrain_bids.evaluation.heads import muse_heads

        return muse_heads(options.data)
    if source == "unlabelled":
        from unibrain_bids.evaluation.unlabelled import unlabelled_heads

        return unlabelled_heads(options.data, options.out / "unlabelled", predictor)
    from unibrain_bids.evaluation.simulated import simulated_heads

    return simulated_heads(options.data, options.out / "simulated", count=options.count)


def _facts(options: argparse.Namespace, command: str, model: AnyModel) -> Mapping[str, str]:
    """Return what a reader needs to judge or repeat the run."""
    threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
    return {
        "Command": f"`{command}`",
        "Date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "Code": f"unibrain_bids {__version__}, git revision {_revision()}",
        "Weights": f"sha256 `{model.sha256}` ({', '.join(f'{k} {v}' for k, v in sorted(model.metadata.items()))})",
        "Data": f"{', '.join(options.heads)} of `{options.data}`",
        "Machine": f"{model.device}, {threads} threads, {platform.machine()}, Python {platform.python_version()}",
    }


def _revision() -> str:
    """Return the git revision of the source tree, "unknown" outside one."""
    describe = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(
            describe, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main())
