"""The table of transitions, and its diagram in the documentation."""

from pathlib import Path

from proctor.budget.phases import TRANSITIONS, Event, Phase, diagram

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "concepts" / "phases.md"


def test_every_phase_can_be_left_and_every_event_happens() -> None:
    assert {phase for phase, _ in TRANSITIONS} == set(Phase)
    assert {event for _, event in TRANSITIONS} == set(Event)


def test_the_documented_diagram_is_up_to_date() -> None:
    assert f"```mermaid\n{diagram()}\n```" in DOCUMENT.read_text(encoding="utf-8")
