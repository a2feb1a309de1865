from typing import Any

import pytest

from proctor.router import Constant, Conversation, UnknownClassifier, classifier, load
from proctor.router.ensemble import Ensemble
from proctor.router.rules import Rules


@pytest.mark.parametrize(
    ("name", "kind"), [("constant", Constant), ("ensemble", Ensemble), ("rules", Rules)]
)
def test_classifiers_are_found_by_name(name: str, kind: type[Any]) -> None:
    loaded = load(name)
    assert isinstance(loaded, kind)
    assert sum(loaded.classify(Conversation.of("hello")).probabilities) == pytest.approx(1.0)


def test_an_unknown_name_is_refused_with_the_installed_names() -> None:
    with pytest.raises(
        UnknownClassifier, match=r"'oracle'. Installed classifiers: .*ensemble, rules"
    ):
        load("oracle")


def test_without_installed_classifiers_the_message_says_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Nothing:
        names = frozenset[str]()

    monkeypatch.setattr(classifier, "entry_points", lambda group: Nothing())
    with pytest.raises(UnknownClassifier, match="Installed classifiers: none"):
        load("ensemble")


def test_constant_always_returns_its_level() -> None:
    assert Constant().classify(Conversation.of("hi")).probabilities == (0.0, 0.0, 1.0, 0.0)
    assert Constant("high").classify(Conversation(())).probabilities == (0.0, 0.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="must be one of none, low, medium, high, not 'max'"):
        Constant("max")
