"""The stage `reasoning`: traces from which thinking can be learned."""

from collections.abc import Callable

from pydantic import Field

from proctor.curation.answers import final_answer
from proctor.curation.options import Context
from proctor.curation.readers.fields import look_up
from proctor.curation.rows import Row
from proctor.curation.stages.base import Dropped, StageOptions
from proctor.curation.text import traces
from proctor.curation.tokens import Tokens

REPEATED_WORDS = 8
"""The words of an n-gram that counts as repetition."""

MIN_EMPTY_CORRECTIONS = 2
"""One self-correction without a change is what people write too."""


class ReasoningOptions(StageOptions):
    """Drop traces from which no thinking can be learned.

    Lengths are in tokens of the recipe's model, or in words without one.

    Attributes:
        min_tokens: the shortest trace.
        max_tokens: the longest trace; none sets no limit.
        difficulty_field: the field of the data set that holds a row's difficulty, as a path.
        min_tokens_by_difficulty: the shortest trace by the value of that field.
        max_tokens_by_difficulty: the longest trace by the value of that field.
        min_new_words: the least number of words that are neither filler nor in the question.
        loops: whether traces are dropped in which the server's loop guard would fire.
        max_repeated_share: the largest share of 8-word n-grams that occurred before.
        max_empty_corrections: the largest share of self-corrections that bring nothing new, if
            there are at least two such.
        opening_sentences: the sentences at the start that must not state the answer; 0 allows it.
    """

    min_tokens: int = Field(default=8, ge=0)
    max_tokens: int | None = Field(default=None, ge=1)
    difficulty_field: str | None = None
    min_tokens_by_difficulty: dict[str, int] = Field(default_factory=dict)
    max_tokens_by_difficulty: dict[str, int] = Field(default_factory=dict)
    min_new_words: int = Field(default=1, ge=0)
    loops: bool = True
    max_repeated_share: float = Field(default=0.5, gt=0, le=1)
    max_empty_corrections: float = Field(default=0.5, ge=0, le=1)
    opening_sentences: int = Field(default=2, ge=0)

    def build(self, context: Context) -> "Reasoning":
        """Create the stage."""
        return Reasoning(self, context.tokens)


class Reasoning:
    """Drops rows at the first fault of their trace; each is judged alone."""

    name = "reasoning"

    def __init__(self, options: ReasoningOptions, tokens: Tokens) -> None:
        self._options = options
        self._tokens = tokens
        self._checks: tuple[Callable[[Row], Dropped | None], ...] = (
            self._length,
            self._filler,
            self._given_away,
            self._loop,
            self._repetition,
            self._empty_corrections,
        )

    def judge(self, row: Row) -> Dropped | None:
        """Return the trace's first fault, or None."""
        return next((fault for check in self._checks if (fault := check(row))), None)

    def _length(self, row: Row) -> Dropped | None:
        length, unit = self._tokens.count(row.trace), self._tokens.unit
        options = self._options
        if length < options.min_tokens:
            return Dropped("short trace", f"{length} {unit}")
        if options.max_tokens is not None and length > options.max_tokens:
            return Dropped("long trace", f"{length} {unit}")
        if options.difficulty_field is None:
            return None
        difficulty = str(look_up(row.metadata, options.difficulty_field))
        detail = f"{length} {unit} at difficulty {difficulty}"
        if length < options.min_tokens_by_difficulty.get(difficulty, 0):
            return Dropped("short for its difficulty", detail)
        if length > options.max_tokens_by_difficulty.get(difficulty, length):
            return Dropped("long for its difficulty", detail)
        return None

    def _filler(self, row: Row) -> Dropped | None:
        new = traces.new_words(row.trace, row.question)
        if len(new) >= self._options.min_new_words:
            return None
        return Dropped("filler", f"new words: {', '.join(sorted(new)) or 'none'}")

    def _given_away(self, row: Row) -> Dropped | None:
        answer = final_answer(row.answer)
        if answer is None:
            return None
        found = traces.answer_given_away(row.trace, answer, self._options.opening_sentences)
        return Dropped("answer given away", found) if found else None

    def _repetition(self, row: Row) -> Dropped | None:
        share = traces.repeated_share(row.trace, REPEATED_WORDS)
        if share <= self._options.max_repeated_share:
            return None
        return Dropped("repetition", f"{share:.0%} of the {REPEATED_WORDS}-word n-grams")

    def _empty_corrections(self, row: Row) -> Dropped | None:
        found = list(traces.corrections(row.trace))
        empty = [text for text, is_new in found if not is_new]
        allowed = self._options.max_empty_corrections * len(found)
        if len(empty) < MIN_EMPTY_CORRECTIONS or len(empty) <= allowed:
            return None
        return Dropped("empty self-correction", f"{len(empty)} of {len(found)}: {empty[0][:100]}")

    def _loop(self, row: Row) -> Dropped | None:
        if not self._options.loops:
            return None
        end = traces.loop_end(*self._tokens.encode(row.trace))
        return Dropped("loop", f"after {end} {self._tokens.unit}") if end else None
