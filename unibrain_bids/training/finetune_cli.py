"""`unibrain-train finetune`: fit model and head to a BIDS cohort, and validate both on held-out participants.

Research use only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from unibrain_bids.errors import ExitCode, UnibrainError, UsageError


def build_parser() -> argparse.ArgumentParser:
    """The options of `unibrain-train finetune`."""
    parser = argparse.ArgumentParser(prog="unibrain-train finetune", description=__doc__)
    _add_cohort(parser.add_argument_group("the cohort"))
    _add_training(parser.add_argument_group("the training"))
    return parser


def _add_cohort(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--bids", type=Path, required=True, metavar="DIR", help="raw dataset with T1w scans")
    text = "datasets with brain masks (desc-brain_mask) and segmentations (aseg numbers) in the scans' own space"
    group.add_argument("--derivatives", type=Path, nargs="+", action="extend", default=[], metavar="DIR", help=text)
    text = "column of participants.tsv: two classes, or numbers (default: learn from masks and segmentations alone)"
    group.add_argument("--target", metavar="COLUMN", help=text)
    text = "the two values, where the column has more; the second one is the positive class"
    group.add_argument("--classes", nargs=2, metavar="VALUE", help=text)
    text = "column with the site (default: one that is named so); with several, whole sites are held out too"
    group.add_argument("--site-column", metavar="COLUMN", help=text)
    text = "participants, with or without sub- (default: all)"
    group.add_argument("--participant-label", nargs="+", action="extend", default=[], metavar="LABEL", help=text)
    group.add_argument("--bids-filter-file", type=Path, metavar="FILE", help="as the app's")


def _add_training(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run; resumed if it exists")
    group.add_argument("--head-only", action="store_true", help="leave the model as it is: minutes instead of hours")
    group.add_argument("--weights", type=Path, metavar="FILE", help="weights to start from (default: the shipped ones)")
    text = "label maps of the simulated heads, made by training.packing (default: the packaged phantom)"
    group.add_argument("--data", type=Path, metavar="FILE", help=text)
    group.add_argument("--folds", type=int, default=5, help="of the outer cross-validation (default: 5)")
    text = "of each of its trainings; there is one more for the final weights (default: 200)"
    group.add_argument("--steps", type=int, default=200, help=text)
    group.add_argument("--learning-rate", type=float, default=1e-4, help="at most (default: 0.0001)")
    group.add_argument(
        "--batch", type=int, default=2, help="samples of a step, every second one simulated (default: 2)"
    )
    text = "steps between two looks at the validation part, which decide when to stop (default: 20)"
    group.add_argument("--evaluate-every", type=int, default=20, metavar="STEPS", help=text)
    text = "exchanges of the labels in each permutation test (default: 1000)"
    group.add_argument("--permutations", type=int, default=1000, help=text)
    group.add_argument("--minutes", type=float, default=600.0, help="time budget of this call (default: 600)")
    group.add_argument("--seed", type=int, default=0)
    group.add_argument("--threads", type=int, default=0, help="CPU threads (0: torch's own choice)")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:i")


def main(argv: Sequence[str]) -> int:
    """Run `unibrain-train finetune`; returns the exit code."""
    args = build_parser().parse_args(argv)
    import torch

    from unibrain_bids.training.finetuning import FinetuneOptions, finetune

    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        _check(args)
        options = FinetuneOptions(
            bids_dir=args.bids,
            out=args.out,
            derivatives=tuple(args.derivatives),
            target=args.target,
            classes=tuple(args.classes) if args.classes else None,
            site=args.site_column,
            head_only=args.head_only,
            participants=tuple(args.participant_label),
            filter_file=args.bids_filter_file,
            weights=args.weights,
            data=args.data,
            folds=args.folds,
            permutations=args.permutations,
            seed=args.seed,
            steps=args.steps,
            learning_rate=args.learning_rate,
            batch=args.batch,
            evaluate_every=args.evaluate_every,
            minutes=args.minutes,
            device=args.device,
        )
        finetune(options, progress=lambda line: print(line, flush=True))
    except UnibrainError as error:
        print(f"unibrain-train finetune: {error}", file=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print("\nInterrupted: run the same command again to go on.", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)
    return 0


def _check(args: argparse.Namespace) -> None:
    for name, least in (("folds", 2), ("steps", 1), ("batch", 2), ("evaluate_every", 1), ("permutations", 1)):
        if getattr(args, name) < least:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(args, name)}: expected at least {least}.")
    if args.data is not None and not args.data.is_file():
        raise UsageError(f"--data {args.data}: there is no such file.", "Make it with training.packing.")
