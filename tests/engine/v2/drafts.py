"""Gateways over the V2 runner with speculative decoding, by method and length of drafts."""

import asyncio
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx

from proctor.demo.train import MODEL
from tests.engine.client import ask
from tests.engine.gateway import Gateway
from tests.engine.v2.gateway import running_v2_gateway

NGRAM = {"method": "ngram", "prompt_lookup_min": 2, "prompt_lookup_max": 4}
TRAINING_STEPS = 40
"""The demo model is trained for 3,000; after so few, most of its drafts are wrong."""

CACHE = 2**24
CONTEXT = 1024
"""The context length; the kernel that looks up n-grams takes time in proportion to it."""


def running_speculative_gateway(name: str, folder: Path) -> AbstractContextManager[Gateway]:
    """Serve the demo model with drafts.

    Args:
        name: the method and the number of tokens of a draft: `ngram-3`, `same-7` (drafts by the
            demo model itself), `shorter-1` (by one trained for so short a time that most of its
            drafts are rejected).
        folder: a folder for that model.
    """
    method, count = name.split("-")
    speculative: dict[str, Any] = NGRAM
    if method == "same":
        speculative = {"method": "draft_model", "model": str(MODEL)}
    elif method == "shorter":
        speculative = {"method": "draft_model", "model": str(trained_shorter(folder))}
    return running_v2_gateway(
        speculative_config={**speculative, "num_speculative_tokens": int(count)},
        kv_cache_memory_bytes=CACHE,
        max_model_len=CONTEXT,
    )


def trained_shorter(folder: Path) -> Path:
    """Train the demo model for a short time, if the folder does not have it."""
    if not (folder / "model.safetensors").exists():
        command = [sys.executable, "-m", "proctor.demo.train", "--no-compile"]
        options = ["--folder", str(folder), "--steps", str(TRAINING_STEPS)]
        subprocess.run([*command, *options], check=True, capture_output=True)
    return folder


async def ask_both(
    gateway: Gateway, v1_gateway: Gateway, requests: list[dict[str, Any]]
) -> list[list[dict[str, Any]]]:
    """Return the responses of both gateways."""
    responses = []
    for each in (gateway, v1_gateway):
        async with httpx.AsyncClient(base_url=each.url, timeout=600) as http:
            responses.append(await asyncio.gather(*(ask(http, request) for request in requests)))
    return responses
