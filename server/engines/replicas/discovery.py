"""Finds out what replicas serve, and by which endpoint budgets reach them."""

import asyncio
import logging
from collections.abc import Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from proctor.budget import DesyncError, TokenBudget, replay
from proctor.budget.processors.params import WIRE_VERSION
from proctor.replica.handshake import Handshake, digest_markers, digest_vocabulary
from proctor.server.engines.base import Job, Sampling
from proctor.server.engines.listed_model import ListedModel, choose_model, context_length_of
from proctor.server.engines.local_model import LocalModel
from proctor.server.engines.replicas.addresses import resolve
from proctor.server.engines.replicas.api import ReplicaApi
from proctor.server.engines.replicas.choice import ReplicatedChoice, Segment
from proctor.server.engines.replicas.client import ReplicaClient, ReplicaFailed, new_session
from proctor.server.engines.replicas.completions_api import CompletionsApi
from proctor.server.engines.replicas.generate_api import GenerateApi
from proctor.server.errors import EngineUnavailable, UnsupportedRequest

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
ANSWER_SECONDS = 60.0
"""How long a replica may take to answer; the first request to it may be slow."""

DENIED = (401, 403)


@dataclass(frozen=True, slots=True)
class ReplicaService:
    """What replicas serve.

    Attributes:
        api: the endpoint by which requests reach them.
        context_length: maximum number of tokens of prompt and completion together.
        identity: what all of them must serve, see `ReplicaClient.identity`.
    """

    api: ReplicaApi
    context_length: int
    identity: str


async def discover(
    urls: Sequence[str],
    api_key: str,
    local: LocalModel,
    known_as: Collection[str],
    context_length: int | None = None,
) -> ReplicaService:
    """Wait until any replica answers, and return what it serves.

    Args:
        urls: where the replicas are; each address that a host name resolves to is one.
        api_key: their bearer token; empty for none.
        local: the local parts of the model.
        known_as: the names that the model may have there, if a replica lists several.
        context_length: the model's context there, where it is not reported.

    Raises:
        ValueError: if it serves another model, cannot keep budgets, or rejects the API key.
    """
    has_warned = False
    async with new_session() as session:
        while True:
            problem = "no address was found"
            for name, address in (await resolve(urls)).items():
                try:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        client = ReplicaClient(session, address, api_key)
                        return await _examine(client, local, known_as, context_length)
                except ReplicaFailed as error:
                    if error.status in DENIED:
                        raise ValueError(f"replica {name} rejects engine.api_key") from error
                    problem = f"{name}: {error}"
                except (EngineUnavailable, TimeoutError) as error:
                    problem = f"{name}: {error or 'no answer'}"
            if not has_warned:
                logger.warning("waiting for a replica: %s", problem)
            has_warned = True
            await asyncio.sleep(RETRY_SECONDS)


async def _examine(
    client: ReplicaClient,
    local: LocalModel,
    known_as: Collection[str],
    context_length: int | None,
) -> ReplicaService:
    handshake = await client.handshake()
    if handshake is not None:
        check_handshake(handshake, local)
        name, reported = handshake.models[0], handshake.context_length
        length = context_length_of(ListedModel(id=name, max_model_len=reported), context_length)
        api = GenerateApi(
            name,
            local.markers,
            local.defaults,
            by_priority=handshake.by_priority,
        )
        return ReplicaService(api, length, handshake.identity)
    model = choose_model(await client.models(), known_as)
    length = context_length_of(model, context_length)
    records = await _probe(client, model.id, local)
    completions = CompletionsApi(model.id, local.defaults, records_attempts=records)
    return ReplicaService(completions, length, await client.identity())


def check_handshake(handshake: Handshake, local: LocalModel) -> None:
    """Return if a replica serves the model as the gateway knows it.

    Raises:
        ValueError: if it does not; the message says what differs, and what to do.
    """
    expected = {
        "wire": (WIRE_VERSION, "install the same version of Proctor on both"),
        "markers": (
            digest_markers(local.markers),
            "set reasoning_parser, or thinking_start and thinking_end, alike on both",
        ),
        "vocabulary": (
            digest_vocabulary(local.vocabulary),
            "serve the same model, or the same revision of it",
        ),
    }
    for name, (value, advice) in expected.items():
        if getattr(handshake, name) != value:
            raise ValueError(
                f"the replicas' {name} ({getattr(handshake, name)}) is not the gateway's "
                f"({value}): {advice}"
            )


async def _probe(client: ReplicaClient, model: str, local: LocalModel) -> bool:
    """Return whether streams of completions have the record of attempts.

    Generates with a budget of one or two tokens, and checks that it was kept.

    Raises:
        ValueError: if it was not.
    """
    markers = local.markers
    budget = TokenBudget(
        minimum=1, maximum=2, continuation_ids=(tuple(local.codec.encode("Wait")),)
    )
    sampling = Sampling(max_tokens=2 + len(markers.end), temperature=0)
    job = Job("probe", (*local.codec.encode("hi"), *markers.start), sampling, budget)
    api = CompletionsApi(model, local.defaults, records_attempts=True)
    choice = ReplicatedChoice(job)
    has_record = False
    tokens: list[int] = []
    body = api.stream(Segment(job), None, "")
    try:
        async with aclosing(client.stream(api.path, body, {}, api.reader(Segment(job)))) as events:
            async for event in events:
                has_record = has_record or event.record is not None
                tokens += choice.push(event).token_ids
        attempts = choice.record.attempts
        machine = replay(budget, markers, tokens, attempts, local.vocabulary)
    except (DesyncError, UnsupportedRequest) as error:
        raise ValueError(_unenforced(str(error))) from error
    if machine.thinking:
        raise ValueError(_unenforced(f"it went on thinking, with the tokens {tokens}"))
    return has_record


def _unenforced(problem: str) -> str:
    return (
        f"the replicas do not enforce budgets ({problem}): start them with 'proctor replica', or "
        "with the flags that 'proctor replica --print' prints; to stop and resubmit instead, set "
        "engine.kind to 'completions'"
    )
