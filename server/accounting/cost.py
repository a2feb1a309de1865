"""What each request costs: by its tokens, or by its share of the machine's time."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal

from proctor.server.accounting.engine_time import BusyClock
from proctor.server.config.prices import ComputePrice, Prices
from proctor.server.config.settings import Settings
from proctor.server.generation.base import AdmittedRequest, ChoiceResult, RequestObserver
from proctor.server.pricing import MILLION, Cost

HOUR = 3_600_000_000_000
"""Nanoseconds."""

SMALLEST = Decimal("1e-12")
"""To which the parts of a machine's cost are rounded."""


@dataclass(slots=True)
class EngineInterval:
    """One choice's way through the engine, in readings of the busy clock."""

    entered: Decimal
    prefilled: Decimal | None = None
    left: Decimal | None = None


class PriceModel:
    """How answers are paid for; one for a server."""

    def __init__(self, settings: Settings, clock: BusyClock | None = None) -> None:
        """Take it from the settings.

        Args:
            settings: those with the prices.
            clock: shares out the engine's time; None is one of its own.
        """
        self.prices = settings.prices
        self.compute = settings.compute
        self.clock = clock or BusyClock()

    def most(self, prompt_tokens: int, max_tokens: int, seconds: float) -> Decimal | None:
        """What a request can cost at most; None where no price is known.

        Args:
            prompt_tokens: of its prompt.
            max_tokens: that all its choices together may generate.
            seconds: that it may take, of which the machine may be busy with it alone.
        """
        if self.compute is not None:
            return self.compute.per_hour * Decimal(seconds) / 3600
        if self.prices is None:
            return None
        dearest = max(self.prices.thinking, self.prices.answer)
        return (prompt_tokens * self.prices.prompt + max_tokens * dearest) / MILLION


class RequestCost(RequestObserver):
    """One request's. Its cost is whole when all its choices have ended.

    Attributes:
        ends: of the choices that have ended.
    """

    def __init__(self, price_model: PriceModel) -> None:
        self._price_model = price_model
        self._stays: dict[int, EngineInterval] = {}
        self._cached: dict[int, int] = {}
        self._running: dict[int, Callable[[], ChoiceResult]] = {}
        self._prompt_tokens: int | None = None
        self._choices_per_prompt = 1
        self.ends: list[ChoiceResult] = []

    def so_far(self) -> "RequestCost":
        """What it would be if every choice were broken off now."""
        request_cost = RequestCost(self._price_model)
        now = self._price_model.clock.read()
        request_cost._prompt_tokens = self._prompt_tokens
        request_cost._choices_per_prompt = self._choices_per_prompt
        request_cost._cached = {**self._cached}
        request_cost._stays = {
            choice: stay if stay.left is not None else replace(stay, left=now)
            for choice, stay in self._stays.items()
        }
        request_cost.ends = [*self.ends, *(end() for end in self._running.values())]
        return request_cost

    def admitted(self, admitted: AdmittedRequest) -> None:
        """See `RequestObserver`."""
        self._prompt_tokens = admitted.admission.prompt_tokens
        self._choices_per_prompt = admitted.admission.choices_per_prompt

    def choice_started(self, choice: int, so_far: Callable[[], ChoiceResult]) -> None:
        """See `RequestObserver`."""
        self._stays[choice] = EngineInterval(self._price_model.clock.enter())
        self._running[choice] = so_far

    def first_token(self, choice: int, cached_tokens: int | None) -> None:
        """See `RequestObserver`."""
        self._stays[choice].prefilled = self._price_model.clock.read()
        if cached_tokens is not None:
            prompt = choice // self._choices_per_prompt
            self._cached[prompt] = min(cached_tokens, self._cached.get(prompt, cached_tokens))

    def choice_left_engine(self, choice: int) -> None:
        """See `RequestObserver`."""
        self._stays[choice].left = self._price_model.clock.leave()

    def choice_finished(self, result: ChoiceResult) -> None:
        """See `RequestObserver`."""
        self._running.pop(result.choice, None)
        self.ends.append(result)

    @property
    def completion_tokens(self) -> int:
        """Those of the choices that have ended."""
        return sum(end.tokens for end in self.ends)

    @property
    def cached_tokens(self) -> int | None:
        """Tokens of the prompts that none of their choices had to be prefilled for, if known."""
        return sum(self._cached.values()) if self._cached else None

    @property
    def answer_tokens(self) -> int:
        """The number of answer tokens of the choices that have finished."""
        return sum(result.answer_tokens for result in self.ends)

    @property
    def charged(self) -> Cost | None:
        """The cost so far; None for a refused request, or where no price is known."""
        if self._prompt_tokens is None:
            return None
        return self.cost(self._prompt_tokens if self.ends else 0)

    def cost(self, prompt_tokens: int) -> Cost | None:
        """What the choices that have ended cost; None where no price is known."""
        price_model = self._price_model
        if price_model.prices is not None:
            return self._by_tokens(price_model.prices, prompt_tokens)
        return None if price_model.compute is None else self._by_time(price_model.compute)

    def _by_tokens(self, prices: Prices, prompt_tokens: int) -> Cost:
        answer = self.answer_tokens
        thinking = self.completion_tokens - answer
        return Cost.of(prices, prompt_tokens, thinking, answer, self.cached_tokens or 0)

    def _by_time(self, price: ComputePrice) -> Cost:
        """The prompt's part ends with the first tokens; every token after them costs the same."""
        prompt = thinking = answer = Decimal()
        for end in self.ends:
            stay = self._stays[end.choice]
            left = stay.entered if stay.left is None else stay.left
            first = left if stay.prefilled is None else stay.prefilled
            prompt += first - stay.entered
            of_answer = (left - first) * end.answer_tokens / max(end.tokens, 1)
            answer += of_answer
            thinking += left - first - of_answer
        rate = price.per_hour / HOUR
        parts = ((share * rate).quantize(SMALLEST) for share in (prompt, thinking, answer))
        return Cost(price.currency, *parts)
