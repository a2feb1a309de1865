import re
from ipaddress import ip_address
from string import ascii_lowercase, digits
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proctor.server.config.section import ConfigError
from proctor.server.config.settings import load_settings
from proctor.server.engines.fake import FakeEngine
from proctor.server.transport.cors import LOOPBACK
from tests.server.api.test_errors import assert_error
from tests.server.harness import CHAT, body, client, running_server

APP = "https://app.example.com"
EVIL = "https://evil.example.com"
ALLOWED = {"allow_origins": [APP]}
ANY = {"allow_origins": ["*"]}
CLOSED = {"allow_loopback": False}


async def ask(origin: str | None, cors: dict[str, Any], **headers: str) -> httpx.Response:
    """Send a chat request as a page of that origin does without a preflight."""
    if origin is not None:
        headers["origin"] = origin
    async with client(FakeEngine(), cors=cors) as http:
        return await http.post(CHAT, json=body(), headers={"content-type": "text/plain", **headers})


@pytest.mark.parametrize(
    ("origin", "cors"),
    [
        (APP, ALLOWED),
        (EVIL, ANY),
        ("null", ANY),
        ("null", {"allow_origins": ["null"]}),
        ("http://localhost:5173", {}),
        ("http://app.localhost", {}),
        ("https://127.0.0.1", {}),
        ("http://[::1]:8000", {}),
        ("http://localhost:5173", ALLOWED),
    ],
)
async def test_an_allowed_origin(origin: str, cors: dict[str, Any]) -> None:
    answer = await ask(origin, cors)

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] in (origin, "*")
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"x-budget-tier", "x-ignored-fields", "x-request-id"} <= {*exposed}
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    ("origin", "cors"),
    [
        (EVIL, {}),
        (EVIL, ALLOWED),
        ("null", {}),
        (APP + ":8443", ALLOWED),
        ("http://app.example.com", ALLOWED),
        ("http://localhost.evil.example.com", {}),
        ("http://evil.example.com#localhost", {}),
        ("http://evil.example.com?.localhost", {}),
        ("http://evil.example.com/.localhost", {}),
        ("http://evil.example.com\\.localhost", {}),
        ("http://evil.example.com@localhost", {}),
        ("http://evil.example.com:80.localhost", {}),
        ("http://localhost:evil.example.com", {}),
        ("http://.localhost", {}),
        ("http://evil-localhost", {}),
        ("http://127.0.0.1.evil.example.com", {}),
        ("http://localhost:5173", CLOSED),
        ("x" * 9999, {}),
        ("", {}),
    ],
)
async def test_other_origins_are_refused(origin: str, cors: dict[str, Any]) -> None:
    answer = await ask(origin, cors)

    error = assert_error(answer, 403, None)
    assert "cors.allow_origins" in error["message"]
    assert len(error["message"]) < 300
    assert "access-control-allow-origin" not in answer.headers


def is_of_loopback(origin: str) -> bool:
    """Return whether this is a loopback origin as browsers serialize it."""
    try:
        parts = urlsplit(origin)
        host = parts.hostname or ""
    except ValueError:
        return False
    port = parts.netloc.rpartition("]")[2].partition(":")[2]
    try:
        address = ip_address(host)
        known = str(address) in ("127.0.0.1", "::1")
        host = f"[{address}]" if address.version == 6 else str(address)
    except ValueError:
        *labels, last = host.split(".")
        known = last == "localhost" and all(label and {*label} <= LETTERS for label in labels)
    if port:
        known = known and port.isascii() and port.isdigit() and port == str(int(port))
        known = known and 0 < int(port) < 10**5
    written = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
    return known and parts.scheme in ("http", "https") and written == origin


LETTERS = {*ascii_lowercase, *digits, "-", "_"}
ENDS = ["localhost", ".localhost", "127.0.0.1", "[::1]", "::1", "evil.com", ":80", ":0", ":08"]
SIGNS = ["?", "#", "/", "@", "\\", ":", ".", "%2e", "\n", "\t", " ", "\u00b9", "-", "_", "A", "*"]


