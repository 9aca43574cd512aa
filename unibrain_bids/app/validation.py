"""What the BIDS validator, where it is installed, says of the raw dataset. It is reported, and stops nothing."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from unibrain_bids.bids.atomic import write_json

VALIDATOR = "bids-validator-deno"

logger = logging.getLogger(__name__)


def validate(bids_dir: Path, log_dir: Path) -> None:
    """Run the validator on `bids_dir`; log its errors in one line and write all it says to `log_dir`."""
    program = shutil.which(VALIDATOR) or shutil.which(VALIDATOR, path=str(Path(sys.executable).parent))
    if program is None:
        logger.debug("%s is not installed: the dataset is not validated", VALIDATOR)
        return
    command = [program, str(bids_dir), "--format", "json"]
    output = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False).stdout
    try:
        issues = json.loads(output)["issues"]["issues"]
    except (ValueError, KeyError) as error:
        logger.warning("%s could not run on %s (%s)", VALIDATOR, bids_dir, error)
        return
    details = log_dir / "bids-validator.json"
    write_json(details, {"issues": issues})  # and not the summary, which repeats age and sex of the participants
    errors = Counter(issue["code"] for issue in issues if issue["severity"] == "error")
    if errors:
        codes = ", ".join(f"{code} ({count})" for code, count in sorted(errors.items()))
        logger.warning("%s is not valid BIDS: %s; processing goes on. See %s", bids_dir, codes, details)
