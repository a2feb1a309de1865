"""The token sequences that can be forced on a slot, laid out as one row of tokens per slot."""

from collections.abc import Sequence

from proctor.budget.budgets import MAX_TEXT_TOKENS, MAX_TEXTS, TokenBudget
from proctor.budget.machine import BudgetStateMachine
from proctor.budget.markers import Markers
from proctor.budget.matcher import matcher_of
from proctor.budget.phases import Event
from proctor.budget.vocabulary import Vocabulary

NO_TOKEN = -1
IDLE = 0
"""The cursor of a slot on which nothing is forced: the first cell of every row."""


class ForcedSequences:
    """The layout of the rows. Every sequence in a row is terminated by NO_TOKEN.

    idle | start marker | continuations | nudge | wrap-up and end marker | end marker completions

    Attributes:
        continuations_start: the cell of the first continuation.
        continuation_width: the number of cells per continuation.
        nudge_start: the cell of the nudge.
        close_start: the cell of the wrap-up.
        completion_start: for each state of the matcher, the cell of the tokens that
            complete a partial end marker; 0 outside a thinking block.
        width: the number of cells per row.
    """

    continuation_width = MAX_TEXT_TOKENS + 1

    def __init__(self, markers: Markers, vocabulary: Vocabulary) -> None:
        self._markers = markers
        self._vocabulary = vocabulary
        self.continuations_start = 1 + len(markers.start) + 1
        self.nudge_start = self.continuations_start + MAX_TEXTS * self.continuation_width
        self.close_start = self.nudge_start + self.continuation_width
        completions_start = self.close_start + MAX_TEXT_TOKENS + len(markers.end) + 1
        self._completions: list[int] = []
        self.completion_start = self._lay_out_completions(completions_start)
        self.width = completions_start + len(self._completions)

    def _lay_out_completions(self, start: int) -> list[int]:
        matcher = matcher_of(self._markers, self._vocabulary)
        cells = [0] * matcher.states
        for state in range(matcher.inside, matcher.inert):
            cells[state] = start + len(self._completions)
            self._completions += [*matcher.completion(state), NO_TOKEN]
        return cells

    def row(self, budget: TokenBudget) -> list[int]:
        """Return the row of a budget, [width] token ids."""

        def cells(ids: Sequence[int], width: int) -> list[int]:
            return [*ids, *[NO_TOKEN] * (width - len(ids))]

        row = [NO_TOKEN, *cells(self._markers.start, len(self._markers.start) + 1)]
        for index in range(MAX_TEXTS):
            ids = budget.continuation_ids[index] if index < len(budget.continuation_ids) else ()
            row += cells(ids, self.continuation_width)
        row += cells(budget.nudge_ids, self.continuation_width)
        close_width = self.width - len(self._completions) - len(row)
        close = cells((*budget.wrap_up_ids, *self._markers.end), close_width)
        return row + close + self._completions

    def character_spans(self, budget: TokenBudget) -> list[int]:
        """Return, for each cell of a continuation or nudge, how many tokens its character spans.

        The result has `width` elements; those of other cells are 0.
        """
        spans = [0] * self.width
        texts = [
            (self.continuations_start + index * self.continuation_width, ids)
            for index, ids in enumerate(budget.continuation_ids)
        ]
        for start, ids in [*texts, (self.nudge_start, budget.nudge_ids)]:
            for offset in range(len(ids)):
                spans[start + offset] = self._vocabulary.span(ids[offset:])
        return spans

    def cursor(self, budget: TokenBudget, machine: BudgetStateMachine) -> int:
        """Return the cell of the next token that the machine forces, or IDLE."""
        left = machine.script_length
        if not left:
            return IDLE
        if machine.closing and machine.completes_marker:
            return self.completion_start[machine.matcher_state]
        if machine.closing:
            return self.close_start + len(budget.wrap_up_ids) + len(self._markers.end) - left
        if not machine.thinking:
            return 1 + len(self._markers.start) - left
        if machine.event is Event.NUDGE:
            return self.nudge_start + len(budget.nudge_ids) - left
        index = (machine.continuations - 1) % len(budget.continuation_ids)
        start = self.continuations_start + index * self.continuation_width
        return start + len(budget.continuation_ids[index]) - left
