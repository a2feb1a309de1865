"""Domains by a model behind an endpoint, against a gateway with a fake engine."""

import asyncio
from pathlib import Path

import pytest
from pydantic import ValidationError

from proctor.curation.diversity.endpoint import EndpointOptions, domain_scorer, prompt_template
from proctor.curation.errors import CurationError
from proctor.curation.options import Context
from proctor.curation.tokens import Words
from proctor.evaluation.store import read_store
from proctor.server.engines.base import Job
from proctor.server.engines.fake import FakeEngine, Script
from tests.server.harness import running_server

DOMAINS = {"law": "courts and contracts", "tax law": "", "cooking": ""}
QUESTIONS = ["May I sue?", "How long to bake?", "What is this?", "May I sue?"]


def script(job: Job) -> Script:
    prompt = bytes(token for token in job.prompt_ids if token < 256).decode()
    question = prompt.rpartition("Question:\n")[2].strip()
    answer = {"May I sue?": "The subject is Law.", "How long to bake?": "**cooking**"}
    return Script((), answer.get(question.partition("\n")[0], "poetry"))


def options(url: str, **fields: object) -> EndpointOptions:
    server = {"model": "fake", "base_url": f"{url}/v1", "domains": DOMAINS}
    return EndpointOptions.model_validate({**server, **fields})


async def classify(chosen: EndpointOptions, folder: Path, questions: list[str]) -> list[str]:
    classifier = chosen.build(Context(folder, Words(), 0))
    return await asyncio.to_thread(classifier.classify, questions)


async def test_different_questions_are_asked_once_and_answers_are_kept(tmp_path: Path) -> None:
    engine = FakeEngine(script)
    async with running_server(engine) as url:
        first = await classify(options(url), tmp_path, QUESTIONS[:1])
        domains = await classify(options(url), tmp_path, QUESTIONS)
        again = await classify(options(url), tmp_path, [*reversed(QUESTIONS)])

    assert first == ["law"]
    assert domains == ["law", "cooking", "other", "law"]
    assert again == [*reversed(domains)]
    assert len(engine.jobs) == len(read_store(tmp_path / "domains.jsonl").rows) == 3
    assert {job.budget.maximum for job in engine.jobs} == {0}
    assert {job.sampling.temperature for job in engine.jobs} == {0.0}


async def test_a_question_that_the_server_refuses_is_of_no_domain(tmp_path: Path) -> None:
    async with running_server(FakeEngine(script)) as url:
        domains = await classify(options(url), tmp_path, ["x" * 40_000, *QUESTIONS])
    assert domains == ["other", "law", "cooking", "other", "law"]


async def test_answers_for_other_domains_are_refused(tmp_path: Path) -> None:
    async with running_server(FakeEngine(script)) as url:
        await classify(options(url), tmp_path, QUESTIONS)
        fewer = {name: text for name, text in DOMAINS.items() if name != "cooking"}
        with pytest.raises(CurationError, match=r"\[domains\] .*differs in template"):
            await classify(options(url, domains=fewer), tmp_path, QUESTIONS)


async def test_a_server_that_is_away_ends_the_classification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proctor.evaluation.client.MAX_ATTEMPTS", 1)
    with pytest.raises(CurationError, match="cannot be reached"):
        await classify(options("http://127.0.0.1:9"), tmp_path, QUESTIONS)


@pytest.mark.parametrize(
    ("answer", "domain"),
    [
        ("law", "law"),
        ("Tax Law", "tax law"),
        ("- tax law.", "tax law"),
        ("It is not law but cooking.", "cooking"),
        ("lawful", None),
        ("outlaw", None),
        ("", None),
    ],
)
def test_the_last_name_in_an_answer_is_the_domain(answer: str, domain: str | None) -> None:
    scorer = domain_scorer(DOMAINS)
    assert scorer.normalize(answer) == domain
    assert scorer.score(answer, "") == float(domain is not None)


def test_the_prompt_lists_the_domains() -> None:
    template = prompt_template({"a {question}": "of {braces}", "b": ""})
    assert "- a {question}: of {braces}\n- b\n" in template
    assert template.endswith("Question:\n{question}")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"domains": {"law": ""}}, "at least 2"),
        ({"condition": {"tier": "none"}, "budget_field": "x"}, "only Proctor has tiers"),
    ],
)
def test_invalid_options_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        options("http://x", **fields)
