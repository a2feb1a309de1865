"""Sections that compare conditions with each other, with a coin and with a perfect router."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from proctor.evaluation.conditions import Condition, Kind
from proctor.evaluation.options.thinking import EarlyExit, Parallel
from proctor.evaluation.report.comparisons import areas, early_exit, frontier, paired
from proctor.evaluation.report.findings import Findings
from proctor.evaluation.report.formatting import Section
from proctor.evaluation.report.frontier import Frontier, curves
from proctor.evaluation.report.plots import draw
from proctor.evaluation.report.sections import sections
from proctor.evaluation.rows import AnswerRecord
from proctor.evaluation.store import StoredRun
from tests.evaluation.factories import CONFIG, row

QUESTIONS = 100
NONE = Condition(Kind.CAP, 0)
LOW, AUTO, HIGH = (Condition(Kind.TIER, name) for name in ("low", "auto", "high"))
TWICE = Condition(Kind.CONTINUATIONS, 2)
EXIT = Condition(Kind.CONTINUATIONS, 2, early_exit=EarlyExit("answer", patience=2))
CHAINS = Condition(Kind.CAP, 300, parallel=Parallel(4, "vote"))


def answers(
    condition: Condition, right: int, tokens: int, samples: int = 1, **thinking: object
) -> list[AnswerRecord]:
    """Return answers, of which those to the first `right` of 100 questions are right."""
    return [
        row(
            condition,
            f"{question:02}",
            sample,
            float(question < right),
            "1",
            tokens=tokens,
            **thinking,
        )
        for question in range(QUESTIONS)
        for sample in range(samples)
    ]


TIERS = [*answers(LOW, 60, 50), *answers(AUTO, 78, 80), *answers(HIGH, 90, 150)]


def cells(section: Section | None) -> Mapping[str, Sequence[str]]:
    """Return the other cells of each row by the first."""
    assert section is not None
    assert section.table is not None
    return {first: others for first, *others in section.table.rows}


def test_the_section_on_early_exit() -> None:
    rows = [
        *answers(TWICE, 90, 240),
        *answers(EXIT, 88, 168, end_reason="settled", probe_tokens=18),
    ]
    rows[-1].response["choices"][0]["thinking"]["end_reason"] = "unsure"

    cell = cells(early_exit(Findings.of(rows)))[EXIT.name]

    assert cell[1:5] == ["150", "18.0", "99.0%", "1.0%"]
    assert cell[5].startswith("-2.0 (")
    assert cell[6] == "0.70 (0.70, 0.70)"  # 168 of 240
    assert early_exit(Findings.of(TIERS)) is None


def test_early_exit_without_its_counterpart_is_reported_alone() -> None:
    rows = answers(EXIT, 88, 168, end_reason="settled", probe_tokens=18)
    assert cells(early_exit(Findings.of(rows)))[EXIT.name][5:] == ["", ""]


def test_the_section_on_the_coin_and_the_perfect_router() -> None:
    section = frontier(Findings.of(TIERS))

    by_name = cells(section)
    assert section is not None
    assert [*by_name] == ["tier low", "tier high", "tier auto", "perfect router"]
    # A coin that sends 30 of 100 to the tier high gets 69.
    assert by_name["tier auto"][4].startswith("+9.0 (+")
    assert by_name["tier auto"][3].startswith(f"{78**2 / 81:.3g} (")
    # 30 questions need the tier high, and those that nothing gets right cost 50.
    assert by_name["perfect router"][:2] == [by_name["tier high"][0], "80"]
    words = " ".join(section.sentences)
    assert "The hull's corners: 'tier low', 'tier high'." in words
    assert "'tier auto' is above the line of 'tier low' and 'tier high': +9.0 (+" in words
    assert "an upper bound that no router reaches" in words
    assert "use --samples 2 or more" in words
    assert frontier(Findings.of(answers(LOW, 60, 50))) is None


def test_the_router_that_is_held_out() -> None:
    rows = [*answers(LOW, 60, 50, samples=2), *answers(HIGH, 90, 150, samples=2)]
    section = frontier(Findings.of(rows))

    # Each answer tells what the other one is, so that nothing is lost by not seeing it.
    by_name = cells(section)
    assert by_name["perfect router, held out"][:2] == by_name["perfect router"][:2]
    assert section is not None
    assert "is judged by the one left out" in " ".join(section.sentences)


def test_the_majority_represents_a_condition_with_votes() -> None:
    votes = Condition(Kind.CAP, 300, votes=3)
    lines = Frontier.of(Findings.of([*TIERS, *answers(votes, 70, 100, samples=3)]))

    assert [run.name for run in lines.others] == ["majority of 3 of at most 100", "tier auto"]
    assert lines.others[0].mean_tokens == 300
    assert lines.mixture == [(50, 0.6), (150, 0.9)]
    between = [[run.name for run in lines.coin(tokens)] for tokens in (20, 50, 99, 150, 300)]
    assert between == [
        ["tier low"],
        *[["tier low", "tier high"]] * 2,
        *[["tier high"]] * 2,
    ]


def test_areas_are_over_the_range_of_all_curves() -> None:
    rows = [
        *answers(NONE, 10, 0),
        *answers(Condition(Kind.CAP, 64), 50, 64),
        *answers(Condition(Kind.CAP, 256), 50, 256),
        *TIERS,
    ]
    findings = Findings.of(rows)

    assert {name: [run.name for run in runs] for name, runs in curves(findings).items()} == {
        "caps": ["at most 0", "at most 64", "at most 256"],
        "tiers": ["at most 0", "tier low", "tier high"],
    }
    section = areas(findings)
    assert section is not None
    assert "from 50 to 256" in section.sentences[0]
    caps, tiers = (float(cells(section)[name][1].partition("%")[0]) for name in ("caps", "tiers"))
    # From 50 to 64 tokens the coin with no thinking gets 10 points and 40 / 64 per token.
    log = np.log2
    low = 10 * log(64 / 50) + 40 / 64 * 14 / np.log(2)
    assert caps == pytest.approx((low + 50 * log(256 / 64)) / log(256 / 50), abs=0.1)
    assert tiers > 75
    assert areas(Findings.of(answers(LOW, 60, 50))) is None


def test_conditions_are_paired_with_what_they_should_improve_on() -> None:
    rows = [
        *(*answers(NONE, 10, 0), *answers(Condition(Kind.CAP, 300), 70, 280), *TIERS),
        *(*answers(TWICE, 90, 240), *answers(EXIT, 90, 168), *answers(CHAINS, 75, 290)),
    ]
    section = paired(Findings.of(rows))

    assert section is not None
    assert section.table is not None
    pairs = {cells[:2]: cells[2:] for cells in section.table.rows}
    assert [*pairs] == [
        ("at most 300", "at most 0"),
        ("tier high", "tier low"),
        ("tier auto", "tier low"),
        ("tier auto", "tier high"),
        (CHAINS.name, "at most 300"),
        (CHAINS.name, "2 continuations"),
        (EXIT.name, "2 continuations"),
    ]
    exits = pairs[EXIT.name, "2 continuations"]
    assert exits[:4] == ("100", "+0.0 (-2.9, +2.9)", "1.000", "0.70 (0.70, 0.70)")
    # Five questions of one sign: 2 / 2**5, times the two tests that are left.
    assert pairs[CHAINS.name, "at most 300"][2] == f"{2 * 2 / 2**5:.3f}"
    assert pairs["at most 300", "at most 0"][2:4] == ("<0.001", "-")
    assert paired(Findings.of(answers(LOW, 60, 50))) is None


def test_chains_of_the_server_stand_beside_one_chain_of_the_same_total() -> None:
    rows = [
        *(*answers(Condition(Kind.CAP, 300), 70, 280), *answers(TWICE, 90, 240)),
        *answers(CHAINS, 75, 290),
    ]
    report = {each.title: each for each in sections(StoredRun(CONFIG, rows), Findings.of(rows))}

    table = report["One chain or several, at equal thinking tokens"].table
    assert table is not None
    assert [cells[:2] for cells in table.rows] == [
        ("300", "one chain"),
        ("300", "2 continuations"),
        ("300", "parallel 4:vote"),
    ]
    assert table.rows[2][4].startswith("+5.0 (+")


def test_every_figure_has_the_lines_of_a_coin_and_of_perfect_routers() -> None:
    exits = answers(EXIT, 88, 168, samples=2, probe_tokens=18)
    rows = [
        *(*answers(LOW, 60, 50, samples=2), *answers(HIGH, 90, 150, samples=2)),
        *(*answers(TWICE, 92, 240, samples=2), *exits, *answers(CHAINS, 75, 290, samples=2)),
    ]
    figures = draw(Findings.of(rows))

    assert [*figures] == ["continuations", "tier", "parallel", "frontier"]
    for figure in figures.values():
        labels = {line.get_label() for line in figure.axes[0].get_lines()}
        assert labels >= {
            "coin between two conditions",
            "perfect router",
            "perfect router, held out",
        }
    (coin,) = (
        line
        for line in figures["frontier"].axes[0].get_lines()
        if line.get_label() == "coin between two conditions"
    )
    points = [tuple(point) for point in np.asarray(coin.get_xydata())[:3].tolist()]
    assert points == [(50, 60), (150, 90), (240, 92)]
    assert not any(
        line.get_label() == "perfect router"
        for line in draw(Findings.of(answers(LOW, 60, 50)))["tier"].axes[0].get_lines()
    )
