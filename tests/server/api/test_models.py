from typing import Any

import httpx
import openai
import pytest

from proctor.server.config.section import ConfigError
from proctor.server.config.settings import load_settings
from proctor.server.engines.fake import FakeEngine
from tests.server.api.test_errors import assert_error
from tests.server.harness import CHAT, body, client, running_server

NAMES = ["fake", "org/fake-1", "a b%2F?#é"]


def aliased() -> Any:
    return client(FakeEngine(), aliases=NAMES[1:])


async def test_every_name_is_listed() -> None:
    async with aliased() as http:
        models = (await http.get("/v1/models")).json()

    assert [model["id"] for model in models["data"]] == NAMES
    assert {model["root"] for model in models["data"]} == {"fake"}


@pytest.mark.parametrize("name", NAMES)
async def test_every_name_is_served_and_responses_have_the_models_own(name: str) -> None:
    async with aliased() as http:
        whole = await http.post(CHAT, json=body(model=name))
        streamed = await http.post(CHAT, json=body(model=name, stream=True))

    assert whole.json()["model"] == "fake"
    assert '"model":"fake"' in streamed.text


@pytest.mark.parametrize("name", NAMES)
async def test_the_openai_sdk_finds_every_name(name: str) -> None:
    async with (
        running_server(FakeEngine(), aliases=NAMES[1:]) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as sdk,
    ):
        found = await sdk.models.retrieve(name)

    assert found.id == name


@pytest.mark.parametrize(
    "path", ["org/fake-1", "org%2Ffake-1", "org%2ffake-1", "%6Frg/fake-1", "a%20b%252F%3F%23%C3%A9"]
)
async def test_a_name_in_a_path_may_be_encoded(path: str) -> None:
    async with running_server(FakeEngine(), aliases=NAMES[1:]) as url, httpx.AsyncClient() as http:
        response = await http.get(f"{url}/v1/models/{path}")

    assert response.status_code == 200
    assert response.json()["id"] in NAMES


@pytest.mark.parametrize(
    "path", ["", "other", "fake/", "/fake", "FAKE", "org", "%00", "%FF", "x" * 9999]
)
async def test_the_error_for_an_unknown_name_lists_the_names(path: str) -> None:
    async with running_server(FakeEngine(), aliases=["mine"]) as url, httpx.AsyncClient() as http:
        response = await http.get(f"{url}/v1/models/{path}")

    error = assert_error(response, 404, None)
    assert error["code"] == "model_not_found"
    assert "'fake', 'mine'" in error["message"]
    assert len(error["message"]) < 200


async def test_an_unknown_name_in_a_request() -> None:
    async with aliased() as http:
        error = assert_error(await http.post(CHAT, json=body(model="gpt-9")), 404, "model")

    assert all(f"'{name}'" in error["message"] for name in NAMES)


@pytest.mark.parametrize(
    ("aliases", "wrong"),
    [
        (["m"], "Duplicate name"),
        (["a", "a"], "Duplicate name"),
        ([""], "aliases.0"),
        ([" a"], "aliases.0"),
        (["a\n"], "aliases.0"),
        (["a\0b"], "aliases.0"),
        (["x" * 257], "aliases.0"),
        ("a", "aliases"),
    ],
)
def test_invalid_aliases_are_refused(aliases: Any, wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        load_settings({"model": "m", "aliases": aliases})
