"""The engine over a scripted completions server, including failures."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.budget import DesyncError, TokenBudget
from proctor.server.app import create_app
from proctor.server.engines.base import Finish, Job, Sampling
from proctor.server.engines.completions import upstream
from proctor.server.engines.completions.engine import CompletionsEngine
from proctor.server.engines.completions.upstream import Upstream, UpstreamError, split_lines
from proctor.server.engines.fake import END_THINK, END_TURN, THINK
from proctor.server.engines.tool_calls import Constraint, Kind
from proctor.server.errors import EngineUnavailable, UnsupportedRequest
from tests.server.engines.completions.fake_upstream import (
    DONE,
    END,
    TEXTS,
    FakeServer,
    Fault,
    Handler,
    Reply,
    Script,
    TextScript,
    broken,
    event,
    generate,
    job,
    runaway,
    stream,
    token_event,
)
from tests.server.harness import (
    CHAT,
    body,
    free_port,
    parse_events,
    settings,
    with_timeout,
)

WAIT = (tuple(b"Wait"),)


async def test_an_attempt_is_stripped_and_the_prompt_resubmitted(server: FakeServer) -> None:
    script = Script([[*b"a", END_THINK], [*b"b", END_THINK, *b"ok", END_TURN]])
    over = server.engine(script)
    requested = job(continuations=1, continuation_ids=WAIT)

    tokens, finish = await generate(over, requested)

    assert tokens == [*b"aWaitb", END_THINK, *b"ok", END_TURN]
    assert finish is Finish.STOP
    assert script.prompts() == [[1, 2], [1, 2, *b"aWait"]]
    assert [requested["stop_token_ids"] for requested in script.requests] == [[END_THINK], []]
    assert (await over.record(requested)).attempts == {1}
    assert (await over.record(requested)).attempts == frozenset()


async def test_each_step_gets_the_budget_that_earlier_steps_left(server: FakeServer) -> None:
    script = Script([[*b"aaaa", END_THINK], [*b"b" * 99], [*b"ok", END_TURN]])
    budget: dict[str, Any] = {
        "maximum": 20,
        "wrap_up_ids": tuple(b"Done"),
        "continuation_ids": WAIT,
        "minimum": 9,
    }

    tokens, _ = await generate(server.engine(script), job(100, **budget))

    assert [request["max_tokens"] for request in script.requests] == [16, 8, 100 - 21]
    assert bytes(tokens[:20]) == b"aaaaWaitbbbbbbbbDone"
    assert tokens[20:] == [END_THINK, *b"ok", END_TURN]


async def test_a_natural_end_of_thinking_needs_no_second_step(server: FakeServer) -> None:
    script = Script([[*b"a", END_THINK, *b"ok", END_TURN]])

    tokens, _ = await generate(server.engine(script), job(maximum=50))

    assert tokens == [*b"a", END_THINK, *b"ok", END_TURN]
    assert len(script.requests) == 1


async def test_an_end_of_turn_in_the_thinking_becomes_an_end_marker(server: FakeServer) -> None:
    script = Script([[*b"a", END_TURN], [*b"ok", END_TURN]])

    tokens, _ = await generate(server.engine(script), job())

    assert tokens == [*b"a", END_THINK, *b"ok", END_TURN]


async def test_the_start_marker_is_biased_away_when_no_budget_is_left(server: FakeServer) -> None:
    script = Script([[*b"ok", END_TURN]])

    await generate(server.engine(script), job(maximum=0))

    assert script.requests[0]["logit_bias"] == {str(THINK): -100}


async def test_every_step_gets_the_sampling_parameters(server: FakeServer) -> None:
    script = Script([[*b"a", END_THINK], [END_THINK, END_TURN]])

    requested = job(sampling={"temperature": 0.5}, continuations=1, continuation_ids=WAIT)
    await generate(server.engine(script), requested)

    for sent in script.requests:
        assert (sent["temperature"], sent["top_p"]) == (0.5, 1.0)
        assert (sent["top_k"], sent["min_p"]) == (20, 0.0)
        assert "min_tokens" not in sent


async def test_the_seeds_of_steps_differ_and_are_reproducible(server: FakeServer) -> None:
    async def seeds() -> list[int]:
        script = Script([[*b"a", END_THINK], [END_THINK, END_TURN]])
        requested = job(sampling={"seed": 7}, continuations=1, continuation_ids=WAIT)
        await generate(server.engine(script), requested)
        return [sent["seed"] for sent in script.requests]

    one, other = await seeds()

    assert one != other
    assert await seeds() == [one, other]
    assert all(0 <= seed < 2**31 for seed in (one, other))


async def test_without_a_seed_none_is_sent(server: FakeServer) -> None:
    script = Script([[END_TURN]])

    await generate(server.engine(script), job(opened=False))

    assert "seed" not in script.requests[0]


BOUND = Constraint(Kind.REGEX, "a", "structured_outputs.regex")


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        (Sampling(9, presence_penalty=0.5), "presence_penalty"),
        (Sampling(9, frequency_penalty=-0.5), "frequency_penalty"),
        (Sampling(9, repetition_penalty=1.1), "repetition_penalty"),
        (Sampling(9, logit_bias={7: 1.0}), "logit_bias"),
        (Sampling(9, top_logprobs=0), "logprobs"),
        (
            Sampling(9, constraint=Constraint(Kind.REGEX, "a", "structured_outputs.regex")),
            "structured_outputs.regex",
        ),
    ],
)
async def test_unsupported_fields_are_refused_by_name(
    server: FakeServer, sampling: Sampling, field: str
) -> None:
    with pytest.raises(UnsupportedRequest) as refused:
        await server.engine(Script([])).check(Job("job", (1,), sampling, TokenBudget()))

    assert refused.value.param == field


async def test_unsupported_fields_with_neutral_values_are_accepted(server: FakeServer) -> None:
    neutral = Sampling(
        9, presence_penalty=0, frequency_penalty=0, repetition_penalty=1, logit_bias={}
    )

    await server.engine(Script([])).check(Job("job", (1,), neutral, TokenBudget()))


async def test_budgets_over_a_server_that_returns_text(server: FakeServer) -> None:
    script = TextScript(["a bc" + END, f"b c {END}\n\nIt is 42."])
    over = server.engine(script, TEXTS)
    requested = job(minimum=6, continuation_ids=WAIT)

    tokens, finish = await generate(over, requested)

    assert tokens == [*b"a bcWaitb c ", END_THINK, *b"\n\nIt is 42.", END_TURN]
    assert finish is Finish.STOP
    assert (await over.record(requested)).attempts == {4}
    assert [requested["stop"] for requested in script.requests] == [[END], []]
    assert not script.requests[0]["skip_special_tokens"]


async def test_text_is_tokenized_word_by_word(server: FakeServer) -> None:
    over = server.engine(TextScript(["ab cd  ef g"]), TEXTS)

    deltas = [[*delta.token_ids] async for delta in over.generate(job(opened=False))]

    assert deltas == [[*b"ab"], [*b" cd"], [*b"  ef"], [*b" g", END_TURN], []]


async def test_text_beyond_the_budget_is_cut(server: FakeServer) -> None:
    script = TextScript(["a" * 99, "ok"])

    tokens, _ = await generate(server.engine(script, TEXTS), job(maximum=2))

    assert tokens == [*b"aa", END_THINK, *b"ok", END_TURN]


@pytest.mark.parametrize(
    "answer",
    [
        broken,
        lambda _: Reply(500, [b"at 10.0.0.7"]),
        lambda _: Reply(503),
        lambda _: Reply(429),
        lambda _: stream(),
        lambda _: stream(token_event(1), DONE),
        lambda _: stream(token_event(1), b"data: {"),
        lambda _: stream(token_event(1), b"data: {\n\n"),
        lambda _: stream(token_event(1), Fault.CLOSE),
        lambda _: stream(token_event(1), Fault.RESET),
        lambda _: stream(token_event(1), b'data: {"error": {"message": "at 10.0.0.7"}}\n\n'),
        lambda _: stream(token_event(1, finish="abort")),
        lambda _: stream(b'data: {"choices": [{"text": "", "token_ids": "1"}]}\n\n'),
        lambda _: stream(event(text="a"), DONE),
        lambda _: stream(event(text="", token_ids=[], finish_reason="length")),
        lambda _: stream(b'{"choices": [{"text": "whole"}]}'),
        lambda _: Reply(200, [b"no gzip"], {"content-encoding": "gzip"}),
    ],
)
async def test_failures_of_the_server_make_the_engine_unavailable(
    server: FakeServer, answer: Handler
) -> None:
    over = server.engine(answer)

    with pytest.raises(EngineUnavailable) as failure:
        await generate(over, job())

    assert "10.0.0.7" not in str(failure.value)
    assert "127.0.0.1" not in str(failure.value)


@pytest.mark.parametrize("sent", [(), (token_event(1),)])
async def test_a_server_that_sends_nothing_more_is_given_up(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, sent: tuple[bytes, ...]
) -> None:
    monkeypatch.setattr(upstream, "READ_TIMEOUT_SECONDS", 0.01)

    with pytest.raises(EngineUnavailable, match="reached"):
        await generate(server.engine(lambda _: stream(*sent, Fault.HANG)), job())


@pytest.mark.parametrize("status", [302, 400, 401, 404])
async def test_refusals_of_the_server_are_raised_with_their_status(
    server: FakeServer, status: int
) -> None:
    with pytest.raises(UpstreamError, match=str(status)):
        await generate(
            server.engine(lambda _: Reply(status, [b"no"], {"location": "/elsewhere"})), job()
        )


async def test_tokens_beyond_max_tokens_are_cut(server: FakeServer) -> None:
    replies = iter([stream(*[token_event(97, 97)] * 50), stream(token_event(*b"okok"))])

    tokens, finish = await generate(server.engine(lambda _: next(replies)), job(8, maximum=3))

    assert tokens == [*b"aaa", END_THINK, *b"okok"]
    assert finish is Finish.LENGTH


async def test_endless_text_is_a_desync(server: FakeServer) -> None:
    with pytest.raises(DesyncError, match="max_tokens"):
        await generate(server.engine(runaway, TEXTS), job(20))


async def test_a_short_reply_is_continued_by_another_step(server: FakeServer) -> None:
    replies = iter(
        [
            stream(token_event(*b"ab", finish="length")),
            stream(token_event(*b"c", END_TURN, finish="stop")),
        ]
    )

    tokens, _ = await generate(server.engine(lambda _: next(replies)), job(opened=False))

    assert tokens == [*b"abc", END_TURN]


async def test_event_lines_are_split_at_newlines_only(server: FakeServer) -> None:
    text = "a\u2028b\u0085c\x0cd"
    raw = event(text=text, token_ids=[1, END_TURN], finish_reason="stop")
    over = server.engine(lambda _: stream(b": hello\n\n", raw.replace(b"\n", b"\r\n")))

    tokens, _ = await generate(over, job(opened=False))

    assert tokens == [1, END_TURN]


@given(st.lists(st.binary() | st.sampled_from([b"\n", b"a\n", "\u2028".encode()])))
async def test_lines_do_not_depend_on_the_chunks_in_which_they_arrive(chunks: list[bytes]) -> None:
    async def arriving() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    lines = [line async for line in split_lines(arriving())]

    assert lines == b"".join(chunks).split(b"\n")[:-1]


async def test_a_failure_does_not_affect_concurrent_requests(server: FakeServer) -> None:
    answers = {
        1: stream(token_event(5), Fault.CLOSE),
        3: stream(token_event(7, END_TURN, finish="stop")),
    }
    over = server.engine(lambda body: answers[body["prompt"][0]])
    one = Job("one", (1,), Sampling(9), TokenBudget(opened=False))
    other = Job("other", (3,), Sampling(9), TokenBudget(opened=False))

    failed, fine = await asyncio.gather(
        generate(over, one), generate(over, other), return_exceptions=True
    )

    assert isinstance(failed, EngineUnavailable)
    assert fine == ([7, END_TURN], Finish.STOP)


async def test_closing_a_generation_closes_its_stream(server: FakeServer) -> None:
    over = server.engine(lambda _: stream(token_event(97), Fault.HANG))

    async with aclosing(over.generate(job())) as deltas:
        await anext(deltas)
    await with_timeout(server.abandoned.wait())


async def test_connections_are_reused_between_steps(server: FakeServer) -> None:
    """The pool only keeps connections whose response was read to its end."""
    script = Script([[*b"a", END_THINK], [*b"b", END_THINK], [END_THINK, *b"ok", END_TURN]])

    tokens, _ = await generate(server.engine(script), job(continuations=2, continuation_ids=WAIT))

    assert tokens[-3:] == [*b"ok", END_TURN]
    assert len(server.peers) == 3
    assert len(set(server.peers)) == 1


async def test_a_connection_that_closes_when_it_is_reused_is_replaced() -> None:
    """As by a server whose keep-alive timeout expires at that moment."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            for healthy in (True, False):
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                if not healthy:
                    return  # without a response
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                await writer.drain()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with aclosing(Upstream(url)) as client:
            for _ in range(3):
                await client.check()

    assert len(heads) == 5


