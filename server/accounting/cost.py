"""The cost of requests, by their tokens or by their share of the engine's time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from proctor.server.accounting.engine_time import BusyClock
from proctor.server.config.prices import ComputePrice, Prices
from proctor.server.generation.base import (
    AdmittedRequest,
    ChoiceResult,
    RequestObserver,
    VoteResult,
)
from proctor.server.pricing import MILLION, Cost

HOUR_NS = 3_600_000_000_000
"""An hour in nanoseconds."""

COST_QUANTUM = Decimal("1e-12")
"""The parts of a cost by engine time are rounded to multiples of this amount."""


@dataclass(slots=True)
class EngineInterval:
    """The time that one choice spends in the engine, in readings of the busy clock.

    Attributes:
        entered: when the choice entered the engine.
        first_token: when its prompt was prefilled, or None before that.
        left: when the choice left the engine, or None while it runs.
    """

    entered: Decimal
    first_token: Decimal | None = None
    left: Decimal | None = None


class PriceModel:
    """The prices of a model, and the clock that divides its engine's time among choices."""

    def __init__(
        self,
        prices: Prices | None,
        compute: ComputePrice | None,
        clock: BusyClock | None = None,
        further: Mapping[str, Prices | None] | None = None,
    ) -> None:
        """Initialize the price model.

        Args:
            prices: the prices of tokens, or None.
            compute: the price of the engine's time, or None.
            clock: divides the engine's time among choices; None creates one.
            further: the prices of further models of the server, by their names.
        """
        self.prices = prices
        self.compute = compute
        self.clock = clock or BusyClock()
        self._further = {name: PriceModel(prices, None) for name, prices in (further or {}).items()}

    def of(self, model: str) -> "PriceModel":
        """Return the prices of one of the server's models; by default, these."""
        return self._further.get(model, self)

    @property
    def currency(self) -> str:
        """The currency of the prices; USD without any."""
        price = self.compute or self.prices
        return "USD" if price is None else price.currency

    def worst_case(self, prompt_tokens: int, max_tokens: int, seconds: float) -> Decimal | None:
        """Return the maximum cost of a request, or None if there are no prices.

        Args:
            prompt_tokens: the number of tokens in its prompt.
            max_tokens: the number of tokens that all its choices together may generate.
            seconds: the time that the request may take; in the worst case, the engine is
                busy with this request alone.
        """
        if self.compute is not None:
            return self.compute.per_hour * Decimal(seconds) / 3600
        if self.prices is None:
            return None
        highest_price = max(self.prices.thinking, self.prices.answer)
        return (prompt_tokens * self.prices.prompt + max_tokens * highest_price) / MILLION


class RequestCost(RequestObserver):
    """The cost of one request, which is complete when all its choices have finished.

    Attributes:
        results: the results of the choices that have finished.
    """

    def __init__(self, price_model: PriceModel) -> None:
        """Initialize the cost of a request.

        Args:
            price_model: the prices of the default model. Those of the model that serves the
                request are found when it is admitted.
        """
        self._price_model = price_model
        self._intervals: dict[int, EngineInterval] = {}
        self._cached: dict[int, int] = {}
        self._running: dict[int, Callable[[], ChoiceResult]] = {}
        self._prompt_tokens: int | None = None
        self._choices_per_prompt = 1
        self._winner: int | None = None
        self.results: list[ChoiceResult] = []

    def snapshot(self) -> "RequestCost":
        """Return the cost as if all running choices were cancelled now."""
        request_cost = RequestCost(self._price_model)
        now = self._price_model.clock.read()
        request_cost._prompt_tokens = self._prompt_tokens
        request_cost._choices_per_prompt = self._choices_per_prompt
        request_cost._cached = {**self._cached}
        request_cost._intervals = {
            choice: interval if interval.left is not None else replace(interval, left=now)
            for choice, interval in self._intervals.items()
        }
        request_cost._winner = self._winner
        request_cost.results = [*self.results, *(so_far() for so_far in self._running.values())]
        return request_cost

    def admitted(self, admitted: AdmittedRequest) -> None:
        self._price_model = self._price_model.of(admitted.model)
        self._prompt_tokens = admitted.admission.prompt_tokens
        self._choices_per_prompt = admitted.admission.choices_per_prompt

    def choice_started(self, choice: int, so_far: Callable[[], ChoiceResult]) -> None:
        self._intervals[choice] = EngineInterval(self._price_model.clock.enter())
        self._running[choice] = so_far

    def first_token(self, choice: int) -> None:
        self._intervals[choice].first_token = self._price_model.clock.read()

    def prompt_cached(self, choice: int, tokens: int) -> None:
        prompt = choice // self._choices_per_prompt
        self._cached[prompt] = min(tokens, self._cached.get(prompt, tokens))

    def choice_left_engine(self, choice: int) -> None:
        self._intervals[choice].left = self._price_model.clock.leave()

    def choice_finished(self, result: ChoiceResult) -> None:
        self._running.pop(result.choice, None)
        self.results.append(result)

    def voted(self, votes: VoteResult) -> None:
        self._winner = votes.winner

    @property
    def choices(self) -> list[ChoiceResult]:
        """The results of the response's choices: of chains that have voted, the winner's only."""
        if self._winner is None:
            return self.results
        return [result for result in self.results if result.choice == self._winner]

    @property
    def completion_tokens(self) -> int:
        """The number of generated tokens of the choices that have finished."""
        return sum(result.tokens for result in self.results)

    @property
    def cached_tokens(self) -> int | None:
        """The number of prompt tokens that every choice read from the cache, or None if unknown."""
        return sum(self._cached.values()) if self._cached else None

    @property
    def answer_tokens(self) -> int:
        """The number of answer tokens of the choices that have finished."""
        return sum(result.answer_tokens for result in self.results)

    @property
    def charged_cost(self) -> Cost | None:
        """The cost so far, or None if the request was rejected or there are no prices.

        The prompt costs nothing until a choice has finished.
        """
        if self._prompt_tokens is None:
            return None
        return self.cost(self._prompt_tokens if self.results else 0)

    def cost(self, prompt_tokens: int) -> Cost | None:
        """Return the cost of the choices that have finished, or None if there are no prices.

        Args:
            prompt_tokens: the number of prompt tokens to charge.
        """
        price_model = self._price_model
        if price_model.prices is not None:
            return self._by_tokens(price_model.prices, prompt_tokens)
        return None if price_model.compute is None else self._by_time(price_model.compute)

    def _by_tokens(self, prices: Prices, prompt_tokens: int) -> Cost:
        answer = self.answer_tokens
        thinking = self.completion_tokens - answer
        return Cost.of(prices, prompt_tokens, thinking, answer, self.cached_tokens or 0)

    def _by_time(self, price: ComputePrice) -> Cost:
        """Return the cost by engine time.

        The time until the first tokens counts as prompt; the rest is divided equally among
        the generated tokens.
        """
        prompt = thinking = answer = Decimal()
        for result in self.results:
            interval = self._intervals[result.choice]
            left = interval.entered if interval.left is None else interval.left
            first_token = left if interval.first_token is None else interval.first_token
            prompt += first_token - interval.entered
            decode = left - first_token
            answer_share = decode * result.answer_tokens / max(result.tokens, 1)
            answer += answer_share
            thinking += decode - answer_share
        rate = price.per_hour / HOUR_NS
        parts = ((share * rate).quantize(COST_QUANTUM) for share in (prompt, thinking, answer))
        return Cost(price.currency, *parts)
