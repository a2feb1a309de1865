from typing import Any

from server.engines.fake import FakeEngine
from tests.server.harness import client


async def described() -> dict[str, Any]:
    """The server's description of itself."""
    async with client(FakeEngine()) as http:
        document: dict[str, Any] = (await http.get("/openapi.json")).json()
    return document


async def test_every_field_says_what_it_means() -> None:
    schemas = (await described())["components"]["schemas"]

    silent = [
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field, told in schema.get("properties", {}).items()
        if not told.get("description")
    ]
    assert "max_thinking_tokens" in schemas["ChatRequest"]["properties"]
    assert silent == []