async def test_health_follows_the_servers_health_endpoint(server: FakeServer) -> None:
    await server.engine(broken).health()
    await server.engine(broken, health=404).health()
    with pytest.raises(EngineUnavailable, match="503"):
        await server.engine(broken, health=503).health()


@pytest.mark.parametrize(("cache_seconds", "requests"), [(600, 1), (0, 2)])
async def test_a_health_check_is_repeated_once_the_last_one_expires(
    server: FakeServer, cache_seconds: float, requests: int
) -> None:
    cached = server.engine(broken, health_cache_seconds=cache_seconds)
    await cached.health()
    await cached.health()

    assert server.paths == ["/health"] * requests


async def test_an_unreachable_server_is_unhealthy() -> None:
    async with aclosing(Upstream(f"http://127.0.0.1:{free_port()}/v1")) as nowhere:
        with pytest.raises(EngineUnavailable, match="reached"):
            await nowhere.check()


async def test_an_invalid_url_is_not_a_server_that_is_down() -> None:
    async with aclosing(Upstream("http://:80/v1")) as nowhere:
        with pytest.raises(ValueError, match=":80"):
            await nowhere.models()


@asynccontextmanager
async def gateway(
    over: CompletionsEngine, *, raise_app_exceptions: bool = True
) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings(), lambda: over)
    async with app.router.lifespan_context(app):
        await app.state.supervisor.loaded()
        transport = httpx.ASGITransport(app, raise_app_exceptions=raise_app_exceptions)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            yield http


