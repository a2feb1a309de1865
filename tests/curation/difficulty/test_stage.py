"""The stage `difficulty`: options, questions, files of answers, verdicts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from proctor.curation.difficulty.options import DifficultyOptions
from proctor.curation.difficulty.questions import Unaskable
from proctor.curation.difficulty.rule import Mode
from proctor.curation.errors import CurationError
from proctor.curation.options import Context
from proctor.curation.rows import Row
from proctor.curation.servers import ConditionOptions
from proctor.curation.stages.base import Dropped
from proctor.curation.tokens import Words
from proctor.evaluation.conditions import Condition, Kind
from proctor.evaluation.rows import AnswerRecord
from proctor.evaluation.store import Store
from proctor.evaluation.thinking_options import EarlyExit, Parallel
from tests.evaluation.factories import response

ROW = Row("r", "1 + 1?", "hm", "2", reference="2", metadata={"choices": ["1", "2"]})
NONE, HIGH = Condition(Kind.TIER, "none"), Condition(Kind.TIER, "high")


def options(**fields: Any) -> DifficultyOptions:
    return DifficultyOptions.model_validate({"models": {"small": {"model": "m"}}, **fields})


def answer(condition: Condition, row: Row, score: float, sample: int = 0) -> AnswerRecord:
    question = options().questions().of(row).id
    return AnswerRecord(condition, question, sample, score, None, None, 0.1, response())


def judged(folder: Path, row: Row, *answers: AnswerRecord, **fields: Any) -> Dropped | None:
    chosen = options(**fields)
    (folder / "measured").mkdir(exist_ok=True)
    with Store(folder / "measured" / "small.jsonl", chosen.run_config("small")) as store:
        for each in answers:
            store.add(each)
    return chosen.build(Context(folder, Words(), 0)).judge(row)


def test_a_row_that_needs_thinking_is_kept(tmp_path: Path) -> None:
    assert judged(tmp_path, ROW, answer(NONE, ROW, 0), answer(HIGH, ROW, 1)) is None


@pytest.mark.parametrize(
    ("scores", "reason", "detail"),
    [
        ((1.0,), "solved without thinking", "small without thinking: solved"),
        (
            (0.0, 0.0),
            "not solved with thinking",
            "small without thinking: not solved, small with thinking: not solved",
        ),
        ((0.0,), "not measured", "small without thinking: not solved"),
        ((), "not measured", ""),
    ],
)
def test_other_rows_are_dropped(
    scores: tuple[float, ...], reason: str, detail: str, tmp_path: Path
) -> None:
    conditions = (NONE, HIGH)[: len(scores)]
    answers = [answer(*given) for given in zip(conditions, [ROW] * 2, scores, strict=False)]
    assert judged(tmp_path, ROW, *answers) == Dropped(reason, detail)


def test_most_of_the_samples_decide(tmp_path: Path) -> None:
    half = [answer(NONE, ROW, score, sample) for sample, score in enumerate((1, 0))]
    both = [answer(HIGH, ROW, 1, sample) for sample in range(2)]
    other = answer(Condition(Kind.CAP, 9), ROW, 1)
    assert judged(tmp_path, ROW, *half, *both[:1], other, samples=2) == Dropped(
        "not measured", "small without thinking: not solved"
    )
    assert judged(tmp_path, ROW, both[1], samples=2) is None  # appended to the same file
    assert judged(tmp_path, ROW) == Dropped(
        "solved without thinking", "small without thinking: solved, small with thinking: solved"
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (replace(ROW, reference=None), "no reference answer"),
        (replace(ROW, reference=" "), "no reference answer"),
        (replace(ROW, reference="two"), "reference answer cannot be scored"),
        (replace(ROW, metadata={"choices": ["1"]}), "fields of the template are missing"),
    ],
)
def test_rows_that_cannot_be_measured_have_reasons_of_their_own(
    row: Row, reason: str, tmp_path: Path
) -> None:
    dropped = judged(tmp_path, row, template="{question} {choices[1]}")
    assert dropped is not None
    assert dropped.reason == reason


def test_a_question_is_known_by_its_prompt_and_reference() -> None:
    questions = options(template="{question} A: {choices[0]}").questions()
    question = questions.of(ROW)

    assert (question.text, question.answer) == ("1 + 1? A: 1", "2")
    assert questions.of(replace(ROW, id="other", trace="", answer="3")) == question
    assert questions.of(replace(ROW, reference="3")).id != question.id
    assert questions.of(replace(ROW, question="1 + 2?")).id != question.id
    with pytest.raises(Unaskable, match="no reference answer"):
        questions.of(replace(ROW, reference=None))
    lone_surrogate = replace(ROW, question="\ud800")
    assert questions.of(lone_surrogate).id != question.id


def test_an_unmeasured_recipe_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CurationError, match=r"small\.jsonl does not exist: run .* measure"):
        options().build(Context(tmp_path, Words(), 0))


def test_answers_to_another_recipe_are_refused(tmp_path: Path) -> None:
    judged(tmp_path, ROW)
    with pytest.raises(CurationError, match=r"differ from the recipe in temperature \(0.6, 0.0\)"):
        options(temperature=0.0).build(Context(tmp_path, Words(), 0))
    (tmp_path / "measured" / "small.jsonl").write_text("else\n")
    with pytest.raises(CurationError, match="does not hold an evaluation run"):
        options().build(Context(tmp_path, Words(), 0))
    with pytest.raises(CurationError, match="no scorer 'none'"):
        options(scorer="none").questions()


def test_any_condition_of_an_evaluation_can_be_named() -> None:
    model = options(
        models={
            "m": {
                "model": "m",
                "without": {"cap": 0},
                "thinking": {"continuations": 2, "early_exit": "entropy:patience=2"},
            },
            "n": {"model": "n", "without": {"effort": "none"}, "only_without": True},
            "o": {"model": "o", "thinking": {"cap": 400, "parallel": "4:vote"}},
        }
    ).models
    early = EarlyExit("entropy", patience=2)
    assert model["m"].conditions == {
        Mode.WITHOUT: Condition(Kind.CAP, 0),
        Mode.THINKING: Condition(Kind.CONTINUATIONS, 2, early_exit=early),
    }
    assert model["n"].conditions == {Mode.WITHOUT: Condition(Kind.EFFORT, "none")}
    assert model["o"].conditions[Mode.THINKING].parallel == Parallel(4, "vote")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"without": {}}, "exactly one of cap"),
        ({"without": {"cap": 0, "tier": "none"}}, "exactly one of cap"),
        ({"without": {"tier": "none", "early_exit": "guess"}}, "not one of entropy"),
        ({"without": {"tier": "high"}}, "different conditions"),
        ({"budget_field": "thinking_token_budget"}, "only Proctor has tiers"),
        ({"without": {"cap": -2}}, "greater than or equal to -1"),
    ],
)
def test_invalid_models_are_refused(model: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        options(models={"m": {"model": "m", **model}})


def test_names_of_models_are_names_of_files() -> None:
    with pytest.raises(ValidationError, match="pattern"):
        options(models={"../m": {"model": "m"}})
    with pytest.raises(ValidationError, match="at least 1"):
        options(models={})
    assert options().files() == (Path("measured/small.jsonl"),)


def test_a_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMALL_KEY", raising=False)
    model = options(models={"m": {"model": "m", "api_key_env": "SMALL_KEY"}}).models["m"]
    with pytest.raises(CurationError, match="SMALL_KEY must hold the API key"):
        model.connect()
    monkeypatch.setenv("SMALL_KEY", "secret")
    assert model.connect().headers["authorization"] == "Bearer secret"


def test_a_condition_is_an_evaluations() -> None:
    assert ConditionOptions(tier="high").to_condition() == HIGH
