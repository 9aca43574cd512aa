"""A run of the group level."""

from __future__ import annotations

import logging
import os

from unibrain_bids.app.settings import Settings
from unibrain_bids.bids.dataset import check_output_dir, container_from_environment, write_dataset_files
from unibrain_bids.bids.inputs import check_dataset
from unibrain_bids.errors import DatasetError, ExitCode
from unibrain_bids.group.level import PAGE, run_group
from unibrain_bids.group.options import GroupOptions
from unibrain_bids.workflows.logs import start_logging

logger = logging.getLogger(__name__)

_SHOWN = 20


def run(settings: Settings, options: GroupOptions) -> ExitCode:
    """Summarise the derivatives of the participants that `settings` ask for, as `options` say.

    Raises
    ------
    UnibrainError
        Dataset, derivatives, options or heads are not what they should be.
    """
    start_logging(verbosity=settings.verbosity)
    bids_dir, output_dir = settings.processing.bids_dir, settings.processing.output_dir
    check_dataset(bids_dir)
    check_output_dir(output_dir, bids_dir)
    if not output_dir.is_dir():
        raise DatasetError(f"{output_dir}: there is no such folder.", "Run the participant level first.")
    heads = {head.label: f"Predictions of the head '{head.label}'. {head.card['Use']}" for head in options.heads}
    write_dataset_files(output_dir, bids_dir, heads=heads, container=container_from_environment(os.environ))
    result = run_group(bids_dir, output_dir, options=options, participants=settings.participants)
    for name, reason in list(result.excluded.items())[:_SHOWN]:
        logger.warning("%s is left out: %s", name, reason)
    if len(result.excluded) > _SHOWN:
        logger.warning("... and %d more: see %s", len(result.excluded) - _SHOWN, output_dir / PAGE)
    logger.info("%d scan(s) summarised in %s", result.scans, output_dir / PAGE)
    return ExitCode.SUCCESS
