"""Writes the dashboards: `python -m deploy.grafana.make`, from the repository's root."""

from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row, TextBoxVariable
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import VariableOption

from deploy.grafana.panels import Query, heat, number, series, sql_series, sql_table

FOLDER = Path(__file__).parent / "dashboards"

RATE = "$__rate_interval"
COST = "proctor_cost_${currency}_total"
ANSWER_COST = "proctor_cost_per_answer_${currency}"
TOTAL = "cost_prompt + cost_thinking + cost_answer"
THOUGHT = "proctor_thinking_tokens_count"


def quantile(share: float, metric: str, by: str = "") -> str:
    """A quantile of a histogram, over all servers."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket[{RATE}])))"


def quantiles(metric: str) -> tuple[Query, Query]:
    """The middle and the slow end of a histogram."""
    return (quantile(0.5, metric), "p50"), (quantile(0.95, metric), "p95")


def rate(metric: str, by: str = "") -> str:
    """So many a second, over all servers."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}[{RATE}]))"


def share(part: str, whole: str, by: str) -> str:
    """A part of a whole; 0 where there is a whole and none of it."""
    return f"({rate(part, by)} or 0 * {rate(whole, by)}) / {rate(whole, by)}"


def cost() -> Dashboard:
    """What answers cost, and what is spent."""
    return (
        _dashboard("proctor-cost", "Proctor: cost")
        .with_row(Row("What an answer costs"))
        .with_panel(
            series(
                "Cost per answer, p50",
                "Requests that were answered in full.",
                "short",
                (quantile(0.5, ANSWER_COST, "tier"), "{{tier}}"),
            )
        )
        .with_panel(
            series(
                "Cost per answer, p95",
                "Requests that were answered in full.",
                "short",
                (quantile(0.95, ANSWER_COST, "tier"), "{{tier}}"),
            )
        )
        .with_panel(
            sql_table(
                "Cost per correct answer, by tier",
                "Of answers that feedback was given for: what they cost together, for each "
                "right one.",
                "short",
                f"""
                SELECT tier, currency, count(*) AS graded, avg(score) AS "share right",
                  sum({TOTAL}) / nullif(sum(score), 0) AS "cost per correct answer"
                FROM requests
                WHERE $__timeFilter(time) AND score IS NOT NULL AND currency IS NOT NULL
                GROUP BY tier, currency ORDER BY tier, currency
                """,
            )
        )
        .with_panel(
            sql_series(
                "Cost per correct answer, by day",
                "Days in UTC.",
                "short",
                f"""
                SELECT $__timeGroupAlias(time, '24h'), tier AS metric,
                  (sum({TOTAL}) / nullif(sum(score), 0))::double precision AS value
                FROM requests
                WHERE $__timeFilter(time) AND score IS NOT NULL AND currency IS NOT NULL
                GROUP BY 1, 2 ORDER BY 1
                """,
            )
        )
        .with_row(Row("What is spent"))
        .with_panel(
            number("Spent", "In the whole range.", "short", f"sum(increase({COST}[$__range]))")
        )
        .with_panel(
            number(
                "For thinking",
                "Share of what was spent.",
                "percentunit",
                f'sum(increase({COST}{{part="thinking"}}[$__range])) '
                f"/ sum(increase({COST}[$__range]))",
            )
        )
        .with_panel(
            series(
                "Spend an hour, by part",
                "Broken-off requests too.",
                "short",
                (f"3600 * {rate(COST, 'part')}", "{{part}}"),
            )
        )
        .with_panel(
            series(
                "Spend an hour, by tier",
                "Broken-off requests too.",
                "short",
                (f"3600 * {rate(COST, 'tier')}", "{{tier}}"),
            )
        )
        .with_panel(
            series(
                "Spend an hour, by key",
                "Broken-off requests too; those without a key have no name.",
                "short",
                (f"3600 * {rate(COST, 'key')}", "{{key}}"),
            )
        )
        .with_panel(
            sql_table(
                "Spend, by key and part",
                "Out of the ledger, dearest first.",
                "short",
                f"""
                SELECT coalesce(key, 'nobody') AS key, currency, count(*) AS requests,
                  sum(cost_prompt) AS prompt, sum(cost_thinking) AS thinking,
                  sum(cost_answer) AS answer, sum({TOTAL}) AS total
                FROM requests WHERE $__timeFilter(time) AND currency IS NOT NULL
                GROUP BY 1, 2 ORDER BY total DESC
                """,
                width=24,
            )
        )
    )


