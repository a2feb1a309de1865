"""Trains and cross-validates the model of the classifier `ensemble`. Requires scikit-learn."""

from pathlib import Path

from proctor.router.train.fitting import SEED, Inputs, fit
from proctor.router.train.records import Record, TrainingDataError, read_records
from proctor.router.train.validation import Report, cross_validate

__all__ = [
    "SEED",
    "Inputs",
    "Record",
    "Report",
    "TrainingDataError",
    "cross_validate",
    "fit",
    "read_records",
    "train",
]


def train(path: Path, out: Path) -> None:
    """Train on a file of labelled prompts and write the model; training is deterministic.

    Raises:
        TrainingDataError: if the file is invalid.
    """
    fit(Inputs.of(read_records(path))).save(out)
