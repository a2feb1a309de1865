"""Domains as a language model names them."""

import asyncio
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator
from rich.console import Console

from proctor.curation.diversity.keywords import OTHER
from proctor.curation.errors import CurationError
from proctor.curation.options import Context
from proctor.curation.selection import Classifier, ClassifierOptions
from proctor.curation.servers import ConditionOptions, Refusals, ServerOptions
from proctor.evaluation.client import RequestRefused, ServerClient, TokenCountMismatch
from proctor.evaluation.progress import ask_all
from proctor.evaluation.run_config import RunConfig
from proctor.evaluation.runner import pending
from proctor.evaluation.scorers import Scorer
from proctor.evaluation.store import Store, StoreError
from proctor.evaluation.tasks import Question

TASK = "domains"
QUESTION = "{question}"


class EndpointOptions(ServerOptions, ClassifierOptions):
    """Ask a model behind an OpenAI-compatible server for the domain of each question.

    Attributes:
        domains: the names of the domains, each with a description that may be empty.
        cache: the file of answers; questions that it has are not asked again.
        condition: the budget of its thinking.
    """

    domains: Annotated[dict[str, str], Field(min_length=2)]
    cache: str = "domains.jsonl"
    condition: ConditionOptions = ConditionOptions(effort="none")

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.check_condition(self.condition.to_condition())
        return self

    def build(self, context: Context) -> Classifier:
        return Endpoint(self, context.folder / self.cache)


class Endpoint:
    """Asks a model, and keeps its answers in a file."""

    def __init__(self, options: EndpointOptions, cache: Path) -> None:
        self._options = options
        self._cache = cache
        self._scorer = domain_scorer(options.domains)
        self._config = RunConfig(
            model=options.model,
            task=TASK,
            template=prompt_template(options.domains),
            scorer="domain",
            temperature=0.0,
            top_p=1.0,
            seed=0,
            budget_field=options.budget_field,
        )

    def classify(self, questions: Iterable[str]) -> list[str]:
        """Return the domain of each question; `other` if the model names none of them.

        Raises:
            CurationError: if the server does not answer, or the file is of other domains.
        """
        asked = [self._question(text) for text in questions]
        try:
            domains = asyncio.run(self._ask({question.id: question for question in asked}))
        except (RequestRefused, StoreError, TokenCountMismatch) as error:
            raise CurationError(f"[domains] {error}") from error
        return [domains.get(question.id) or OTHER for question in asked]

    async def _ask(self, questions: Mapping[str, Question]) -> dict[str, str | None]:
        condition = self._options.condition.to_condition()
        store = Store(self._cache, self._config, keep_texts=False)
        work = pending([condition], [*questions.values()], 1, store.rows)
        refusals = Refusals(store)
        async with self._options.connect() as http:
            client = ServerClient(http, self._config, self._scorer)
            concurrency, console = self._options.concurrency, Console(stderr=True)
            await ask_all(client, work, store, concurrency, console, refusals.add)
        return {
            row.question: row.normalized_answer for row in store.rows if row.condition == condition
        }

    def _question(self, text: str) -> Question:
        prompt = self._config.template.removesuffix(QUESTION) + text
        digest = sha256(prompt.encode(errors="surrogatepass")).hexdigest()
        return Question(digest[:32], prompt, "")


def prompt_template(domains: Mapping[str, str]) -> str:
    """Return the prompt, with `{question}` where the question goes."""
    listed = "\n".join(
        f"- {name}: {text}" if text else f"- {name}" for name, text in domains.items()
    )
    return (
        "To which of these subjects does the question below belong?\n\n"
        f"{listed}\n\n"
        "Answer with the name of the most relevant subject, as it is written above, and nothing "
        f"else. Do not answer the question itself.\n\nQuestion:\n{QUESTION}"
    )


def domain_scorer(domains: Iterable[str]) -> Scorer:
    """Return what reads an answer: it normalizes it to a domain, and scores whether it has one."""
    names = {name.casefold(): name for name in domains}
    # Longer names first: one may contain another.
    spelled = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\w)(?:{spelled})(?!\w)")

    def normalize(answer: str) -> str | None:
        found = pattern.findall(answer.casefold())
        return names[found[-1]] if found else None

    def score(answer: str, _: str) -> float:
        return float(normalize(answer) is not None)

    return Scorer(score, normalize)
