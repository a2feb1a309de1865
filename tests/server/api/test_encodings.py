"""Compressed request bodies."""

import gzip
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proctor.server.api.encodings import Gzip
from proctor.server.engines.fake import FakeEngine
from tests.server.api.test_errors import assert_error
from tests.server.harness import CHAT, body, client

PLAIN = orjson.dumps(body())
PACKED = gzip.compress(PLAIN, mtime=0)
LIMIT = 5000
BOMB = gzip.compress(b" " * 10**8, mtime=0)


async def post(content: Any, encoding: str, **headers: str) -> httpx.Response:
    all_headers = {"content-encoding": encoding, **headers}
    async with client(FakeEngine(), limits={"max_body_bytes": LIMIT}) as http:
        return await http.post(CHAT, content=content, headers=all_headers)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", " gzip", "identity, gzip"])
async def test_gzip(encoding: str) -> None:
    async with client(FakeEngine()) as http:
        plain = await http.post(CHAT, content=PLAIN)
        packed = await http.post(CHAT, content=PACKED, headers={"content-encoding": encoding})

    assert packed.status_code == 200, packed.text
    assert packed.json()["choices"] == plain.json()["choices"]


@pytest.mark.parametrize("encoding", ["identity", "", ", "])
async def test_no_encoding(encoding: str) -> None:
    assert (await post(PLAIN, encoding)).status_code == 200


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "x", "gzip;q=1"])
async def test_other_encodings_are_refused(encoding: str) -> None:
    response = await post(PACKED, encoding)

    assert "gzip" in assert_error(response, 415, "content-encoding")["message"]
    assert response.headers["accept-encoding"] == "gzip"


async def test_a_compression_bomb_is_decompressed_up_to_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    let_out = 0
    decompress = Gzip.decompress

    def counted(self: Gzip, data: bytes, most: int) -> bytes:
        nonlocal let_out
        out = decompress(self, data, most)
        let_out += len(out)
        return out

    async def of_unknown_length() -> AsyncIterator[bytes]:
        yield BOMB

    monkeypatch.setattr(Gzip, "decompress", counted)

    assert_error(await post(BOMB, "gzip"), 413, None)
    assert let_out == 0
    assert_error(await post(of_unknown_length(), "gzip"), 413, None)
    assert let_out == LIMIT + 1


async def test_empty_gzip_members_count_towards_the_limit() -> None:
    assert_error(await post(gzip.compress(b"") * 1000, "gzip"), 413, None)


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PACKED[:-1],
        PACKED[:20],
        PACKED[:-8] + b"\0" * 8,
        PACKED + b"x",
        zlib.compress(PLAIN),
        b"\x1f\x8b",
    ],
)
async def test_invalid_gzip_is_refused(content: bytes) -> None:
    assert "gzip" in assert_error(await post(content, "gzip"), 400, None)["message"]


async def test_an_empty_body() -> None:
    assert_error(await post(b"", "gzip"), 400, None)


@given(
    parts=st.lists(st.binary(max_size=50), max_size=4),
    size=st.integers(1, 60),
    most=st.integers(0, 300),
)
def test_decompression_restores_the_data_in_any_chunks(
    parts: list[bytes], size: int, most: int
) -> None:
    packed, plain = b"".join(map(gzip.compress, parts)), b"".join(parts)
    unpacked, out = Gzip(), b""
    for at in range(0, len(packed), size):
        out += unpacked.decompress(packed[at : at + size], most - len(out))
        if len(out) > most:
            break

    assert out == plain[: most + 1]
    if len(plain) <= most:
        unpacked.close()
