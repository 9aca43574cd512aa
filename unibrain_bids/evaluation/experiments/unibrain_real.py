"""UniBrain on real heads, beside other weights: one table of what `unibrain-evaluate` has written for each.

unibrain-evaluate --weights FILE --out work/real/tiny
python -m unibrain_bids.evaluation.experiments.unibrain_real "UniBrain=work/real/tiny" "unified=work/evaluation"
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from unibrain_bids.evaluation.evaluate import CLOSED_FORM
from unibrain_bids.evaluation.experiments.results import Row, read_rows, write_rows

if TYPE_CHECKING:
    import pandas as pd

_MEAN = "mean"  # a row of its own in what `unibrain-evaluate` writes
_COLUMNS = {
    "mask_dice": "mask Dice", "mask_hd95": "mask HD95 (mm)", "tissue_dice": "tissue Dice", "tissue_dice_GM": "GM",
    "tissue_dice_WM": "WM", "tissue_dice_CSF": "CSF", "warped_dice": "warped Dice", "ncc": "NCC",
    "mutual_information": "MI",
}  # fmt: skip


def compared(folders: Mapping[str, Path]) -> list[Row]:
    """Means over the MUSE heads that were evaluated for every label; alignment is by the model's affine as it is.

    Raises
    ------
    ValueError
        There is no such head.
    """
    tables = {label: _figures(folder) for label, folder in folders.items()}
    heads = sorted(set.intersection(*(set(table.index) for table in tables.values())))
    if not heads:
        raise ValueError(f"{', '.join(map(str, folders.values()))}: no head was evaluated for all of them.")
    return [
        {"system": label, "heads": str(len(heads))}
        | {title: f"{table.loc[heads, name].mean():.3g}" for name, title in _COLUMNS.items()}
        for label, table in tables.items()
    ]


def _figures(folder: Path) -> pd.DataFrame:
    """Figures of each head: those of the scan itself, and those of its alignment."""
    import pandas as pd

    aligned = [row for row in read_rows(folder / "muse_registration.tsv") if row["method"] == CLOSED_FORM]
    frames = [pd.DataFrame(rows).set_index("head") for rows in (read_rows(folder / "muse_heads.tsv"), aligned)]
    figures = frames[0].join(frames[1].drop(columns="method"), how="inner").drop(index=_MEAN, errors="ignore")
    return figures.apply(pd.to_numeric, errors="coerce")


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluated", nargs="+", metavar="LABEL=FOLDER", help="folders of `unibrain-evaluate --out`")
    parser.add_argument("--out", type=Path, default=Path("docs/experiments"))
    args = parser.parse_args()
    pairs = (text.partition("=") for text in args.evaluated)
    write_rows(args.out / "unibrain-real.tsv", compared({label: Path(folder) for label, _, folder in pairs}))


if __name__ == "__main__":
    main()
