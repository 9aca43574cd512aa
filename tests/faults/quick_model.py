"""`unibrain-bids` with a stand-in for the neural model, which is the one thing that does not matter here.

`python quick_model.py WORDS...` is the command itself: its own processes, its own Nipype workflow, its own files. Only
`predict` is replaced, by thresholds, so that a scan takes no time; and `FAULT="<what>:<scan>[:<path>] ..."` makes it
fail there in the ways that real runs fail:

    kill      the process is killed from outside
    wait      touches the file <path>, and waits to be killed
    memory    more memory is asked for than there is
    gpu       what torch raises when the GPU's memory is full
    lose      removes the folder <path>, with all intermediate files
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

os.environ["NO_ET"] = "1"

import numpy as np
import torch

import unibrain_bids.interfaces.predict as room
from unibrain_bids.imaging.scan import load_scan
from unibrain_bids.inference import Prediction
from unibrain_bids.workflows import multiproc


def fail(what: str, path: str = "") -> None:
    """Fail, or do what makes others fail."""
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "wait":
        Path(path).touch()
        time.sleep(300)
    elif what == "memory":
        np.ones(1 << 50)
    elif what == "gpu":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    elif what == "lose":
        shutil.rmtree(path)


def predict(path: str, **_: Any) -> Prediction:
    """Take every tissue for a range of intensities."""
    for fault in os.environ.get("FAULT", "").split():
        what, scan, *place = fault.split(":")
        if Path(path).name.startswith(f"{scan}_"):
            fail(what, *place)
    head = load_scan(path)
    tissues = np.digitize(head.data, [25, 50, 75]).astype(np.uint8)
    mask = (tissues > 0).astype(np.uint8)
    return Prediction(
        scan=head,
        mask=mask,
        preproc=head.data,
        brain=head.data * mask,
        gain=np.ones_like(head.data),
        structures=tissues.astype(np.int16),
        tissues=tissues,
        tissue_probabilities={
            name: (tissues == code) * np.float32(1) for name, code in (("GM", 1), ("WM", 2), ("CSF", 3))
        },
        parcellations={},
        frame_from_scan=np.eye(4),
        intracranial_volume=float(mask.sum()),
    )


room.predict = predict  # type: ignore[assignment]
room.load_model = lambda **_: None  # type: ignore[assignment,return-value]
room.frame_from_space = lambda space, **_: np.eye(4)  # type: ignore[attr-defined]
multiproc.PRELOADED.append("quick_model")  # the workers are forked from a process that imports this

if __name__ == "__main__":
    from unibrain_bids.app.cli import main

    sys.exit(main())
