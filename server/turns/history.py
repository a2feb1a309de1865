"""Verifies the records in a request's history, and finds the turn that they account for."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import TypeVar

from proctor.server.engines.base import Codec
from proctor.server.schemas.generation import ChatRequest
from proctor.server.schemas.messages import Message, PriorThinking
from proctor.server.turns.account import VerifiedThinking, count_spent, turn_start
from proctor.server.turns.keyring import Keyring
from proctor.server.turns.record import TURN_BYTES, decode, secret_id
from proctor.server.turns.secret_source import SecretSource
from proctor.server.turns.turn import Issuer, Turn

R = TypeVar("R", bound=ChatRequest)


@dataclass(frozen=True, slots=True)
class History:
    """The thinking in the history of a request.

    Attributes:
        blocks: the blocks of each message that may have records, by its index.
        restored: the thinking of each message of which a record carries text, by its index.
        tenant: the name of the API key.
        keyring: protects records; None if the request's protocol has none.
    """

    blocks: Mapping[int, Sequence[VerifiedThinking]] = field(default_factory=dict)
    restored: Mapping[int, str] = field(default_factory=dict)
    tenant: str = ""
    keyring: Keyring | None = None

    def restore(self, request: R) -> R:
        """Return the request with the thinking that only records carry in its messages."""
        if not self.restored:
            return request
        messages = [*request.messages]
        for index, text in self.restored.items():
            messages[index] = messages[index].model_copy(update={"reasoning_content": text})
        return request.model_copy(update={"messages": messages})

    async def resume(self, messages: Sequence[Message], codec: Codec) -> Turn:
        """Return the turn that the request continues, or a new one.

        A turn begins with a user's message. What was thought since counts as far as the client
        sends it back. Only text without a matching record is tokenized.
        """
        blocks = [
            block
            for index in range(turn_start(messages), len(messages))
            for block in self._blocks_of(index, messages[index])
        ]
        if any(block.needs_recount for block in blocks):
            spent = await asyncio.to_thread(
                count_spent, blocks, lambda text: len(codec.encode(text))
            )
        else:
            spent = count_spent(blocks, len)
        return Turn(spent, self._issuer(blocks))

    def _blocks_of(self, index: int, message: Message) -> Sequence[VerifiedThinking]:
        if index in self.blocks:
            return self.blocks[index]
        return (VerifiedThinking(message.thought),) if message.thought else ()

    def _issuer(self, blocks: Sequence[VerifiedThinking]) -> Issuer | None:
        if self.keyring is None:
            return None
        records = [block.record for block in blocks if block.record is not None]
        newest = max(records, key=lambda record: record.time, default=None)
        turn = os.urandom(TURN_BYTES) if newest is None else newest.turn
        return Issuer(turn, self.tenant, self.keyring.issuing)


NO_RECORDS = History()


class RecordVerifier:
    """Verifies the records in the history of requests."""

    def __init__(self, secrets: SecretSource) -> None:
        self._secrets = secrets

    async def verify(self, request: ChatRequest, tenant: str) -> History:
        """Return the history of a request.

        Args:
            request: the request.
            tenant: the name of its API key. Records that were issued to another key are foreign.

        Raises:
            Unavailable: if the request's protocol has records, and their secrets cannot be read.
        """
        prior = request.prior_thinking
        if prior is None:
            return NO_RECORDS
        ids = {
            secret_id(each.record) for blocks in prior.values() for each in blocks if each.record
        }
        keyring = await self._secrets.keyring([each for each in ids if each is not None])
        if not ids:
            blocks = {
                index: [VerifiedThinking(each.text) for each in found]
                for index, found in prior.items()
            }
            return History(blocks, {}, tenant, keyring)
        # In a thread: hashing or decrypting a long history must not block other streams.
        return await asyncio.to_thread(_verify, request, prior, tenant, keyring)


def _verify(
    request: ChatRequest,
    prior: Mapping[int, Sequence[PriorThinking]],
    tenant: str,
    keyring: Keyring,
) -> History:
    start = turn_start(request.messages)
    blocks: dict[int, Sequence[VerifiedThinking]] = {}
    restored: dict[int, str] = {}
    for index, found in prior.items():
        # Records of earlier turns matter only if they carry text for the chat template.
        verified = [
            verify(each, tenant, keyring)
            if index >= start or not each.text
            else VerifiedThinking(each.text)
            for each in found
        ]
        blocks[index] = verified
        if any(each.text and not one.text for each, one in zip(verified, found, strict=True)):
            restored[index] = "\n".join(each.text for each in verified if each.text)
    return History(blocks, restored, tenant, keyring)


def verify(thinking: PriorThinking, tenant: str, keyring: Keyring) -> VerifiedThinking:
    """Verify the record of a thinking block.

    Args:
        thinking: the block, as the client sent it back.
        tenant: the name of the API key.
        keyring: the keys that the record may be protected with.
    """
    text, encoded = thinking.text, thinking.record or ""
    keys = keyring.by_id.get(secret_id(encoded) or b"")
    record = None if keys is None else decode(encoded, keys)
    if keys is None or record is None or not compare_digest(record.tenant, keys.tenant(tenant)):
        return VerifiedThinking(text)
    if not text:
        return VerifiedThinking(record.text or "", record)
    return VerifiedThinking(text, record, not compare_digest(record.digest, keys.digest(text)))
