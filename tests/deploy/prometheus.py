"""A Prometheus server for tests, with the configuration of `deploy/`."""

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


def find_program(program: str) -> str:
    """Return the path of one of the package's programs; skip the test if it is not installed."""
    path = shutil.which(program)
    require(path, PACKAGE)
    assert path is not None
    return path


@dataclass(frozen=True)
class Sample:
    """The current value of a series."""

    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Prometheus:
    """A client of a running Prometheus server."""

    http: httpx.AsyncClient

    async def query(self, expression: str) -> list[Sample]:
        """Evaluate an expression now; NaN values are left out."""
        result = await self.get("query", query=expression)
        samples = [Sample(item["metric"], float(item["value"][1])) for item in result["result"]]
        return [sample for sample in samples if not math.isnan(sample.value)]

    async def wait_for(self, expression: str) -> list[Sample]:
        """Evaluate an expression until it has values."""
        async with asyncio.timeout(PATIENCE):
            while True:
                if samples := await self.query(expression):
                    return samples
                await asyncio.sleep(0.2)

    async def get(self, path: str, **parameters: str) -> Any:
        """Return the data of a response of the HTTP API."""
        response = await self.http.get(f"/api/v1/{path}", params=parameters)
        content = response.json()
        assert content["status"] == "success", content
        return content["data"]


@asynccontextmanager
async def run_prometheus(url: str, folder: Path) -> AsyncIterator[Prometheus]:
    """Run a Prometheus that scrapes one server every second.

    Args:
        url: the base URL of the server.
        folder: an empty folder for its configuration, data and log.
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
            find_program("prometheus"),
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
