"""`unibrain-train RECIPE`: train from the packed label maps, for so many minutes, resuming where it stopped.

`unibrain-train finetune --help` has options of its own: it starts from trained weights, and from a BIDS cohort.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from unibrain_bids.training import finetune_cli

ATLAS = Path(__file__).parents[1] / "resources" / "population" / "atlas.npz"
RECIPES = (
    "first-look", "aligner", "unified", "refiner", "parcellation", "network",
    "npp", "npp-small", "unibrain", "unibrain-small", "unibrain-8mm", "unibrain-tiny",
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """The options of `unibrain-train`."""
    parser = argparse.ArgumentParser(prog="unibrain-train", description=__doc__)
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--data", type=Path, default=Path("packed/heads.npz"), help="file made by training.packing")
    parser.add_argument("--atlas", type=Path, default=ATLAS, help="soft atlas made by training.population")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and log; resumed when it exists")
    parser.add_argument("--unified", type=Path, help="run of the unified recipe, or weights, for the next three")
    parser.add_argument("--parcellation", type=Path, help="run of the recipe `parcellation`, for `network`")
    parser.add_argument("--init", type=Path, help="weights (.safetensors) that a new run starts from")
    parser.add_argument("--minutes", type=float, default=60.0, help="time budget of this call")
    parser.add_argument("--persons", type=int, default=24, help="training persons that `network` simulates (no budget)")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    text = "orthogonal steps (Muon) for the convolutions' kernels instead of Adam's"
    parser.add_argument("--muon", action="store_true", help=text)
    parser.add_argument("--anneal", type=int, default=0, help="end the run with so many steps to learning rate zero")
    text = "halve the learning rate after so many steps (NPP: 1e-4, halved after half of them)"
    parser.add_argument("--halve-after", type=int, default=0, metavar="STEPS", help=text)
    parser.add_argument("--ema", type=float, default=0.998, help="decay of the averaged weights; shorter for annealing")
    parser.add_argument("--evaluate-every", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: torch's own choice)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:i")
    parser.add_argument("--all-heads", action="store_true", help="train on the held-out heads too (final weights)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `unibrain-train`."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["finetune"]:
        return finetune_cli.main(words[1:])
    args = build_parser().parse_args(words)
    import torch

    from unibrain_bids.model.weights import load_weights
    from unibrain_bids.training import recipes
    from unibrain_bids.training.trainer import Trainer, TrainerSettings

    if args.threads:
        torch.set_num_threads(args.threads)
    name = args.device if args.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    torch.manual_seed(args.seed)
    heads = recipes.Heads.load(args.data, device, keep_all=args.all_heads)
    recipe = recipes.make(
        args.recipe, heads, args.atlas, args.unified, args.out, parcellation=args.parcellation, persons=args.persons
    )
    if isinstance(recipe, recipes.NetworkRecipe):
        recipe.run(args.out)
        return 0
    if args.init:
        load_weights(args.init, {recipes.MODULES[args.recipe]: recipe.model})
    settings = TrainerSettings(
        minutes=args.minutes, batch=args.batch, learning_rate=args.learning_rate, anneal=args.anneal,
        halve_after=args.halve_after, evaluate_every=args.evaluate_every, seed=args.seed, ema=args.ema,
        muon=args.muon,
    )  # fmt: skip
    Trainer(recipe, args.out, settings, device).run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
