"""A Prometheus of the tests' own, set up by the configuration that is shipped."""

import asyncio
import math
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.requirements import require
from tests.waiting import PATIENCE

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
CONFIG = FOLDER / "prometheus.yml"
PACKAGE = "Prometheus (Debian's package prometheus)"


def find(program: str) -> str:
    """Where one of the package's programs is."""
    found = shutil.which(program)
    require(found, PACKAGE)
    assert found is not None
    return found


@dataclass(frozen=True)
class Sample:
    """One series' value now."""

    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Prometheus:
    """A running one."""

    http: httpx.AsyncClient

    async def query(self, expression: str) -> list[Sample]:
        """What an expression gives now; NaN is no value."""
        result = await self.get("query", query=expression)
        samples = [Sample(item["metric"], float(item["value"][1])) for item in result["result"]]
        return [sample for sample in samples if not math.isnan(sample.value)]

    async def until(self, expression: str) -> list[Sample]:
        """The same, as soon as there is something."""
        async with asyncio.timeout(PATIENCE):
            while True:
                if found := await self.query(expression):
                    return found
                await asyncio.sleep(0.2)

    async def get(self, path: str, **parameters: str) -> Any:
        """What the API answers."""
        response = await self.http.get(f"/api/v1/{path}", params=parameters)
        told = response.json()
        assert told["status"] == "success", told
        return told["data"]


@asynccontextmanager
async def scraping(url: str, folder: Path) -> AsyncIterator[Prometheus]:
    """A Prometheus that scrapes one server every second.

    Args:
        url: the server's.
        folder: an empty one.
    """
    config = yaml.safe_load(CONFIG.read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(FOLDER / pattern) for pattern in config["rule_files"]]
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [url.removeprefix("http://")]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            find("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
            stderr=log,
        )
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                await _until_ready(http, process)
                yield Prometheus(http)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _until_ready(http: httpx.AsyncClient, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            assert process.returncode is None, "its log is in pytest's folder"
            try:
                if (await http.get("/-/ready")).status_code == 200:
                    return
            except httpx.ConnectError:
                pass
            await asyncio.sleep(0.1)
