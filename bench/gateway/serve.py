"""Starts one of the servers: `python -m bench.gateway.serve KIND PORT [--upstream URL]`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

NAME = "proctor-demo"
MODEL = Path(__file__).parents[2] / "demo" / "model"
LIMITS = {"max_running": 20_000, "max_waiting": 20_000}

# Each kind imports what it needs only: what it would not need counts as its memory.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("port", type=int)
    parser.add_argument("--upstream", help="the URL of the replica")
    options = parser.parse_args()
    KINDS[options.kind](options.port, options.upstream)


def run(app: ASGIApp, port: int, **options: Any) -> None:
    uvicorn.run(
        app, port=port, ws="none", lifespan="auto", access_log=False, log_level="warning", **options
    )


def serve_bytes(port: int, _: str | None) -> None:
    from bench.gateway.bytes_app import BytesApp

    run(BytesApp(NAME), port, backlog=16_384)


def serve_gateway(port: int, upstream: str | None) -> None:
    from bench.gateway.engine import ScriptedEngine
    from proctor.budget.processors.tokenizer.marker_discovery import MarkerSource
    from proctor.server.app import create_app
    from proctor.server.config.budgets import CUSTOM
    from proctor.server.config.settings import Settings
    from proctor.server.engines.base import Engine
    from proctor.server.engines.factory import load_engine
    from proctor.server.engines.vllm.tokenizer_bundle import load_local
    from proctor.server.transport.http_protocol import make_http

    def load() -> Engine:
        if upstream is not None:
            return load_engine(settings)
        return ScriptedEngine(load_local(str(MODEL), MarkerSource()), NAME)

    settings = Settings(
        model=str(MODEL),
        served_model_name=NAME,
        default_tier=CUSTOM,
        limits=LIMITS,
        engine={} if upstream is None else {"kind": "vllm", "urls": [upstream]},
    )
    http = make_http(settings.limits.send_timeout_seconds)
    run(create_app(settings, load), port, http=http, timeout_keep_alive=75, backlog=16_384)


def serve_replica(port: int, _: str | None) -> None:
    from bench.gateway.replica import ScriptedReplica
    from proctor.budget.processors.tokenizer.marker_discovery import MarkerSource
    from proctor.server.engines.vllm.tokenizer_bundle import load_local

    run(ScriptedReplica(load_local(str(MODEL), MarkerSource()), NAME), port, backlog=16_384)


def serve_vllm(port: int, _: str | None) -> None:
    from bench.gateway.vllm_front import serve

    serve(MODEL, NAME, port)


KINDS: dict[str, Callable[[int, str | None], None]] = {
    "bytes": serve_bytes,
    "gateway": serve_gateway,
    "replica": serve_replica,
    "vllm": serve_vllm,
}


if __name__ == "__main__":
    main()
