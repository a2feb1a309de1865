"""The scorer of the pool's questions: `--scorer bench.curation.scorer:ANSWER`."""

import re

from proctor.evaluation.scorers import Scorer

NUMBER = re.compile(r"-?\d+(?:[.,:]\d+)*")


def score(answer: str, right: str) -> float:
    """Return 1 if the answer's last line ends with the right answer, whatever leads to it."""
    given, wanted = normalize(answer), normalize(right)
    return float(given is not None and wanted is not None and _ends_with(given, wanted))


def normalize(answer: str) -> str | None:
    """Return the last line in lower case, without punctuation at its end."""
    lines = answer.strip().splitlines()
    return lines[-1].strip(" .!*\"'").casefold() or None if lines else None


def _ends_with(given: str, wanted: str) -> bool:
    if NUMBER.fullmatch(wanted):
        numbers = NUMBER.findall(given)
        return bool(numbers) and numbers[-1] == wanted
    return re.search(rf"(?<!\w){re.escape(wanted)}\Z", given) is not None


ANSWER = Scorer(score, normalize)
