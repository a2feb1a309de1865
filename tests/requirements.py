"""Requirements of tests that a machine may lack."""

import os

import pytest


def require(available: object, what: str) -> None:
    """Skip a test whose requirement is missing; fail it if TESTS_REQUIRE_ALL is set, as in CI."""
    if available:
        return
    if os.environ.get("TESTS_REQUIRE_ALL"):
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is missing")
