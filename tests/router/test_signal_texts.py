import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from proctor.router.ensemble import FEATURE_NAMES, Ensemble
from proctor.router.features.signal_texts import TEXTS, text_of
from proctor.router.model import Model, ModelError
from proctor.router.train.rename_features import ARRAYS, rename_features


def test_identifiers_are_snake_case_and_texts_unique() -> None:
    identifiers = {*FEATURE_NAMES, *TEXTS}
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", identifier) for identifier in identifiers)
    assert len({text_of(identifier) for identifier in identifiers}) == len(identifiers)


def test_texts_of_lexicon_groups() -> None:
    assert text_of("higher_math") == "higher_math"
    assert text_of("higher_math_first") == "higher_math first"
    assert text_of("prove_last") == "prove last"


def test_an_older_model_file_is_converted_to_the_same_arrays(tmp_path: Path) -> None:
    former = {current: name for name, current in ARRAYS.items()}
    model = Ensemble().model
    arrays = {field.name: getattr(model, field.name) for field in fields(Model)}
    texts = [text_of(identifier) for identifier in model.feature_names.tolist()]
    older = arrays | {"feature_names": np.array(texts)}
    path = tmp_path / "older.npz"
    np.savez(path, **{former.get(name) or name: array for name, array in older.items()})
    assert rename_features(path)
    with np.load(path) as converted:
        for name, array in arrays.items():
            assert converted[name].dtype == array.dtype
            assert converted[name].tobytes() == array.tobytes()
    assert not rename_features(path)


def test_unknown_features_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", names=np.array(["length", "colour"]))
    with pytest.raises(ModelError, match="unknown features: colour"):
        rename_features(tmp_path / "other.npz")
