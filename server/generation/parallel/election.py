"""Lets several chains of thought vote on one answer, and yields the one that wins."""

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace

from proctor.budget import EndReason
from proctor.server.channels.deltas import Channel, TextDelta, TokenUsage, ToolCallDelta
from proctor.server.config.budgets import Keep, VoteMethod
from proctor.server.engines.base import Finish
from proctor.server.generation.base import (
    PROGRESS_SECONDS,
    ChoiceResult,
    OutputItem,
    ParallelPlan,
    Progress,
    PromptLogprobs,
    RequestObserver,
    RunningChain,
    StreamItem,
    VoteResult,
)
from proctor.server.generation.early_exit.answers import normalized
from proctor.server.generation.parallel.budget_sharing import BudgetSharing
from proctor.server.generation.parallel.scorers import ScorerFailed
from proctor.server.generation.parallel.summary import summarize
from proctor.server.generation.parallel.votes import Votes

logger = logging.getLogger(__name__)


class Election:
    """Follows the chains of one choice until their vote is decided."""

    def __init__(
        self,
        plan: ParallelPlan,
        chains: Sequence[RunningChain],
        sharing: BudgetSharing,
        observer: RequestObserver,
        *,
        score: Callable[[Sequence[str]], Awaitable[Sequence[float]]] | None = None,
        continuous_usage: bool = False,
    ) -> None:
        """Prepare a vote; `run` holds it.

        Args:
            plan: how the chains share the tokens.
            chains: the chains.
            sharing: moves their maxima.
            observer: receives the result of the vote.
            score: returns the scores of answers, if the best of them is to win.
            continuous_usage: whether every item has the token usage so far.
        """
        self._options = plan.parallel
        self._chains = chains
        self._sharing = sharing
        self._observer = observer
        self._continuous_usage = continuous_usage
        self._votes = Votes(self._options.method, len(chains))
        self._items: list[list[TextDelta | ToolCallDelta]] = [[] for _ in chains]
        self._results: dict[int, ChoiceResult] = {}
        self._score = score
        self._answers: dict[int, str] = {}
        self._scorer_failed = False
        self._stopped = 0
        self._progress_at = 0.0

    async def run(
        self, events: AsyncGenerator[StreamItem | ChoiceResult, None]
    ) -> AsyncGenerator[StreamItem | ChoiceResult, None]:
        """Yield the progress of all chains, then the items of the winner and the result.

        Args:
            events: the items and results of the chains; closed with this generator.
        """
        is_decided = False
        async with aclosing(events), aclosing(self._sharing):
            async for event in events:
                if isinstance(event, ChoiceResult):
                    self._results[event.choice] = event
                    if not is_decided:
                        self._count(event)
                        is_decided = self._votes.decided
                        if is_decided:
                            await self._rank()
                            for item in self._decide():
                                yield item
                elif not is_decided and (progress := self._collect(event)):
                    yield progress
        yield self._result()

    def _collect(self, item: StreamItem) -> Progress | None:
        """Keep an item of a chain, and return the progress of all chains if it is due."""
        if isinstance(item, Progress):
            return self._progress()
        if not isinstance(item, PromptLogprobs):
            self._items[item.choice].append(item)
            if item.channel is Channel.ANSWER:
                self._sharing.note_answer(item.choice)
        return None

    def _progress(self) -> Progress | None:
        now = time.monotonic()
        if now < self._progress_at + PROGRESS_SECONDS:
            return None
        self._progress_at = now
        used = self._used()
        return Progress(0, used.thinking, used if self._continuous_usage else None)

    def _count(self, result: ChoiceResult) -> None:
        """Count the vote of a chain that has ended.

        An answer that was cut is none, and that of a chain that was lost has no weight: it wins
        only if no other chain has an answer.
        """
        self._sharing.note_end(result.choice, result.thinking_tokens)
        answer = None
        if result.finish is Finish.STOP:
            items = self._items[result.choice]
            texts = [item.text for item in items if isinstance(item, TextDelta) if _answers(item)]
            answer = normalized("".join(texts), self._options.answer)
            if answer is not None:
                self._answers[result.choice] = "".join(texts)
        self._votes.add(result.choice, answer, self._weight(result))

    def _weight(self, result: ChoiceResult) -> float:
        """Return the weight of the vote of a chain that has ended."""
        if result.outcome.end_reason is EndReason.UNSURE:
            return 0.0
        is_weighted = self._options.method is VoteMethod.CONFIDENCE
        return self._chains[result.choice].confidence if is_weighted else 1.0

    async def _rank(self) -> None:
        """Let the scorer decide, if there is one, or the vote if it fails."""
        if self._score is None or not self._answers:
            return
        try:
            scores = await self._score([*self._answers.values()])
        except ScorerFailed as error:
            logger.warning("the chains of a request vote, as the scorer failed: %s", error)
            self._scorer_failed = True
        else:
            self._votes.rank(dict(zip(self._answers, scores, strict=True)))

    def _decide(self) -> Iterator[OutputItem]:
        """Stop the chains that still run, and return the items of the winner."""
        for index, chain in enumerate(self._chains):
            if index not in self._results:
                chain.stop()
                self._stopped += 1
        used = self._used() if self._continuous_usage else None
        items = self._items[self._votes.winner]
        if self._options.keep is Keep.SUMMARY:
            text = summarize(self._votes.answers, len(self._chains), self._stopped)
            yield TextDelta(0, Channel.REASONING, text, used=used)
            items = [item for item in items if _answers(item)]
        for item in items:
            yield item._replace(choice=0, used=used)

    def _result(self) -> ChoiceResult:
        """Return the result of the choice, when all chains have ended."""
        used = [result.used for result in self._results.values()]
        votes = VoteResult(
            self._options.method,
            self._votes.winner,
            self._votes.answers,
            self._stopped,
            TokenUsage(sum(each.tokens for each in used), sum(each.thinking for each in used)),
            self._scorer_failed,
        )
        self._observer.voted(votes)
        result = replace(self._results[votes.winner], choice=0, votes=votes)
        is_summary = self._options.keep is Keep.SUMMARY
        return replace(result, forced_spans=()) if is_summary else result

    def _used(self) -> TokenUsage:
        """Return the token usage of all chains so far."""
        used = [chain.used for chain in self._chains]
        return TokenUsage(sum(each.tokens for each in used), sum(each.thinking for each in used))


def _answers(item: TextDelta | ToolCallDelta) -> bool:
    return item.channel is Channel.ANSWER
