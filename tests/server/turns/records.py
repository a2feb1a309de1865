"""Keys, records and requests with records for tests."""

from collections.abc import Mapping, Sequence

from pydantic import PrivateAttr

from proctor.server.schemas.generation import ChatRequest
from proctor.server.schemas.messages import Message, PriorThinking
from proctor.server.turns.keyring import Keyring, RecordKeys
from proctor.server.turns.record import TURN_BYTES, TurnRecord, encode

SECRET, OTHER_SECRET = b"a secret of the tests", b"another secret"
KEYRING = Keyring.of([SECRET])
KEYS = KEYRING.issuing
TEAM = "team-a"
TURN = bytes(TURN_BYTES)


def make_record(
    text: str,
    tokens: int,
    spent: int,
    *,
    time: int = 0,
    turn: bytes = TURN,
    tenant: str = TEAM,
    keys: RecordKeys = KEYS,
    sealed: bool = False,
) -> str:
    """Return the record of a thinking block."""
    carried = text if sealed else None
    record = TurnRecord(keys.tenant(tenant), turn, keys.digest(text), tokens, spent, time, carried)
    return encode(record, keys)


class RecordedRequest(ChatRequest):
    """A request of a protocol with records."""

    _prior_thinking: Mapping[int, Sequence[PriorThinking]] = PrivateAttr(default_factory=dict)

    @property
    def prior_thinking(self) -> Mapping[int, Sequence[PriorThinking]]:
        return self._prior_thinking


def make_request(*messages: str | Sequence[PriorThinking], **fields: object) -> RecordedRequest:
    """Return a request: a text is a user's message, blocks are those of an assistant's."""
    parsed = [
        Message(role="user", content=message)
        if isinstance(message, str)
        else Message(
            role="assistant",
            reasoning_content="\n".join(block.text for block in message if block.text) or None,
        )
        for message in messages
    ]
    request = RecordedRequest(messages=parsed, **fields)
    blocks = {at: found for at, found in enumerate(messages) if not isinstance(found, str)}
    request._prior_thinking = blocks
    return request