def thinking() -> Dashboard:
    """How much is thought, and why it ends."""
    cap = "max by (tier) (proctor_tier_max_thinking_tokens < +Inf)"
    tokens = "proctor_thinking_tokens"
    generated = f"({rate(f'{tokens}_sum')} + {rate('proctor_answer_tokens_sum')})"
    return (
        _dashboard("proctor-thinking", "Proctor: thinking")
        .with_row(Row("How much"))
        .with_panel(
            series(
                "Thinking tokens, p95, and the caps",
                "Of a choice. A tier without a cap has no line of one.",
                "short",
                (quantile(0.95, tokens, "tier"), "{{tier}}"),
                (cap, "{{tier}}, cap"),
            )
        )
        .with_panel(
            series(
                "Mean thinking, as a share of the cap",
                "Near 1: the cap is what ends the thinking. Near 0: it is never needed.",
                "percentunit",
                (
                    f"{rate(f'{tokens}_sum', 'tier')} / {rate(f'{tokens}_count', 'tier')} "
                    f"/ ({cap} > 0)",
                    "{{tier}}",
                ),
            )
        )
        .with_panel(
            heat(
                "Thinking tokens",
                "Of all tiers' choices.",
                "short",
                f"sum by (le) (increase({tokens}_bucket[{RATE}]))",
            )
        )
        .with_panel(
            series(
                "Answer tokens, p50",
                "Of a choice.",
                "short",
                (quantile(0.5, "proctor_answer_tokens", "tier"), "{{tier}}"),
            )
        )
        .with_row(Row("Why it ends"))
        .with_panel(
            series(
                "End reasons",
                "Choices a second.",
                "cps",
                (rate(THOUGHT, "end_reason"), "{{end_reason}}"),
            )
        )
        .with_panel(
            series(
                "Cap hits, by tier",
                "Share of the thinkings that the cap ended.",
                "percentunit",
                (
                    share(
                        f'{THOUGHT}{{end_reason="max"}}',
                        f'{THOUGHT}{{end_reason!="disabled"}}',
                        "tier",
                    ),
                    "{{tier}}",
                ),
            )
        )
        .with_panel(
            series(
                "Loops",
                "Thinkings a second that were found to repeat themselves.",
                "cps",
                (rate("proctor_loops_total", "action"), "{{action}}"),
            )
        )
        .with_panel(
            series(
                "Continuations a choice",
                "Attempts to close that were turned down.",
                "short",
                (
                    f"{rate('proctor_continuations_total', 'tier')} "
                    f"/ {rate('proctor_answer_tokens_count', 'tier')}",
                    "{{tier}}",
                ),
            )
        )
        .with_panel(
            series(
                "Forced tokens",
                "Tokens that the server chose, for each one of thinking and answer.",
                "percentunit",
                (
                    f"{rate('proctor_forced_tokens_total', 'kind')} "
                    f"/ ignoring (kind) group_left () {generated}",
                    "{{kind}}",
                ),
            )
        )
        .with_panel(
            series(
                "Budgets that were cut",
                "Share of the requests that were let in.",
                "percentunit",
                (f"{rate('proctor_budget_clamped_total')} / {rate('proctor_routed_total')}", "cut"),
            )
        )
        .with_row(Row("Who decides"))
        .with_panel(
            series(
                "The router's decisions",
                "Requests a second.",
                "reqps",
                (rate('proctor_routed_total{source="router"}', "tier"), "{{tier}}"),
            )
        )
        .with_panel(
            series(
                "What decided",
                "Requests a second.",
                "reqps",
                (rate("proctor_routed_total", "source"), "{{source}}"),
            )
        )
    )


