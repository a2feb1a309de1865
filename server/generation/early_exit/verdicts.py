"""Decides from probes whether an answer is settled."""

import math
from collections.abc import Sequence

from proctor.server.config.thinking.early_exit import EarlyExit, Method
from proctor.server.engines.base import TokenLogprob
from proctor.server.generation.early_exit.answers import normalized


class Verdict:
    """Follows the probes of one choice.

    Attributes:
        streak: how many probes in a row have found the answer settled.
    """

    def __init__(self, early_exit: EarlyExit) -> None:
        self._early_exit = early_exit
        self._last: str | None = None
        self.streak = 0

    @property
    def settled(self) -> bool:
        """Whether as many probes as are required have found the answer settled."""
        return self.streak >= self._early_exit.patience

    def push(self, answer: str, logprobs: Sequence[TokenLogprob]) -> None:
        """Take the result of a probe.

        Args:
            answer: the text of the trial answer.
            logprobs: the log probabilities of its first token, with the method `entropy`.
        """
        if self._early_exit.method is Method.ENTROPY:
            is_low = bool(logprobs) and entropy(logprobs[0]) <= self._early_exit.max_entropy
            self.streak = self.streak + 1 if is_low else 0
            return
        found = normalized(answer, self._early_exit.answer)
        agrees = found is not None and found == self._last
        self.streak = self.streak + 1 if agrees else int(found is not None)
        self._last = found


def entropy(position: TokenLogprob) -> float:
    """Return the entropy at a position in nats, from the most likely tokens.

    The tokens that are not reported count as one, so that this is a lower bound.
    """
    reported = dict(position.top)
    reported.setdefault(position.token, position.logprob)
    probabilities = [math.exp(logprob) for logprob in reported.values()]
    probabilities.append(max(0.0, 1 - sum(probabilities)))
    return -sum(each * math.log(each) for each in probabilities if each > 0)
