"""Which questions are kept, and which answers are needed to tell."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.curation.difficulty.rule import (
    NOT_MEASURED,
    SOLVED,
    UNSOLVED,
    Judge,
    Mode,
    is_needed,
    may_be_needed,
    verdict,
)

SMALL, LARGE = Judge("small"), Judge("large")
EASY = Judge("easy", only_without=True)

KNOWLEDGE = st.fixed_dictionaries(
    {},
    optional={(name, mode): st.booleans() for name in ("small", "large", "easy") for mode in Mode},
)
JUDGES = st.sampled_from([[SMALL], [EASY], [SMALL, EASY], [SMALL, LARGE], [EASY, LARGE, SMALL]])


def known(**answers: str) -> dict[tuple[str, Mode], bool]:
    """Return what `small="01"` says: fails without thinking, right with it; `?` is unknown."""
    return {
        (name, mode): letter == "1"
        for name, letters in answers.items()
        for mode, letter in zip(Mode, letters, strict=False)
        if letter != "?"
    }


@pytest.mark.parametrize(
    ("judges", "solved", "expected"),
    [
        ([SMALL], known(small="01"), None),
        ([SMALL], known(small="00"), UNSOLVED),
        ([SMALL], known(small="1?"), SOLVED),
        ([SMALL], known(small="0?"), NOT_MEASURED),
        ([SMALL], {}, NOT_MEASURED),
        # At least one model shows the delta, and none solves the question without thinking.
        ([SMALL, LARGE], known(small="00", large="01"), None),
        ([SMALL, LARGE], known(small="01", large="0?"), None),
        ([SMALL, LARGE], known(small="00", large="0?"), NOT_MEASURED),
        ([SMALL, LARGE], known(small="01", large="11"), SOLVED),
        ([SMALL, LARGE], known(small="01"), NOT_MEASURED),
        ([SMALL, LARGE], known(large="1"), SOLVED),
        ([SMALL, EASY], known(small="01", easy="0"), None),
        ([SMALL, EASY], known(small="01", easy="1"), SOLVED),
        # s1's rule: what no model solves, whether or not thinking helps.
        ([EASY], known(easy="0"), None),
        ([EASY], known(easy="1"), SOLVED),
    ],
)
def test_verdicts(
    judges: list[Judge], solved: dict[tuple[str, Mode], bool], expected: str | None
) -> None:
    assert verdict(judges, solved) == expected


@given(JUDGES, KNOWLEDGE)
def test_further_answers_do_not_change_a_verdict(
    judges: list[Judge], solved: dict[tuple[str, Mode], bool]
) -> None:
    before = verdict(judges, solved)
    missing = [key for key in product(("small", "large", "easy"), Mode) if key not in solved]
    for answers in product([True, False], repeat=len(missing)):
        after = verdict(judges, solved | dict(zip(missing, answers, strict=True)))
        if before is None:
            # Only an answer without thinking that was not asked could be missing, and none is.
            assert after is None
        elif before != NOT_MEASURED:
            assert after == before
        assert after != NOT_MEASURED


@given(JUDGES, KNOWLEDGE)
def test_asking_what_is_needed_leads_to_a_verdict(
    judges: list[Judge], truth: dict[tuple[str, Mode], bool]
) -> None:
    """Mode after mode, as a measurement asks; every answer that was needed is given."""
    solved: dict[tuple[str, Mode], bool] = {}
    for mode in Mode:
        for judge in judges:
            if is_needed(judge, mode, judges, solved):
                assert may_be_needed(judge, mode, judges, {})
                solved[judge.name, mode] = truth.get((judge.name, mode), False)

    full = {
        (judge.name, mode): truth.get((judge.name, mode), False)
        for judge in judges
        for mode in Mode
    }
    assert verdict(judges, solved) == verdict(judges, full) != NOT_MEASURED


def test_thinking_is_not_asked_for_in_vain() -> None:
    judges = [SMALL, EASY]
    assert not is_needed(SMALL, Mode.THINKING, judges, known(small="0", easy="1"))
    assert not is_needed(EASY, Mode.THINKING, judges, known(small="0", easy="0"))
    assert is_needed(SMALL, Mode.THINKING, judges, known(small="0", easy="0"))
    # An answer that a server refused may be given later: the price includes what may follow.
    assert not is_needed(SMALL, Mode.THINKING, judges, known(small="0"))
    assert may_be_needed(SMALL, Mode.THINKING, judges, known(small="0"))
