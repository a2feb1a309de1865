"""What holds for every stage: pure, idempotent, and nothing is lost."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proctor.curation.options import Context
from proctor.curation.rows import Row
from proctor.curation.stages.base import Dropped, Stage, StageOptions
from proctor.curation.stages.decontamination import DecontaminationOptions
from proctor.curation.stages.deduplication import DeduplicationOptions, normalized_words
from proctor.curation.stages.quality import QualityOptions
from proctor.curation.stages.reasoning import ReasoningOptions
from proctor.curation.tokens import Words
from tests.curation.factories import make_row, rows, write_lines

EVALUATION = [{"question": "Anna has 17 apples", "answer": "17"}, {"question": "the of and is"}]
OPTIONS: dict[str, StageOptions] = {
    "quality": QualityOptions(languages=("en",)),
    "deduplication": DeduplicationOptions(threshold=0.5, permutations=16, same_numbers=False),
    "decontamination": DecontaminationOptions(against=(Path("eval.jsonl"),), ngram=3),
    "reasoning": ReasoningOptions(),
}
ALONE = ("quality", "decontamination", "reasoning")
"""The stages that judge each row alone."""


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    folder = tmp_path_factory.mktemp("evaluations")
    write_lines(folder / "eval.jsonl", EVALUATION)
    return Context(folder, Words(), 0)


def verdicts(stage: Stage, judged: Sequence[Row]) -> dict[str, Dropped | None]:
    return {row.id: stage.judge(row) for row in judged}


@pytest.mark.parametrize("name", OPTIONS)
@given(judged=rows())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_kept_rows_are_kept_again(name: str, judged: list[Row], context: Context) -> None:
    first = verdicts(OPTIONS[name].build(context), judged)
    assert first == verdicts(OPTIONS[name].build(context), judged)

    kept = [row for row in judged if first[row.id] is None]
    assert not any(verdicts(OPTIONS[name].build(context), kept).values())


@pytest.mark.parametrize("name", ALONE)
@given(judged=rows(), data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_order_does_not_matter(
    name: str, judged: list[Row], data: st.DataObject, context: Context
) -> None:
    shuffled = data.draw(st.permutations(judged))

    assert verdicts(OPTIONS[name].build(context), judged) == verdicts(
        OPTIONS[name].build(context), shuffled
    )


@given(judged=rows(), data=st.data())
def test_as_many_exact_duplicates_in_every_order(judged: list[Row], data: st.DataObject) -> None:
    context = Context(Path(), Words(), 0)
    options = DeduplicationOptions(threshold=1)
    shuffled = data.draw(st.permutations([*judged, *judged]))
    rows = [make_row(id=str(at), question=row.question) for at, row in enumerate(shuffled)]

    found = verdicts(options.build(context), rows)

    kept = [normalized_words(row.question) for row in rows if found[row.id] is None]
    assert len(kept) == len({tuple(words) for words in kept})
    assert {*map(tuple, kept)} == {tuple(normalized_words(row.question)) for row in rows}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_good_row_is_kept(name: str, context: Context) -> None:
    options = OPTIONS[name]
    if name == "decontamination":
        write_lines(
            context.folder / "other.jsonl", [{"question": "Who was the first to climb it?"}]
        )
        options = DecontaminationOptions(against=(Path("other.jsonl"),))

    assert options.build(context).judge(make_row()) is None
