"""Converts a model file of an older version to the current names of arrays and features.

    python -m proctor.router.train.rename_features router/weights/ensemble.npz

Older versions stored a feature's text (`four numbers or more`) where the current one
stores its identifier (`four_or_more_numbers`), and named some arrays differently. The
numbers are unchanged, so the converted model's predictions are equal bit for bit.
A file of the current version is left as it is.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from proctor.router.ensemble import FEATURE_NAMES
from proctor.router.features.signal_texts import text_of
from proctor.router.model import Model, ModelError

ARRAYS = {
    "names": "feature_names",
    "centre": "mean",
    "rarity": "idf",
    "gram_weights": "ngram_weights",
    "gram_bias": "ngram_bias",
    "tree_border": "tree_threshold",
    "shares": "blend_weights",
    "sharpness": "inverse_temperature",
}
"""Former names of arrays, and their current names."""


def rename_features(path: Path) -> bool:
    """Convert a model file in place; return False if it is current already.

    Raises:
        ModelError: if a feature of the file is unknown.
        OSError: if the file cannot be read or written.
    """
    with np.load(path, allow_pickle=False) as stored:
        if "names" not in stored:
            return False
        arrays = {ARRAYS.get(name, name): stored[name] for name in stored.files}
    identifiers = {text_of(identifier): identifier for identifier in FEATURE_NAMES}
    unknown = [text for text in arrays["feature_names"].tolist() if text not in identifiers]
    if unknown:
        raise ModelError(f"{path} has unknown features: {', '.join(unknown)}")
    arrays["feature_names"] = np.array(
        [identifiers[text] for text in arrays["feature_names"].tolist()]
    )
    Model(**arrays).save(path)
    return True


def main(arguments: Sequence[str]) -> None:
    for argument in arguments:
        rename_features(Path(argument))


if __name__ == "__main__":
    main(sys.argv[1:])
