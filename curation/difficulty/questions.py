"""From rows to the questions that servers are asked."""

from dataclasses import dataclass
from hashlib import sha256

from proctor.curation.rows import Row
from proctor.evaluation.scorers import Scorer
from proctor.evaluation.tasks import Question

NO_REFERENCE = "no reference answer"
UNSCORABLE = "reference answer cannot be scored"
NO_FIELDS = "fields of the template are missing"


class Unaskable(ValueError):
    """A row cannot be measured.

    Attributes:
        reason: why, as a stage counts it.
        detail: what shows it.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Questions:
    """Makes questions of rows.

    Attributes:
        template: the prompt, with `{question}` and fields of the row in braces.
        scorer: scores the answers.
    """

    template: str
    scorer: Scorer

    def of(self, row: Row) -> Question:
        """Return a row's question.

        Its id is a hash of the prompt and the right answer: equal questions are asked once, and
        answers stay valid when the data set's order or ids change.

        Raises:
            Unaskable: if the row has no reference answer, or lacks a field of the template.
        """
        if row.reference is None or not row.reference.strip():
            raise Unaskable(NO_REFERENCE)
        try:
            prompt = self.template.format_map({**row.metadata, "question": row.question})
        except (KeyError, IndexError, ValueError) as error:
            raise Unaskable(NO_FIELDS, repr(error)) from error
        digest = sha256(f"{prompt}\0{row.reference}".encode(errors="surrogatepass"))
        return Question(digest.hexdigest()[:32], prompt, row.reference)

    def check(self, question: Question) -> None:
        """Check that answers can be compared with the reference.

        Raises:
            Unaskable: if not.
        """
        try:
            self.scorer.check([question])
        except ValueError as error:
            raise Unaskable(UNSCORABLE, str(error)) from error
