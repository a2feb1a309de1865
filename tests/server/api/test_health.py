"""Endpoints for benchmark tools: version, load, tokenizer."""

import asyncio

from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine
from tests.server.api.test_errors import assert_error
from tests.server.harness import CHAT, body, client, with_timeout


async def test_the_version_is_that_of_the_openapi_document() -> None:
    async with client(FakeEngine()) as http:
        answer = (await http.get("/version")).json()
        described = (await http.get("/openapi.json")).json()

    assert answer == {"version": described["info"]["version"]}


async def test_the_load_is_the_number_of_running_requests() -> None:
    begun: set[str] = set()
    all_begun, opened = asyncio.Event(), asyncio.Event()

    async def hold(job: Job, position: int) -> None:
        begun.add(job.id)
        if len(begun) == 6:
            all_begun.set()
        await opened.wait()

    async with client(FakeEngine(before_token=hold)) as http:
        idle = (await http.get("/load")).json()
        asking = [asyncio.ensure_future(http.post(CHAT, json=body(n=2))) for _ in range(3)]
        await with_timeout(all_begun.wait())
        busy = (await http.get("/load")).json()
        opened.set()
        await with_timeout(asyncio.gather(*asking))
        after = (await http.get("/load")).json()

    assert idle == after == {"server_load": 0}
    assert busy == {"server_load": 3}


async def test_the_tokenizer() -> None:
    async with client(FakeEngine()) as http:
        answer = (await http.get("/tokenizer_info")).json()

    assert answer["tokenizer_class"] == "ByteCodec"
    assert answer["eos_token"] == "<|im_end|>"


async def test_load_and_tokenizer_info_need_a_key() -> None:
    async with client(FakeEngine(), auth={"required": True}) as http:
        assert (await http.get("/version")).status_code == 200
        for path in ("/load", "/tokenizer_info"):
            assert_error(await http.get(path), 401, None)