async def test_a_chat_through_the_gateway(server: FakeServer) -> None:
    replies = [[*b"hm", END_THINK], [*b"no", END_THINK, *b"42", END_TURN]]

    async with gateway(server.engine(Script(replies))) as http:
        response = await http.post(CHAT, json=body(thinking={"continuations": 1}))

    answer = response.json()
    choice = answer["choices"][0]
    assert choice["message"]["reasoning_content"] == "hmWaitno"
    assert choice["message"]["content"] == "42"
    assert choice["thinking"]["continuations"] == 1
    assert choice["thinking"]["tokens"] == 8
    assert choice["thinking"]["end_reason"] == "natural"
    assert answer["usage"]["completion_tokens"] == 12


async def test_a_raw_prompt_through_the_gateway(server: FakeServer) -> None:
    script = Script([[*b"a", END_THINK], [*b"b", END_THINK, *b"ok", END_TURN]])
    request = {"model": "fake", "prompt": "x<think>", "max_tokens": 99}

    async with gateway(server.engine(script)) as http:
        budget = {"thinking": {"continuations": 1}}
        answer = (await http.post("/v1/completions", json={**request, **budget})).json()
        data = (await http.post("/tokenize", json={"prompt": "x<think>"})).json()

    assert answer["choices"][0]["text"] == "aWaitb</think>ok"
    assert answer["choices"][0]["thinking"]["continuations"] == 1
    assert script.prompts()[0] == data["tokens"] == [*b"x", THINK]


