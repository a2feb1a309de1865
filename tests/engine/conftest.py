"""Skips all tests in this folder if vLLM is not installed."""

import pytest

from tests.engine.gateway import NO_ENGINE

pytest.importorskip("vllm", reason=NO_ENGINE)
