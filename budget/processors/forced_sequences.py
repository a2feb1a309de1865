"""What can be forced on a slot, as one row of tokens with a cursor into it."""

from collections.abc import Sequence

from proctor.budget.budgets import MAX_TEXT_TOKENS, MAX_TEXTS, TokenBudget
from proctor.budget.machine import BudgetStateMachine
from proctor.budget.markers import Markers
from proctor.budget.matcher import matcher_of
from proctor.budget.phases import Event
from proctor.budget.vocabulary import Vocabulary

NO_TOKEN = -1
IDLE = 0
"""Every row's first cell: nothing is forced."""


class ForcedSequences:
    """How rows are laid out: each script is closed by NO_TOKEN.

    idle | start marker | continuations | nudge | wrap-up and end marker | rests of an end marker

    Attributes:
        texts_at: the first continuation's cell.
        text_width: cells from one continuation to the next.
        nudge_at: the nudge's cell.
        close_at: the wrap-up's cell.
        rest_at: for each state of the matcher, the cell from which on an end
            marker that has begun is completed; 0 outside a thinking block.
        width: cells in a row.
    """

    text_width = MAX_TEXT_TOKENS + 1

    def __init__(self, markers: Markers, vocabulary: Vocabulary) -> None:
        self._markers = markers
        self._vocabulary = vocabulary
        self.texts_at = 1 + len(markers.start) + 1
        self.nudge_at = self.texts_at + MAX_TEXTS * self.text_width
        self.close_at = self.nudge_at + self.text_width
        self._rests: list[int] = []
        self.rest_at = self._lay_rests(self.close_at + MAX_TEXT_TOKENS + len(markers.end) + 1)
        self.width = self.close_at + MAX_TEXT_TOKENS + len(markers.end) + 1 + len(self._rests)

    def _lay_rests(self, begin: int) -> list[int]:
        matcher = matcher_of(self._markers, self._vocabulary)
        cells = [0] * matcher.states
        for state in range(matcher.inside, matcher.inert):
            cells[state] = begin + len(self._rests)
            self._rests += [*matcher.completion(state), NO_TOKEN]
        return cells

    def compose(self, budget: TokenBudget) -> list[int]:
        """A budget's row."""

        def cells(ids: Sequence[int], width: int) -> list[int]:
            return [*ids, *[NO_TOKEN] * (width - len(ids))]

        row = [NO_TOKEN, *cells(self._markers.start, len(self._markers.start) + 1)]
        for text in range(MAX_TEXTS):
            ids = budget.continuation_ids[text] if text < len(budget.continuation_ids) else ()
            row += cells(ids, self.text_width)
        row += cells(budget.nudge_ids, self.text_width)
        close = self.width - len(self._rests) - len(row)
        return row + cells((*budget.wrap_up_ids, *self._markers.end), close) + self._rests

    def spans(self, budget: TokenBudget) -> list[int]:
        """For each cell of the continuations, how many tokens the character there takes."""
        spans = [0] * self.width
        for text, ids in enumerate(budget.continuation_ids):
            begin = self.texts_at + text * self.text_width
            for cell in range(len(ids)):
                spans[begin + cell] = self._vocabulary.span(ids[cell:])
        return spans

    def cursor_of(self, budget: TokenBudget, machine: BudgetStateMachine) -> int:
        """Where in the slot's scripts the machine's remaining script begins."""
        left = machine.script_length
        if not left:
            return IDLE
        if machine.closing and machine.completes_marker:
            return self.rest_at[machine.matcher_state]
        if machine.closing:
            return self.close_at + len(budget.wrap_up_ids) + len(self._markers.end) - left
        if not machine.thinking:
            return 1 + len(self._markers.start) - left
        if machine.event is Event.NUDGE:
            return self.nudge_at + len(budget.nudge_ids) - left
        text = (machine.continuations - 1) % len(budget.continuation_ids)
        begin = self.texts_at + text * self.text_width
        return begin + len(budget.continuation_ids[text]) - left