@given(
    st.sampled_from(["http://", "https://", "HTTP://", "http:", "ftp://", ""]),
    st.lists(st.sampled_from([*ENDS, *SIGNS]) | st.text(max_size=3), max_size=5).map("".join),
)
@example("http://", "evil.com?.localhost")
@example("http://", "localhost\n")
@example("http://", "127.0.0.2")
@example("http://", "localhost:99999")
@example("http://", "[0:0:0:0:0:0:0:1]")
def test_loopback_origins_are_recognized(scheme: str, rest: str) -> None:
    origin = scheme + rest
    found = re.fullmatch(LOOPBACK, origin) is not None
    assert found == is_of_loopback(origin)


@pytest.mark.parametrize(
    ("origin", "headers", "status"),
    [
        (None, {}, 200),
        ("http://test", {}, 200),
        ("https://test", {}, 200),
        ("http://test:8000", {}, 403),
        (EVIL, {"sec-fetch-site": "same-origin"}, 200),
        (EVIL, {"sec-fetch-site": "none"}, 200),
        (EVIL, {"sec-fetch-site": "cross-site"}, 403),
        (EVIL, {"sec-fetch-site": "same-site"}, 403),
        (None, {"sec-fetch-site": "cross-site"}, 403),
        ("http://localhost:1", {"sec-fetch-site": "cross-site"}, 200),
    ],
)
async def test_same_origin_pages_and_other_clients_are_allowed(
    origin: str | None, headers: dict[str, str], status: int
) -> None:
    assert (await ask(origin, {}, **headers)).status_code == status


async def test_health_is_open_to_all_origins() -> None:
    async with client(FakeEngine()) as http:
        answer = await http.get("/health", headers={"origin": EVIL})

    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(("origin", "status"), [(APP, 200), (EVIL, 400)])
async def test_preflight_requests(origin: str, status: int) -> None:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-lang",
    }

    async with client(FakeEngine(), cors=ALLOWED) as http:
        answer = await http.options(CHAT, headers=headers)

    assert answer.status_code == status
    assert answer.headers.get("access-control-allow-origin") == (APP if origin == APP else None)
    if status == 200:
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert "authorization" in answer.headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    "origin", ["app.example.com", APP + "/", "http://*.example.com", "", "a b"]
)
def test_an_invalid_origin_is_a_config_error(origin: str) -> None:
    with pytest.raises(ConfigError, match="allow_origins"):
        load_settings({"cors": {"allow_origins": [origin]}})


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        (CHAT, "POST"),
        ("/v1/route", "POST"),
        ("/v1/models", "GET, HEAD"),
        ("/v1/models/fake", "GET, HEAD"),
        ("/health", "GET, HEAD"),
        ("/ready", "GET, HEAD"),
        ("/metrics", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
    ],
)
async def test_options_and_405_list_the_methods(path: str, methods: str) -> None:
    async with client(FakeEngine()) as http:
        options = await http.options(path)
        refused = await http.delete(path)
        unknown = await http.options("/nowhere")
        metrics = await http.get("/metrics")

    assert (options.status_code, options.content, options.headers["allow"]) == (204, b"", methods)
    assert assert_error(refused, 405, None)["message"] == (
        f"Method Not Allowed: {path} supports {methods}, not DELETE."
    )
    assert refused.headers["allow"] == methods
    assert_error(unknown, 404, None)
    assert 'proctor_rejected_total{reason="method"} 1.0' in metrics.text


@pytest.mark.parametrize("path", ["/health", "/ready", "/v1/models", "/v1/models/x", "/metrics"])
async def test_head_is_get_without_a_body(path: str) -> None:
    async with running_server(FakeEngine()) as url, httpx.AsyncClient(base_url=url) as http:
        head, get = await http.head(path), await http.get(path)

    assert head.content == b""
    assert head.status_code == get.status_code
    assert head.headers["content-type"] == get.headers["content-type"]
    if path != "/metrics":
        assert head.headers["content-length"] == get.headers["content-length"]


async def test_head_of_a_post_path_is_a_405() -> None:
    async with client(FakeEngine()) as http:
        head = await http.head(CHAT)

    assert (head.status_code, head.content, head.headers["allow"]) == (405, b"", "POST")
