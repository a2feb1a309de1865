import pytest

from proctor.server.engines.fake import FakeEngine
from tests.server.harness import client

STRICT = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/docs", "text/html; charset=utf-8"),
        ("/static/main.js", "text/javascript; charset=utf-8"),
        ("/static/style.css", "text/css; charset=utf-8"),
        ("/static/icon.svg", "image/svg+xml"),
        ("/static/swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    ],
)
async def test_files_have_their_media_type_and_a_strict_policy(path: str, media_type: str) -> None:
    async with client(FakeEngine()) as http:
        got = await http.get(path)
        again = await http.get(path, headers={"if-none-match": got.headers["etag"]})
        head = await http.head(path)

    assert (got.status_code, again.status_code, head.status_code) == (200, 304, 200)
    assert got.headers["content-type"] == media_type
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["content-security-policy"].startswith(STRICT)
    assert ("unsafe-inline" in got.headers["content-security-policy"]) is (path == "/docs")
    assert head.content == b""


@pytest.mark.parametrize("path", ["/static/nothing.js", "/static/../app.py", "/static/", "/docs/"])
async def test_other_paths_are_not_found(path: str) -> None:
    async with client(FakeEngine()) as http:
        got = await http.get(path)

    assert got.status_code == 404
    assert got.json()["error"]["type"] == "invalid_request_error"


async def test_the_page_gets_its_settings() -> None:
    page = {"examples": ["2 + 2?"], "remembers": False}
    async with client(FakeEngine(), page=page) as http:
        assert (await http.get("/page.json")).json() == {**page, "asks_for_keys": False}


async def test_tiers_are_listed() -> None:
    early_exit = {"method": "entropy", "threshold": 0.1}
    parallel = {"chains": 3, "answer": "number"}
    tiers = [
        {"name": "none", "max_tokens": 0},
        {"name": "free", "max_tokens": -1, "top_p": 0.9},
        {"name": "votes", "max_tokens": -1, "early_exit": early_exit, "parallel": parallel},
    ]
    names = {"low": "free", "medium": "free", "high": "free"}
    overrides = {
        "tiers": tiers,
        "efforts": {**names, "minimal": "free", "xhigh": "free", "max": "free"},
        "router": {"levels": names},
    }
    async with client(FakeEngine(), default_tier="free", **overrides) as http:
        answer = (await http.get("/v1/tiers")).json()

    rest = {"min_tokens": 0, "continuations": 0, "temperature": None}
    assert answer == {
        "object": "list",
        "default_tier": "free",
        "data": [
            {"name": "none", "max_tokens": 0, "top_p": None, **rest},
            {"name": "free", "max_tokens": -1, "top_p": 0.9, **rest},
            {
                "name": "votes",
                "max_tokens": -1,
                "top_p": None,
                **rest,
                "early_exit": {**early_exit, "every": 32, "patience": 2, "answer": "text"}
                | {"opening": ""},
                "parallel": {**parallel, "method": "vote", "keep": "winner"},
            },
        ],
    }
