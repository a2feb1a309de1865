"""schemathesis, which makes requests out of the server's own description."""

import re
from pathlib import Path

from tests.clients.apart import CLIENTS, run

CONFIGURED = CLIENTS / "schemathesis"
CASES = 1000


async def test_nothing_fails_and_nothing_is_undescribed(scripted: str, tmp_path: Path) -> None:
    printed = await run(
        [
            *("st", "--config-file", str(CONFIGURED / "schemathesis.toml"), "run"),
            *("--no-color", f"{scripted}/openapi.json"),
        ],
        tmp_path,
        SCHEMATHESIS_HOOKS=str(CONFIGURED / "hooks.py"),
    )

    (cases,) = re.findall(r"(\d+) generated", printed)
    assert int(cases) >= CASES, printed
