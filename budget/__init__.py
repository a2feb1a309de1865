"""Thinking budgets and their enforcement, token by token.

Budget forcing after *s1: simple test-time scaling* (arXiv 2501.19393).
"""

from proctor.budget.budgets import (
    MAX_CONTINUATIONS,
    Landing,
    OnLoop,
    ThinkingBudget,
    TokenBudget,
    answer_reserve,
    thinking_room,
    tokenize,
)
from proctor.budget.errors import BudgetError
from proctor.budget.machine import (
    BudgetStateMachine,
    DesyncError,
    Label,
    Labelled,
    replay,
)
from proctor.budget.markers import Markers
from proctor.budget.matcher import MarkerMatcher, matcher_of
from proctor.budget.moves import EMPTY_RECORD, EngineRecord, Move
from proctor.budget.outcome import EndReason, Forced, ForcedRun, Outcome
from proctor.budget.vocabulary import UNKNOWN_VOCABULARY, Vocabulary

__all__ = [
    "EMPTY_RECORD",
    "MAX_CONTINUATIONS",
    "UNKNOWN_VOCABULARY",
    "BudgetError",
    "BudgetStateMachine",
    "DesyncError",
    "EndReason",
    "EngineRecord",
    "Forced",
    "ForcedRun",
    "Label",
    "Labelled",
    "Landing",
    "MarkerMatcher",
    "Markers",
    "Move",
    "OnLoop",
    "Outcome",
    "ThinkingBudget",
    "TokenBudget",
    "Vocabulary",
    "answer_reserve",
    "matcher_of",
    "replay",
    "thinking_room",
    "tokenize",
]