def serving() -> Dashboard:
    """How fast and how reliably it serves, and the engine below."""
    return (
        _dashboard("proctor-serving", "Proctor: serving")
        .with_row(Row("Traffic"))
        .with_panel(
            series(
                "Requests",
                "A second, by status; 499 is a client that went away.",
                "reqps",
                (rate("proctor_requests_total", "status"), "{{status}}"),
            )
        )
        .with_panel(
            series(
                "Failed requests",
                "Share with a status of 500 and above; more than 0.5% in a month is too much.",
                "percentunit",
                ("proctor:errors:ratio_rate5m", "{{job}}, 5 minutes"),
                ("proctor:errors:ratio_rate6h", "{{job}}, 6 hours"),
            )
        )
        .with_panel(
            series(
                "Time to first reasoning",
                "From the request.",
                "s",
                *quantiles("proctor_time_to_first_reasoning_seconds"),
            )
        )
        .with_panel(
            series(
                "Time to first answer",
                "From the request; the thinking comes before it.",
                "s",
                *quantiles("proctor_time_to_first_answer_seconds"),
            )
        )
        .with_panel(
            series(
                "Request time, p95",
                "From first byte to last.",
                "s",
                (quantile(0.95, "proctor_request_seconds", "tier"), "{{tier}}"),
            )
        )
        .with_panel(
            series(
                "Refused",
                "Requests a second, by reason.",
                "reqps",
                (rate("proctor_rejected_total", "reason"), "{{reason}}"),
            )
        )
        .with_row(Row("Line and ledger"))
        .with_panel(
            series(
                "Load",
                "Requests, and choices in the engine.",
                "short",
                ("sum(proctor_in_flight)", "requests in flight"),
                ("sum(proctor_waiting)", "requests in line"),
                ("sum(proctor_running)", "choices in the engine"),
            )
        )
        .with_panel(
            series("Time in line", "Of a request.", "s", *quantiles("proctor_queue_seconds"))
        )
        .with_panel(
            series(
                "Rows of the ledger",
                "A second, by what became of them. Only written ones are well.",
                "cps",
                (rate("proctor_ledger_rows_total", "fate"), "{{fate}}"),
            )
        )
        .with_panel(
            series(
                "Rows that wait",
                "For the ledger's database.",
                "short",
                ("sum(proctor_ledger_waiting)", "rows"),
            )
        )
        .with_row(Row("Engine"))
        .with_panel(
            series(
                "Up",
                "1: the engine can answer.",
                "short",
                ("min by (job, instance) (proctor_engine_up)", "{{instance}}"),
                ("sum by (instance) (proctor_engine_starts_total)", "{{instance}}, starts"),
            )
        )
        .with_panel(
            series(
                "Memory of the server's process",
                "The engine's own processes are not in it.",
                "bytes",
                ('process_resident_memory_bytes{job="proctor"}', "{{instance}}"),
            )
        )
        .with_panel(
            series(
                "Requests in vLLM",
                "Those that wait should wait in front of it; see limits.max_running.",
                "short",
                ("sum(vllm:num_requests_running)", "running"),
                ("sum(vllm:num_requests_waiting)", "waiting"),
            )
        )
        .with_panel(
            series(
                "Tokens",
                "A second.",
                "short",
                (rate("vllm:prompt_tokens_total"), "prompt"),
                (rate("vllm:generation_tokens_total"), "generated"),
            )
        )
        .with_panel(
            series(
                "Cache",
                "How full, and how much of the prompts was found in it.",
                "percentunit",
                ("max(vllm:kv_cache_usage_perc)", "full"),
                (
                    f"{rate('vllm:prefix_cache_hits_total')} "
                    f"/ {rate('vllm:prefix_cache_queries_total')}",
                    "found",
                ),
            )
        )
        .with_panel(
            series(
                "Preemptions",
                "A second. Many: the cache is too small for max_num_seqs.",
                "cps",
                (rate("vllm:num_preemptions_total"), "preemptions"),
            )
        )
        .with_panel(
            series(
                "Time between tokens",
                "Of a choice, in vLLM.",
                "s",
                *quantiles("vllm:inter_token_latency_seconds"),
            )
        )
    )


def files() -> dict[str, str]:
    """The text of each dashboard's file, by its name."""
    built = [make().build() for make in (cost, thinking, serving)]
    for dashboard in built:
        for place, panel in enumerate(dashboard.panels or [], 1):
            panel.id_val = place
    return {
        f"{dashboard.uid}.json": JSONEncoder(sort_keys=True, indent=2).encode(dashboard) + "\n"
        for dashboard in built
    }


def _dashboard(uid: str, title: str) -> Dashboard:
    dashboard = Dashboard(title).uid(uid).tags(["proctor"]).readonly()
    dashboard.time("now-6h", "now").refresh("30s").timezone("browser")
    currency = TextBoxVariable("currency").label("Currency").default_value("usd")
    currency.current(VariableOption(text="usd", value="usd"))
    return dashboard.with_variable(currency) if uid == "proctor-cost" else dashboard


def main() -> None:
    for name, text in files().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
