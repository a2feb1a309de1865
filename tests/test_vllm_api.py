"""The contract with vLLM: what Proctor uses of it is what the installed version has."""

import pytest

pytest.importorskip("vllm", reason="no vLLM")
from tools.vllm_api import LIST, used_api


def test_vllm_has_what_is_used_of_it() -> None:
    """To accept a change: `python -m tools.vllm_api`, and read the difference."""
    assert used_api() == LIST.read_text(encoding="utf-8").splitlines()
