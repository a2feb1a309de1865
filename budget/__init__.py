"""Thinking budgets: what they are, and how they are enforced token by token.

Budget forcing after *s1: simple test-time scaling* (arXiv 2501.19393).
"""

from budget.errors import BudgetError
from budget.machine import (
    DesyncError,
    EndReason,
    Forced,
    ForcedRun,
    Label,
    Machine,
    Outcome,
    replay,
)
from budget.markers import Markers, ends_inside
from budget.policy import (
    MAX_CONTINUATIONS,
    Landing,
    OnLoop,
    ThinkingBudget,
    TokenBudget,
    answer_reserve,
    thinking_room,
    tokenize,
)
from budget.vocabulary import OPAQUE, Vocabulary

__all__ = [
    "MAX_CONTINUATIONS",
    "OPAQUE",
    "BudgetError",
    "DesyncError",
    "EndReason",
    "Forced",
    "ForcedRun",
    "Label",
    "Landing",
    "Machine",
    "Markers",
    "OnLoop",
    "Outcome",
    "ThinkingBudget",
    "TokenBudget",
    "Vocabulary",
    "answer_reserve",
    "ends_inside",
    "replay",
    "thinking_room",
    "tokenize",
]
