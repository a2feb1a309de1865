from pathlib import Path

from tests.server.api.surface import surface

TAKEN = Path(__file__).parent / "data/surface.txt"


def test_every_public_name_is_as_it_was() -> None:
    before = set(TAKEN.read_text().splitlines())

    assert before - set(surface()) == set()
