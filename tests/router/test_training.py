"""Training on a synthetic corpus, and the shipped model on its training file where present."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier

from proctor.router import Conversation, cli, decide
from proctor.router.ensemble import FEATURE_NAMES, Ensemble
from proctor.router.model import Model, ModelError
from proctor.router.train import TrainingDataError, cross_validate, fit, read_records, train
from proctor.router.train.fitting import TREE_DEPTH, Inputs, fit_once, tree_arrays
from tests.router import corpus

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "prompts_train.jsonl"
WEIGHTS = ROOT / "router" / "weights" / "ensemble.npz"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("training")
    data = corpus.write(folder / "data.jsonl")
    train(data, folder / "model.npz")
    return data, folder / "model.npz"


def test_the_same_file_gives_the_same_bytes(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, model = trained
    train(data, tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == model.read_bytes()


def test_the_model_fits_its_training_data(trained: tuple[Path, Path]) -> None:
    data, model = trained
    classifier = Ensemble(model)
    records = read_records(data)
    predicted = [
        decide(classifier.classify(record.conversation).probabilities) for record in records
    ]
    right = [name == expected for name, expected in zip(predicted, _levels(data), strict=True)]
    assert np.mean(right) > 0.9


def _levels(data: Path) -> list[str]:
    return [json.loads(line)["tier"] for line in data.read_text().splitlines()]


def test_one_source_alone_is_enough(tmp_path: Path) -> None:
    data = corpus.write(tmp_path / "data.jsonl", sources=1)
    model = fit(Inputs.of(read_records(data)))
    assert model.inverse_temperature > 0


def test_tree_logits_equal_those_of_scikit_learn(trained: tuple[Path, Path]) -> None:
    data, path = trained
    inputs = Inputs.of(read_records(data))
    trees = GradientBoostingClassifier(
        init="zero", n_estimators=30, max_depth=TREE_DEPTH, subsample=0.7, random_state=1
    ).fit(inputs.values, inputs.levels)
    model = replace(Model.load(path), **tree_arrays(trees), tree_bias=np.zeros(4, np.float32))
    for row in range(0, len(inputs.levels), 3):
        part = inputs.model_input(row)
        raw = trees.decision_function(part.values[None, :])[0]
        assert model.tree_logits(part) == pytest.approx(raw, abs=1e-4)


def test_labels_by_hand_weigh_more_than_labels_by_rule(tmp_path: Path) -> None:
    """One prompt has two labels: by the rule of its source, and by hand."""
    rows = [{"prompt": "hello", "tier": tier} for tier in ("none", "low", "medium", "high")]
    by_hand = {"prompt": "hello", "tier": "high", "meta": {"labelled": "hand"}}
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in [*rows, by_hand] * 30))
    by_rule = {**by_hand, "meta": {}}
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(json.dumps(row) for row in [*rows, by_rule] * 30))

    def probability_of_high(file: Path) -> float:
        model = fit_once(Inputs.of(read_records(file)))
        part = Inputs.of(read_records(file)).model_input(0)
        return float(model.probabilities(model.logits(part))[3])

    assert probability_of_high(path) > probability_of_high(other) + 0.1


def test_validation_reports_every_classifier(tmp_path: Path) -> None:
    report = cross_validate(corpus.write(tmp_path / "data.jsonl", count=120, sources=3))
    assert len(report.figures) == 5
    for figures in report.figures:
        assert figures.confusion.sum() == 120
        assert figures.exact <= figures.exact_or_border <= 1.0
        assert figures.exact <= figures.within_one
    assert "| high |" in str(report)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 2"),
        ('{"prompt": "x", "tier": "huge"}', "line 2"),
        ('{"tier": "low"}', "line 2"),
        ("[]", "line 2"),
        ('{"prompt": "x", "tier": "low"}', "Missing: medium, high"),
    ],
)
def test_bad_training_data_is_named(line: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "hi\u2028there", "tier": "none"}\n' + line)
    with pytest.raises(TrainingDataError, match=reason):
        read_records(path)
    with pytest.raises(TrainingDataError, match="nowhere"):
        read_records(tmp_path / "nowhere")


def test_a_file_that_holds_no_model_is_refused(tmp_path: Path, trained: tuple[Path, Path]) -> None:
    (tmp_path / "not.npz").write_text("no model")
    for path in (tmp_path / "not.npz", tmp_path / "nowhere.npz"):
        with pytest.raises(ModelError, match="is not a router model"):
            Ensemble(path).classify(Conversation.of("x"))
    stored = dict(np.load(trained[1]))
    np.savez(tmp_path / "other.npz", **(stored | {"feature_names": stored["feature_names"][::-1]}))
    with pytest.raises(ModelError, match="trained on different features"):
        Ensemble(tmp_path / "other.npz").classify(Conversation.of("x"))


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = corpus.write(tmp_path / "data.jsonl", count=80, sources=2)
    assert cli.main(["train", str(data), "--out", str(tmp_path / "m.npz")]) == 0
    assert "wrote" in capsys.readouterr().out
    assert cli.main(["evaluate", str(data)]) == 0
    assert "**ensemble, sources held out" in capsys.readouterr().out
    ledger = tmp_path / "ledger.jsonl"
    row = {"tier": "low", "tokens": 12, "end_reason": "natural"}
    ledger.write_text("\n".join([json.dumps(row)] * 40))
    assert cli.main(["calibrate", "--ledger", str(ledger)]) == 0
    assert "max_tokens = 12" in capsys.readouterr().out
    assert cli.main(["calibrate", "--ledger", str(ledger), "--quantile", "2"]) == 2
    assert cli.main(["train", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'sklearn'")

    monkeypatch.setattr(cli, "_train", missing)
    assert cli.main(["train", "x"]) == 2
    assert "pip install 'proctor[router]'" in capsys.readouterr().err


def test_the_shipped_model_is_small_and_has_the_current_features() -> None:
    assert WEIGHTS.stat().st_size < 1_000_000
    assert tuple(Model.load(WEIGHTS).feature_names) == FEATURE_NAMES


@pytest.mark.skipif(not DATA.exists(), reason="../shared/data/prompts_train.jsonl does not exist")
def test_the_shipped_model_fits_its_training_file() -> None:
    classifier = Ensemble()
    records = read_records(DATA)[::4]
    errors = [
        abs(
            record.level
            - ["none", "low", "medium", "high"].index(
                decide(classifier.classify(record.conversation).probabilities)
            )
        )
        for record in records
    ]
    assert np.mean(np.equal(errors, 0)) > 0.8
    assert np.mean(np.less_equal(errors, 1)) > 0.97
