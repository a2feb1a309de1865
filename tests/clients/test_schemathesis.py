"""schemathesis, which generates requests from `/openapi.json`."""

import re
from pathlib import Path

from tests.clients.client_process import CLIENTS, run

CONFIG = CLIENTS / "schemathesis"
CASES = 1000


async def test_every_operation_conforms_to_its_description(
    scripted_url: str, tmp_path: Path
) -> None:
    output = await run(
        [
            *("st", "--config-file", str(CONFIG / "schemathesis.toml"), "run"),
            *("--no-color", f"{scripted_url}/openapi.json"),
        ],
        tmp_path,
        SCHEMATHESIS_HOOKS=str(CONFIG / "hooks.py"),
    )

    (cases,) = re.findall(r"(\d+) generated", output)
    assert int(cases) >= CASES, output
