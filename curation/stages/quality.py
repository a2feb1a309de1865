"""The stage `quality`: rows that no model should learn from, whatever they are about."""

import re
from collections.abc import Callable, Iterator

from pydantic import Field, field_validator

from proctor.curation.answers import LATEX, contains_words, final_answer, numbers, same_answer
from proctor.curation.options import Context
from proctor.curation.rows import Row
from proctor.curation.stages.base import Dropped, StageOptions
from proctor.curation.text import damage
from proctor.curation.text.languages import KNOWN, other_language
from proctor.curation.text.phrases import API_ERROR, REFUSAL

FRACTION = re.compile(r"\d\s*/\s*\d+\W*$")
"""Matches a text that ends in a fraction, whose value may be written in another way."""

YES, NO = frozenset({"yes", "true", "correct"}), frozenset({"no", "false", "incorrect", "not"})

Check = Callable[[Row], Dropped | None]


class QualityOptions(StageOptions):
    """Drop rows that no model should learn from: damage, refusals, cut traces, wrong answers.

    Attributes:
        languages: the languages that rows may be in, as codes such as `en`; none allows all.
        trace: whether rows without a trace are dropped.
        asymptote_sources: the sources whose questions may have figures in Asymptote, compared
            in lower case as parts of the row's source; s1 keeps those of AIME.
        right_answers: whether rows are dropped whose answer is known not to be the reference.
        conclusion_lines: how many of the trace's last lines may hold the answer.
    """

    languages: tuple[str, ...] = ()
    trace: bool = True
    asymptote_sources: tuple[str, ...] = ("aime",)
    right_answers: bool = True
    conclusion_lines: int = Field(default=1, ge=1)

    @field_validator("languages")
    @classmethod
    def _check_languages(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [each for each in languages if each not in KNOWN]:
            raise ValueError(f"{unknown[0]!r} is unknown; known: {', '.join(sorted(KNOWN))}")
        return languages

    def build(self, context: Context) -> "Quality":
        """Create the stage."""
        damage.load_badness()  # raises now rather than at the first row that needs it
        return Quality(self)


class Quality:
    """Drops rows at the first fault; each is judged alone."""

    name = "quality"

    def __init__(self, options: QualityOptions) -> None:
        self._options = options
        self._checks: tuple[Check, ...] = (
            self._missing,
            _api_error,
            _refusal,
            _encoding,
            _formatting,
            self._figure,
            self._language,
            _truncated,
            self._unfounded,
            self._wrong,
        )

    def judge(self, row: Row) -> Dropped | None:
        """Return the row's first fault, or None."""
        return next((fault for check in self._checks if (fault := check(row))), None)

    def _missing(self, row: Row) -> Dropped | None:
        if not row.question.strip():
            return Dropped("no question")
        if not row.trace.strip() and self._options.trace:
            return Dropped("no trace")
        if not row.answer.strip():
            if row.trace.strip():
                return Dropped("truncated trace", "there is no answer after it")
            return Dropped("no answer")
        return None

    def _figure(self, row: Row) -> Dropped | None:
        source = row.source.casefold()
        allowed = any(each.casefold() in source for each in self._options.asymptote_sources)
        found = damage.figure(row.question, asymptote=allowed)
        return Dropped("image or figure", found) if found else None

    def _language(self, row: Row) -> Dropped | None:
        if not self._options.languages:
            return None
        for part, text in _parts(row):
            if other := other_language(text, self._options.languages):
                return Dropped("other language", f"{part}: {other}")
        return None

    def _unfounded(self, row: Row) -> Dropped | None:
        """Drop answers that the end of the trace does not hold, where that can be told."""
        lines = [line for line in row.trace.splitlines() if line.strip()]
        conclusion = "\n".join(lines[-self._options.conclusion_lines :])
        if follows(row.answer, conclusion) is not False:
            return None
        shown = f"{final_answer(row.answer)} after: {conclusion[-100:]}"
        return Dropped("answer does not follow", shown)

    def _wrong(self, row: Row) -> Dropped | None:
        if not self._options.right_answers or row.reference is None:
            return None
        if same_answer(row.answer, row.reference) is not False:
            return None
        shown = f"{final_answer(row.answer)} instead of {final_answer(row.reference)}"
        return Dropped("wrong answer", shown)


def follows(answer: str, conclusion: str) -> bool | None:
    """Return whether an answer's final value is in the conclusion; None if that cannot be told.

    A conclusion without a value, such as "That checks out.", concludes nothing.
    """
    stated = final_answer(answer)
    if stated is None:
        return None
    if values := numbers(stated):
        concluded = numbers(conclusion)
        if values[-1] in concluded:
            return True
        if not concluded or FRACTION.search(stated) or FRACTION.search(conclusion):
            return None
        return same_answer(stated, conclusion) if LATEX.search(stated + conclusion) else False
    words = {*answer.casefold().split()}
    if words & YES or words & NO:
        return None
    if contains_words(conclusion, stated):
        return True
    claimed = final_answer(conclusion)
    # Formulas and paraphrases need more than a comparison of words.
    return None if claimed is None or len(stated.split()) > 1 or "\\" in stated + claimed else False


def _parts(row: Row) -> Iterator[tuple[str, str]]:
    yield from (("question", row.question), ("trace", row.trace), ("answer", row.answer))


def _api_error(row: Row) -> Dropped | None:
    generated = (("trace", row.trace), ("answer", row.answer))
    found = next((part for part in generated if API_ERROR.match(part[1])), None)
    return Dropped("API error", f"{found[0]}: {found[1][:100]}") if found else None


def _refusal(row: Row) -> Dropped | None:
    return Dropped("refusal", row.answer[:100]) if REFUSAL.match(row.answer) else None


def _encoding(row: Row) -> Dropped | None:
    return _first(row, damage.encoding_damage, "encoding damage")


def _formatting(row: Row) -> Dropped | None:
    return _first(row, damage.format_fault, "formatting fault")


def _truncated(row: Row) -> Dropped | None:
    if end := damage.cut_off(row.trace, final_answer(row.answer) or ""):
        return Dropped("truncated trace", end)
    end = damage.cut_off(row.answer)
    return Dropped("truncated answer", end) if end else None


def _first(row: Row, find: Callable[[str], str | None], reason: str) -> Dropped | None:
    for part, text in _parts(row):
        if found := find(text):
            return Dropped(reason, f"{part}: {found}")
    return None
