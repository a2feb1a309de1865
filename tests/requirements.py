"""What some tests need of the machine."""

import os

import pytest


def require(found: object, what: str) -> None:
    """Pass over a test where something is missing; in continuous integration it fails."""
    if found:
        return
    if os.environ.get("PROCTOR_REQUIRE_ALL"):
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is missing")
