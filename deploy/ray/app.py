"""Serve a model with thinking budgets on Ray Serve LLM: `serve run deploy/ray/serve.yaml`.

Ray calls `build` with the `args` of the application. Proctor, vLLM and this folder must be
importable on every node.
"""

from typing import Any

from ray.serve import Application
from ray.serve.llm import build_openai_app

from deploy.ray.engine_config import Arguments, with_budgets


def build(args: dict[str, Any]) -> Application:
    """Return Ray's OpenAI-compatible ingress before engines that enforce budgets.

    Raises:
        ValueError: if an argument is invalid, or the model's thinking markers are not found.
    """
    return build_openai_app({"llm_configs": [with_budgets(Arguments(**args))]})
