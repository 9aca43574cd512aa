"""The command `unibrain-bids`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from unibrain_bids.app.options import parse_options
from unibrain_bids.app.settings import make_settings
from unibrain_bids.app.signals import interruptible
from unibrain_bids.errors import ExitCode, UnibrainError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the BIDS App with the words of the command line (without the program's name); return the exit code."""
    try:
        with interruptible() as check:
            settings = make_settings(*parse_options(argv))
            if settings.group is not None:
                from unibrain_bids.app import group

                return group.run(settings, settings.group)
            from unibrain_bids.app.run import run

            return run(settings, check)
    except UnibrainError as error:
        print(f"unibrain-bids: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("unibrain-bids: interrupted; scans that were complete stay, run again to go on.", file=sys.stderr)
        return ExitCode.INTERRUPTED
