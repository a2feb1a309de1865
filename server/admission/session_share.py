"""What the limits of a session leave for one request, and for each of its choices."""

import math
from dataclasses import dataclass
from decimal import Decimal

from proctor.server.config.limits import MIN_REQUEST_SECONDS
from proctor.server.config.sessions import Limit
from proctor.server.config.settings import Settings
from proctor.server.errors import NO_RETRY, SessionLimitExceeded, Unavailable
from proctor.server.generation.resolution import SESSION, Resolution
from proctor.server.nanos import NANO
from proctor.server.pricing import affordable
from proctor.server.sessions.limits import Allowance, Amount, format_amount

RETRY_SECONDS = "5"
"""The `Retry-After` of a request that has to wait for running requests of its session."""


@dataclass(frozen=True, slots=True)
class SessionShare:
    """What one request may use of its session's limits.

    Attributes:
        allowance: what is left of the limits.
        tier: the tier of the request, or "custom".
        choices: the number of its choices, which share it equally.
        settings: the settings with the prices.
    """

    allowance: Allowance
    tier: str
    choices: int
    settings: Settings

    def check(self) -> None:
        """Check that the session may send another request.

        Raises:
            SessionLimitExceeded: if its requests or its time are used up.
            Unavailable: if its cost is limited, and the model has no prices.
        """
        allowance = self.allowance
        if allowance.seconds is not None and allowance.seconds < MIN_REQUEST_SECONDS:
            raise _refusal(
                Limit.SECONDS,
                f"Session limit exceeded: the {allowance.max_seconds:g} s of this session have "
                "passed.",
            )
        amount = allowance.amount(Limit.REQUESTS, self.tier)
        if self.allowance.amount(Limit.COST, self.tier) is not None and not self.settings.priced:
            raise Unavailable(
                "This session has a limit of cost, which the server cannot check for the model "
                f"'{self.settings.model_name}', which has no prices."
            )
        if amount is not None and not amount.left:
            raise _refusal(
                Limit.REQUESTS,
                f"Session limit exceeded: this {amount.owner} is limited to {amount.limit} "
                "requests.",
            )

    def cap_thinking(self, resolution: Resolution) -> Resolution:
        """Return the budget of one choice, clamped to its share of the thinking tokens."""
        amount = self.allowance.amount(Limit.THINKING, self.tier)
        return (
            resolution
            if amount is None
            else resolution.capped(SESSION, amount.left // self.choices)
        )

    def max_tokens(self, prompt_tokens: int, minimum: int) -> tuple[int, Limit] | None:
        """Return the maximum length of each choice and the limit that it is from, or None.

        Args:
            prompt_tokens: the number of tokens in all prompts of the request.
            minimum: the minimum length of a choice.

        Raises:
            SessionLimitExceeded: if less than the minimum is left.
        """
        shares = [
            (share, limit)
            for limit in (Limit.TOKENS, Limit.COST)
            if (share := self._max_tokens(limit, prompt_tokens, minimum)) is not None
        ]
        return min(shares, default=None)

    def max_seconds(self) -> float:
        """Return the maximum duration of the request in seconds, infinite without a limit.

        Raises:
            SessionLimitExceeded: if the session cannot pay for any time.
        """
        seconds = math.inf if self.allowance.seconds is None else self.allowance.seconds
        amount, price = self.allowance.amount(Limit.COST, self.tier), self.settings.compute
        if amount is None or price is None or not price.per_hour:
            return seconds
        # Rounded down, since the reservation must not exceed what is left.
        paid = math.nextafter(float(amount.left * NANO * 3600 / price.per_hour), 0)
        if paid < MIN_REQUEST_SECONDS:
            running = amount.unused > amount.left
            raise self._exhausted(Limit.COST, amount, "a request costs more", running=running)
        return min(seconds, paid)

    def _max_tokens(self, limit: Limit, prompt_tokens: int, minimum: int) -> int | None:
        amount = self.allowance.amount(limit, self.tier)
        if amount is None:
            return None
        share = self._share(limit, amount.left, prompt_tokens)
        if share is None or share >= minimum:
            return share
        unreserved = self._share(limit, amount.unused, prompt_tokens)
        running = unreserved is None or unreserved >= minimum
        raise self._exhausted(
            limit, amount, f"the prompt has {prompt_tokens} tokens", running=running
        )

    def _share(self, limit: Limit, left: int, prompt_tokens: int) -> int | None:
        """Return the tokens of each choice; negative if the prompts alone use more than is left."""
        if limit is Limit.TOKENS:
            return (left - prompt_tokens) // self.choices
        prices = self.settings.prices
        if prices is None:
            return None
        tokens = affordable(prices, prompt_tokens, Decimal(left) * NANO)
        return None if tokens is None else tokens // self.choices

    def _exhausted(
        self, limit: Limit, amount: Amount, want: str, *, running: bool
    ) -> SessionLimitExceeded:
        """Return the error of a request for which too little is left of a limit.

        Args:
            limit: the limit.
            amount: what is left of it.
            want: what the request would use, as a sentence.
            running: whether it would fit if the running requests used nothing.
        """
        left, most = (format_amount(limit, number) for number in (amount.left, amount.limit))
        unit = self.settings.currency if limit is Limit.COST else "tokens"
        shortage = f"{want}, and {left} of the {most} {unit} of this {amount.owner} are left"
        if not running:
            return _refusal(limit, f"Session limit exceeded: {shortage}.")
        reserved = format_amount(limit, amount.reserved)
        return SessionLimitExceeded(
            limit,
            f"Session limit reached: {shortage}, while {reserved} {unit} are reserved for running "
            "requests. Try again when one of them has ended.",
            headers={"retry-after": RETRY_SECONDS},
        )


def _refusal(limit: Limit, message: str) -> SessionLimitExceeded:
    """Return an error that a retry cannot help."""
    return SessionLimitExceeded(limit, f"{message} Start another session.", headers=NO_RETRY)
