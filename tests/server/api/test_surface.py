from pathlib import Path

from tests.server.api.surface import surface

TAKEN = Path(__file__).parent / "data/surface.txt"


def test_no_public_name_has_been_removed() -> None:
    before = set(TAKEN.read_text().splitlines())

    assert before - set(surface()) == set()
