"""The turn of a request, and the records of its thinking blocks."""

import time
from dataclasses import dataclass

from proctor.server.turns.keyring import RecordKeys
from proctor.server.turns.record import TurnRecord, encode


@dataclass(frozen=True, slots=True)
class Issuer:
    """Issues the records of a turn.

    Attributes:
        turn: the id of the turn.
        tenant: the name of the API key.
        keys: the keys that protect the records.
    """

    turn: bytes
    tenant: str
    keys: RecordKeys

    def issue(self, text: str, tokens: int, spent: int, *, sealed: bool) -> str:
        """Return the record of a thinking block.

        Args:
            text: its text, as the client receives it or, if sealed, as it is hidden.
            tokens: its thinking tokens.
            spent: the thinking tokens of the turn, the block's included.
            sealed: whether the record carries the text, encrypted.
        """
        record = TurnRecord(
            self.keys.tenant(self.tenant),
            self.turn,
            self.keys.digest(text),
            tokens,
            spent,
            time.time_ns() // 10**6,
            text if sealed else None,
        )
        return encode(record, self.keys)


@dataclass(frozen=True, slots=True)
class Turn:
    """The turn that a request begins or continues.

    Attributes:
        spent: the thinking tokens of its earlier calls.
        issuer: issues its records; None if the request's protocol has none.
    """

    spent: int = 0
    issuer: Issuer | None = None

    def recorder(self, *, sealed: bool = False) -> "ThinkingRecorder":
        """Return a recorder of the thinking of one choice.

        Args:
            sealed: whether the records carry the text, because the client does not receive it.

        Raises:
            ValueError: if the request's protocol has no records.
        """
        if self.issuer is None:
            raise ValueError("the protocol of this request has no records")
        return ThinkingRecorder(self.issuer, self.spent, sealed=sealed)


class ThinkingRecorder:
    """Collects the thinking blocks of one choice, and issues the record of each at its end."""

    def __init__(self, issuer: Issuer, spent: int, *, sealed: bool) -> None:
        self._issuer = issuer
        self._spent = spent
        self._sealed = sealed
        self._recorded = 0
        self._texts: list[str] = []

    @property
    def is_open(self) -> bool:
        """Whether a block has begun that has no record yet."""
        return bool(self._texts)

    def add(self, text: str) -> None:
        """Add text to the open block, which it begins if there is none."""
        self._texts.append(text)

    def end(self, thinking_tokens: int) -> str:
        """End the block, and return its record.

        Args:
            thinking_tokens: those of the choice so far: `thinking_tokens` of the first delta after
                the block, or of the choice's result.
        """
        text, tokens = "".join(self._texts), thinking_tokens - self._recorded
        self._texts, self._recorded = [], thinking_tokens
        spent = self._spent + thinking_tokens
        return self._issuer.issue(text, tokens, spent, sealed=self._sealed)
