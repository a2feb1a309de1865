"""Grammar checks with vLLM's own backends on the demo model's vocabulary."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psutil
import pytest

pytest.importorskip("vllm", reason="the CPU engine is not installed")

from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.tokenizers import cached_tokenizer_from_config

from proctor.server.admission.answer_binding import Binder
from proctor.server.config.engine import GrammarSettings
from proctor.server.config.settings import DEMO
from proctor.server.engines.fake import FakeEngine
from proctor.server.engines.grammars.base import CheckedGrammar
from proctor.server.engines.grammars.forkers import ForkServerProcess
from proctor.server.engines.grammars.frames import CheckResult
from proctor.server.engines.grammars.pool import ENTRY_OVERHEAD, GrammarPool, ResultCache
from proctor.server.engines.tool_calls import Constraint, Kind
from proctor.server.engines.vllm.tools import VllmTools
from proctor.server.errors import BadRequest, EngineUnavailable, Overloaded, UnsupportedRequest
from proctor.server.fair_queue import FairQueue
from proctor.server.schemas.parsing import parse_chat
from tests import hostile_constraints
from tests.server.harness import body

pytestmark = pytest.mark.slow

FIELD = "response_format"
PATIENCE = 300
SMALL = {"type": "object", "properties": {"a": {"type": "integer"}}}


def counting(properties: int, least: int) -> dict[str, Any]:
    """Return a schema that takes long to compile: any half of its properties may be present."""
    members = {f"p{i}": {"type": "integer"} for i in range(properties)}
    return {
        "type": "object",
        "properties": members,
        "minProperties": least,
        "maxProperties": 3 * properties // 4,
    }


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"anyOf": [schema]}
    return schema


def constraint(value: Any, kind: Kind = Kind.JSON) -> Constraint:
    return Constraint(kind, value, FIELD)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def given_up(pool: GrammarPool, many: list[asyncio.Task[CheckedGrammar]]) -> None:
    for task in many:
        task.cancel()
    await asyncio.gather(*many, return_exceptions=True)
    await until(lambda: not pool.slow_queue.running + pool.quick_queue.running)


@pytest.fixture(scope="module")
def config() -> VllmConfig:
    return AsyncEngineArgs(
        model=str(DEMO / "model"), enable_chunked_prefill=False
    ).create_engine_config()


@pytest.fixture(scope="module")
def shared_cache() -> ResultCache:
    return ResultCache(2**20)


@pytest.fixture(scope="module")
def shared(config: VllmConfig, shared_cache: ResultCache) -> Iterator[GrammarPool]:
    pool = GrammarPool(config, GrammarSettings(seconds=0.5, memory_mib=256), cache=shared_cache)
    pool.wait()
    yield pool
    pool.close()


@pytest.fixture
def cache(shared_cache: ResultCache) -> ResultCache:
    shared_cache.clear()
    return shared_cache


@pytest.fixture
async def pool(shared: GrammarPool, cache: ResultCache) -> AsyncIterator[GrammarPool]:
    yield shared
    assert not shared.checks
    assert not shared.quick_queue.running + shared.slow_queue.running


async def test_a_grammar_is_checked_once(
    pool: GrammarPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await pool.check(constraint(SMALL), "")
    monkeypatch.setattr(ForkServerProcess, "fork", None)
    again = await pool.check(Constraint(Kind.JSON, dict(SMALL), "another.field"), "other")

    assert (first.params._backend, first.slow) == ("xgrammar", False)
    assert again.params == first.params


async def test_the_order_of_properties_makes_another_grammar(
    pool: GrammarPool, cache: ResultCache
) -> None:
    members = {"a": {"type": "integer"}, "b": {"type": "integer"}}
    await pool.check(constraint({"properties": members}), "")
    await pool.check(constraint({"properties": dict(reversed(members.items()))}), "")

    assert len(cache) == 2


async def test_a_grammar_beyond_the_time_limit_is_refused_by_name_and_cached(
    pool: GrammarPool, cache: ResultCache
) -> None:
    for _ in range(2):
        with pytest.raises(UnsupportedRequest, match=f"'{FIELD}': .*0.5 s of CPU time") as refused:
            await pool.check(constraint(counting(200, 100)), "")
        assert refused.value.param == FIELD

    assert len(cache) == 1


async def test_a_grammar_may_take_longer_than_the_quick_attempt(pool: GrammarPool) -> None:
    checked = await pool.check(constraint(counting(60, 30)), "")

    assert checked.params._backend == "xgrammar"


HOSTILE: dict[str, tuple[Kind, Any]] = {
    "counted members": (Kind.JSON, counting(200, 95)),
    "deep references": (
        Kind.JSON,
        {
            "$ref": "#/$defs/d0",
            "$defs": {
                **{
                    f"d{i}": {
                        "type": "object",
                        "properties": {name: {"$ref": f"#/$defs/d{i + 1}"} for name in "ab"},
                    }
                    for i in range(60)
                },
                "d60": {"type": "integer"},
            },
        },
    ),
    "a reference to itself": (Kind.JSON, {"$ref": "#"}),
    "a huge enum": (Kind.JSON, {"enum": [f"value {i}" for i in range(4000)]}),
    "a long string": (Kind.JSON, {"type": "string", "maxLength": 10**6}),
    "a long array": (Kind.JSON, {"type": "array", "items": {"type": "integer"}, "maxItems": 10**6}),
    "optional members": (
        Kind.JSON,
        {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(1000)}},
    ),
    "divisors": (
        Kind.JSON,
        {
            "type": "object",
            "properties": {f"p{i}": {"type": "integer", "multipleOf": 997 + i} for i in range(300)},
        },
    ),
    "patterns of members": (
        Kind.JSON,
        {
            "type": "object",
            "properties": {"a": {}},
            "patternProperties": {"(a|b)*a(a|b){12}": {}, "b": {}},
        },
    ),
    "deep nesting": (Kind.JSON, nested(200)),
    "nesting deeper than Python goes": (Kind.JSON, nested(3000)),
    "repetitions": (Kind.REGEX, "a{0,48000}" * 50),
    "nested optionals": (Kind.REGEX, "(((((((a?b?)?c?)?d?)?e?)?f?)?g?)?h?)*"),
    "an automaton of 2**18 states": (Kind.REGEX, "[ab]*a[ab]{18}"),
    "nested repetitions": (Kind.REGEX, "((((a{0,99}){0,99}){0,99}){0,99}){0,99}"),
    "an ambiguous grammar": (Kind.GRAMMAR, 'root ::= e\ne ::= e e | "a" | "aa" | e "a"'),
    "a grammar that doubles": (
        Kind.GRAMMAR,
        "root ::= a0\n"
        + "\n".join(f"a{i} ::= a{i + 1} a{i + 1}" for i in range(30))
        + '\na30 ::= "x"',
    ),
    "a grammar of parentheses": (Kind.GRAMMAR, "root ::= " + "(" * 20000 + '"a"' + ")" * 20000),
    "a grammar of repetitions": (Kind.GRAMMAR, 'root ::= ("a"{0,99999} "b"{0,99999}){0,999}'),
    "Lark that repeats": (Kind.GRAMMAR, "start: x{0,50000}\nx: /a{0,1000}/ x?"),
    "Lark that is ambiguous": (Kind.GRAMMAR, 'start: e\ne: e e | "a" | "aa"'),
    "many long choices": (Kind.CHOICE, [f"{i} " * 800 for i in range(1000)]),
    "a thousand tools": (
        Kind.STRUCTURAL_TAG,
        json.dumps(
            {
                "type": "structural_tag",
                "format": {
                    "type": "triggered_tags",
                    "triggers": ["<tool_call>"],
                    "tags": [
                        {
                            "type": "tag",
                            "begin": f'<tool_call>\n{{"name": "f{i}", "arguments": ',
                            "content": {"type": "json_schema", "json_schema": SMALL},
                            "end": "}\n</tool_call>",
                        }
                        for i in range(1000)
                    ],
                },
            }
        ),
    ),
    "no structural tag": (Kind.STRUCTURAL_TAG, '{"triggers": 1}'),
}


@pytest.mark.parametrize("form", HOSTILE)
async def test_a_hostile_grammar_is_served_or_refused_by_name(pool: GrammarPool, form: str) -> None:
    kind, value = HOSTILE[form]
    (found,) = await asyncio.gather(pool.check(constraint(value, kind), ""), return_exceptions=True)
    if isinstance(found, BaseException):
        assert isinstance(found, UnsupportedRequest)
        assert found.param == FIELD
        assert FIELD in str(found)
    else:
        assert found.params._backend


@pytest.fixture(scope="module")
def engine(config: VllmConfig) -> FakeEngine:
    """Return an engine with tools, for the model of the pool."""
    tokenizer = cached_tokenizer_from_config(config.model_config)
    return FakeEngine(tools=VllmTools("hermes", tokenizer))


@pytest.mark.parametrize("form", hostile_constraints.HOSTILE)
async def test_a_hostile_request_is_served_or_refused_by_name(
    pool: GrammarPool, engine: FakeEngine, form: str
) -> None:
    fields = hostile_constraints.HOSTILE[form]
    request = body(**fields)
    try:
        parsed = parse_chat(json.dumps(request).encode())
        bound = await Binder().bind(parsed, engine)
        assert bound.constraint is not None
        checked = await pool.check(bound.constraint, "")
    except (BadRequest, UnsupportedRequest) as refused:
        param = refused.param
    else:
        assert checked.params._backend
        return
    # An error about nesting that prevents parsing names no field.
    assert param is not None or form == "200 levels"
    assert param is None or re.split(r"[.[]", param)[0] in fields


async def test_each_grammar_gets_a_backend_that_supports_it(pool: GrammarPool) -> None:
    one = await pool.check(constraint({"type": "integer", "multipleOf": 7}), "")
    other = await pool.check(constraint(["yes", "no"], Kind.CHOICE), "")

    assert one.params._backend == "guidance"
    assert (other.params._backend, other.params.choice) == ("xgrammar", None)
    assert other.params.grammar == 'root ::= "yes" | "no"'


async def test_a_check_is_cancelled_when_its_last_waiter_leaves(
    pool: GrammarPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "settings", GrammarSettings(seconds=600))
    both = [
        asyncio.create_task(pool.check(constraint(counting(200, 90)), owner))
        for owner in ("one", "other")
    ]
    forking = psutil.Process(pool.pid)
    await until(lambda: bool(pool.slow_queue.running and forking.children()))
    assert pool.checks == 1
    both[0].cancel()
    await asyncio.gather(both[0], return_exceptions=True)
    assert pool.checks == 1
    both[1].cancel()
    await asyncio.gather(both[1], return_exceptions=True)
    await until(lambda: not forking.children())
    await until(lambda: not pool.slow_queue.running)


async def test_owners_take_turns(pool: GrammarPool) -> None:
    done: list[str] = []

    async def ask(owner: str, number: int) -> None:
        with pytest.raises(UnsupportedRequest):
            await pool.check(constraint(counting(200, 80 - number)), owner)
        done.append(owner)

    # So many that some still wait when the first, quick attempt at the other one has ended.
    many = [asyncio.create_task(ask("many", number)) for number in range(16)]
    await until(lambda: bool(pool.slow_queue.running))
    await ask("one", 20)
    before = done.index("one")
    await asyncio.gather(*many)

    # It waits for running checks only, not for all that were queued earlier.
    assert before < len(many) - 1


async def test_quick_checks_are_served_while_slow_ones_run(
    pool: GrammarPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "settings", GrammarSettings(seconds=600))
    many = [
        asyncio.create_task(pool.check(constraint(counting(200, 70 - number)), ""))
        for number in range(8)
    ]
    await until(lambda: bool(pool.slow_queue.running))
    assert await pool.check(constraint({"type": "object", "maxProperties": 1}), "")
    assert not any(task.done() for task in many)
    await given_up(pool, many)


async def test_checks_beyond_the_queue_are_refused(
    pool: GrammarPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "settings", GrammarSettings(seconds=600))
    monkeypatch.setattr(pool, "slow_queue", FairQueue(1, 1))
    many = [
        asyncio.create_task(pool.check(constraint(counting(200, 60 - number)), ""))
        for number in range(7)
    ]
    ended, _ = await asyncio.wait(many, return_when=asyncio.FIRST_COMPLETED)
    assert all(isinstance(task.exception(), Overloaded) for task in ended)
    await given_up(pool, many)


async def test_the_fork_server_is_restarted_if_it_dies(
    pool: GrammarPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "settings", GrammarSettings(seconds=600))
    asking = asyncio.create_task(pool.check(constraint(counting(200, 50)), ""))
    await until(lambda: bool(pool.slow_queue.running))
    process = psutil.Process(pool.pid)
    process.suspend()  # or it could fork between listing its children and being killed
    await until(lambda: process.status() == psutil.STATUS_STOPPED)
    for each in [*process.children(), process]:
        each.kill()
    with pytest.raises(EngineUnavailable):
        await asking
    assert (await pool.check(constraint(SMALL), "")).params


def test_the_least_recently_used_results_are_evicted() -> None:
    results = ResultCache(2 * ENTRY_OVERHEAD)
    for name in (b"a", b"b", b"a", b"c"):
        if results.get(name) is None:
            results.put(name, (CheckResult("xgrammar"), False))

    assert [name for name in (b"a", b"b", b"c") if results.get(name)] == [b"a", b"c"]
