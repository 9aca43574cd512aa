"""`python -m unibrain_bids` is `unibrain-bids`."""

import sys

from unibrain_bids.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
