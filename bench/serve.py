"""Starts the gateway with the embedded engine, for the benchmarks."""

import argparse
import json

import uvicorn

from proctor.server.app import create_app
from proctor.server.config.budgets import CUSTOM
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine
from proctor.server.engines.vllm.preload import preload

NAME = "proctor-demo"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("engine", type=json.loads, help="vLLM's engine arguments, in JSON")
    parser.add_argument("--model", help="a path or a Hugging Face name, by default the demo")
    parser.add_argument("--thinking-start", help="by default that of the chat template")
    parser.add_argument("--thinking-end")
    parser.add_argument("--without-budgets", action="store_true")
    options = parser.parse_args()
    settings = Settings(
        port=options.port,
        model=options.model,
        served_model_name=NAME,
        engine=options.engine,
        default_tier=CUSTOM,
        thinking_start=options.thinking_start,
        thinking_end=options.thinking_end,
    )
    preload()
    app = create_app(settings, lambda: load(settings, options.without_budgets))
    uvicorn.run(app, host=settings.host, port=settings.port, access_log=False, log_level="warning")


def load(settings: Settings, without_budgets: bool) -> Engine:
    from bench import engine  # imports vLLM, while another process does as well

    return engine.load(settings, without_budgets)


if __name__ == "__main__":
    main()