async def test_stop_strings_do_not_apply_to_the_thinking(server: FakeServer) -> None:
    script = Script([[*b"a.b", END_THINK, *b"c.d", END_TURN]])

    async with gateway(server.engine(script)) as http:
        response = await http.post(CHAT, json=body(stop=["."]))

    assert response.json()["choices"][0]["message"]["reasoning_content"] == "a.b"
    assert response.json()["choices"][0]["message"]["content"] == "c"
    assert "stop" not in script.requests[0]


@pytest.mark.parametrize(
    ("answer", "status"), [(broken, 503), (lambda _: Reply(401, [b"who?"]), 500)]
)
async def test_errors_of_the_server_are_not_passed_on(
    server: FakeServer, answer: Handler, status: int
) -> None:
    async with gateway(server.engine(answer), raise_app_exceptions=False) as http:
        whole = await http.post(CHAT, json=body())
        streamed = await http.post(CHAT, json=body(stream=True))

    assert whole.status_code == status
    last = parse_events(streamed.text)[-1]
    assert last.name == "error"
    assert last.data == whole.json()
    assert "who?" not in streamed.text


async def test_readiness_follows_the_servers_health(server: FakeServer) -> None:
    async with gateway(server.engine(broken, health=503)) as http:
        response = await http.get("/ready")

    assert response.status_code == 503
