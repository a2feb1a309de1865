"""Trains the model of `linear`, and says how good it is. Needs scikit-learn."""

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
    """Train on a file of prompts and write the model; the same file gives the same model.

    Raises:
        TrainingDataError: if the file is not one of labelled prompts.
    """
    fit(Inputs.of(read_records(path))).save(out)
