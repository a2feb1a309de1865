"""schemathesis, which makes requests out of the server's own description."""

import json
from pathlib import Path

from server.engines.fake import FakeEngine
from tests.clients.apart import run
from tests.server.harness import listening

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
]
CASES = 1000


async def test_nothing_fails_and_nothing_is_undescribed(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    async with listening(FakeEngine()) as url:
        await run(
            [
                *("st", "run", f"{url}/openapi.json", "--seed", "1", "--max-examples", "100"),
                *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"),
                *("--report-json-path", str(report)),
            ],
            tmp_path,
        )

    told = json.loads(report.read_text())
    assert told
