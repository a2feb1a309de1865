"""A background response whose gateway is killed."""

import signal

import httpx
import pytest

from proctor.server.accounting.ledger.store import Store
from tests.server.accounting.ledger.killable import ledger_environment, two_gateways, until
from tests.server.accounting.ledger.records import read_records
from tests.server.harness import parse_events
from tests.server.responses.asking import RESPONSES, body
from tests.server.responses.grammar import Parser

pytestmark = pytest.mark.slow


async def test_it_has_failed_and_its_tokens_are_recorded(url: str, store: Store) -> None:
    async with (
        two_gateways(ledger_environment(url)) as (killed, other),
        httpx.AsyncClient(base_url=other.url) as http,
    ):
        async with httpx.AsyncClient(base_url=killed.url) as client:
            request = body(background=True, max_output_tokens=900)
            created = (await client.post(RESPONSES, json=request)).json()
        path = f"{RESPONSES}/{created['id']}"

        async def has(status: str) -> bool:
            return bool((await http.get(path)).json()["status"] == status)

        await until(lambda: has("in_progress"))
        killed.send_signal(signal.SIGKILL)
        await until(lambda: has("failed"))
        response = (await http.get(path)).json()
        stream = (await http.get(path, params={"stream": "true"})).text

    assert response["error"]["code"] == "server_error"
    assert Parser(stream).last == response
    assert any("reasoning_text.delta" in str(event.name) for event in parse_events(stream))
    assert [row.estimated for row in await read_records(url)] == [True]
