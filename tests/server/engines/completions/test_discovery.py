"""Discovery of a completions server's capabilities."""

import asyncio
import re
from typing import Any

import pytest

from proctor.server.config.engine import CompletionsServer
from proctor.server.config.section import ConfigError
from proctor.server.config.settings import load_settings
from proctor.server.engines.completions import discovery
from proctor.server.engines.completions.dialects import TextDialect, TokenIdDialect
from proctor.server.engines.completions.discovery import discover
from proctor.server.engines.completions.engine import CompletionsEngine
from proctor.server.engines.completions.upstream import Upstream
from proctor.server.engines.fake import END_THINK
from tests.server.engines.completions.fake_upstream import (
    DONE,
    END,
    LOCAL,
    FakeServer,
    Handler,
    Reply,
    broken,
    event,
    listing,
    runaway,
    stream,
)
from tests.server.harness import settings

COMPLETIONS = {"kind": "completions", "base_url": "http://upstream/v1", "api_key": "s3cret"}


def probed(*tokens: int, text: str = END) -> Handler:
    def answer(body: dict[str, Any]) -> Reply:
        assert body["logit_bias"] == {str(END_THINK): 100}
        ids = {"token_ids": tokens} if tokens else {}
        return stream(event(text=text, finish_reason="length", **ids), DONE)

    return answer


async def test_a_server_that_returns_token_ids_is_detected(server: FakeServer) -> None:
    service = await discover(server.connect(probed(END_THINK)), LOCAL, (), None)

    assert (service.model, service.context_length) == ("there", 4096)
    assert isinstance(service.dialect, TokenIdDialect)


async def test_a_server_that_returns_text_is_detected(server: FakeServer) -> None:
    service = await discover(
        server.connect(probed(), models=lambda: listing({"id": "there"})), LOCAL, (), 99
    )

    assert service.context_length == 99
    assert isinstance(service.dialect, TextDialect)


@pytest.mark.parametrize(
    "answer",
    [
        probed(END_THINK, END_THINK),
        probed(5, text="a"),
        probed(END_THINK, text="another model's"),
        probed(text=""),
        probed(text="a"),
        runaway,
    ],
)
async def test_a_server_over_which_budgets_cannot_be_enforced_is_refused(
    server: FakeServer, answer: Handler
) -> None:
    with pytest.raises(ValueError, match="budgets cannot be enforced"):
        await discover(server.connect(answer), LOCAL, (), None)


async def test_an_unknown_or_too_large_context_is_refused(server: FakeServer) -> None:
    with pytest.raises(ValueError, match=r"set engine\.max_model_len"):
        await discover(
            server.connect(broken, models=lambda: listing({"id": "there"})), LOCAL, (), None
        )
    with pytest.raises(ValueError, match="4096"):
        await discover(server.connect(broken), LOCAL, (), 5000)


async def test_one_of_several_models_is_chosen_by_its_name(server: FakeServer) -> None:
    both = listing({"id": "a", "max_model_len": 9}, {"id": "b", "max_model_len": 9})
    upstream = server.connect(probed(END_THINK), models=lambda: both)

    with pytest.raises(ValueError, match="a, b"):
        await discover(upstream, LOCAL, ("x",), None)
    assert (await discover(upstream, LOCAL, ("x", "b"), None)).model == "b"


async def test_a_server_that_is_not_up_yet_is_waited_for(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(discovery, "RETRY_SECONDS", 0)
    early = iter([Reply(503), stream(b"<html>")])
    ready = listing({"id": "there", "max_model_len": 9})
    upstream = server.connect(probed(END_THINK), models=lambda: next(early, ready))

    assert (await discover(upstream, LOCAL, (), None)).context_length == 9
    assert [record.message for record in caplog.records] == [
        "waiting: the completions server responded with status 503"
    ]


async def test_load_uses_one_client_for_discovery_and_another_afterwards(
    server: FakeServer,
) -> None:
    made: list[Upstream] = []

    def make() -> Upstream:
        made.append(server.connect(probed(END_THINK)))
        return made[-1]

    over = await asyncio.to_thread(
        CompletionsEngine.load, make, LOCAL, name="fake", known_as=(), context_length=99
    )

    assert len(made) == 2
    assert over.model.context_length == 99
    await over.health()


def test_settings_of_a_completions_server() -> None:
    over = settings(model="m", engine=COMPLETIONS)

    assert isinstance(over.remote_engine, CompletionsServer)
    assert over.remote_engine.base_url == "http://upstream/v1"
    assert "s3cret" not in repr(over.remote_engine)
    assert settings(engine={"max_model_len": 9}).remote_engine is None


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"kind": "another"}, "engine.kind"),
        ({"base_url": "upstream"}, "engine.base_url"),
        ({"enforce_eager": True}, "engine.enforce_eager"),
        ({"max_model_len": 0}, "engine.max_model_len"),
    ],
)
def test_an_invalid_setting_of_a_completions_server_is_named(wrong: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(named)}: "):
        load_settings({"model": "m", "engine": COMPLETIONS | wrong})


def test_a_completions_server_needs_a_model_for_its_tokenizer() -> None:
    with pytest.raises(ConfigError, match="model must be set"):
        load_settings({"engine": COMPLETIONS})
