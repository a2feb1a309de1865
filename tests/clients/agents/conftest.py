"""Fixtures of the tests with coding agents."""

from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory, with the folder in which an agent works."""
    (tmp_path / "work").mkdir()
    return tmp_path
