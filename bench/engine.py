"""The embedded engine of the benchmarks."""

from vllm import SamplingParams

from proctor.budget.processors.tokenizer.marker_discovery import MarkerSource
from proctor.server.config.settings import Settings
from proctor.server.engines.base import Engine, Job
from proctor.server.engines.grammars.base import CheckedGrammar
from proctor.server.engines.grammars.pool import GrammarPool
from proctor.server.engines.vllm.engine import VllmEngine


class EngineWithoutBudgets(VllmEngine):
    """An engine whose requests have no budget."""

    def _params(self, job: Job, grammar: CheckedGrammar | None) -> SamplingParams:
        params = super()._params(job, grammar)
        params.extra_args = None
        return params


def load(settings: Settings, without_budgets: bool) -> Engine:
    kind = EngineWithoutBudgets if without_budgets else VllmEngine
    return kind.load(
        settings.model_path,
        name=settings.model_name,
        arguments=settings.engine,
        markers=MarkerSource(settings.thinking_start, settings.thinking_end),
        grammars=lambda config: GrammarPool(config, settings.grammars),
    )
