#!/usr/bin/env python3
"""Write a raw BIDS dataset of COUNT participants, one simulated head each at 3 mm, for the scripts beside this."""

import sys
from dataclasses import replace
from pathlib import Path

from unibrain_bids import demo

folder, count = Path(sys.argv[1]), int(sys.argv[2])
scans = tuple(demo.DemoScan(f"{number:02}", "1", 100 + number) for number in range(1, count + 1))
demo.write_dataset(folder, scans, replace(demo.SPAN, shape=(72, 88, 84), spacing=3.0))
