from hypothesis import given
from hypothesis import strategies as st

from proctor.server.channels.stop_strings import StopFinder

texts = st.text(alphabet="abc", max_size=20)
stop_lists = st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=3)


def run(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    finder = StopFinder(stops)
    text = "".join(map(finder.push, pieces)) + finder.close()
    return text, finder.found is not None


@given(stops=stop_lists, pieces=st.lists(texts))
def test_the_result_does_not_depend_on_the_pieces(stops: list[str], pieces: list[str]) -> None:
    whole = "".join(pieces)

    assert run(stops, pieces) == run(stops, [whole]) == run(stops, list(whole))


@given(stops=stop_lists, text=texts)
def test_text_goes_up_to_the_stop_that_ends_first(stops: list[str], text: str) -> None:
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]

    passed, found = run(stops, [text])

    assert found == bool(ends)
    if ends:
        assert any(passed + stop == text[: min(ends)] for stop in stops)
    else:
        assert passed == text


def test_the_beginning_of_a_stop_is_held_back() -> None:
    finder = StopFinder(["END"])

    assert [finder.push("x E"), finder.push("N"), finder.push("x"), finder.close()] == [
        "x ",
        "",
        "ENx",
        "",
    ]
