from typing import Any

import pytest

from proctor.router import Constant, Conversation, UnknownClassifier, classifier, load
from proctor.router.ensemble import Ensemble
from proctor.router.rules import Rules


@pytest.mark.parametrize(
    ("name", "kind"), [("constant", Constant), ("ensemble", Ensemble), ("rules", Rules)]
)
def test_classifiers_are_found_by_name(name: str, kind: type[Any]) -> None:
    found = load(name)
    assert isinstance(found, kind)
    assert sum(found.classify(Conversation.of("hello")).probabilities) == pytest.approx(1.0)


def test_an_unknown_name_is_answered_with_those_that_are_installed() -> None:
    with pytest.raises(
        UnknownClassifier, match=r"'oracle'. Installed classifiers: .*ensemble, rules"
    ):
        load("oracle")


def test_where_none_is_installed_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        names = frozenset[str]()

    monkeypatch.setattr(classifier, "entry_points", lambda group: Nothing())
    with pytest.raises(UnknownClassifier, match="Installed classifiers: none"):
        load("ensemble")


def test_constant_says_its_level_whatever_is_asked() -> None:
    assert Constant().classify(Conversation.of("hi")).probabilities == (0.0, 0.0, 1.0, 0.0)
    assert Constant("high").classify(Conversation(())).probabilities == (0.0, 0.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="must be one of none, low, medium, high, not 'max'"):
        Constant("max")
