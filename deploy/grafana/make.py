"""Generate the dashboards: `python -m deploy.grafana.make`, in the root of the repository."""

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
CHOICES = "proctor_thinking_tokens_count"
"""Counts choices; has the label `end_reason`."""


def quantile(share: float, metric: str, by: str = "") -> str:
    """Return a quantile of a histogram, over all servers."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket[{RATE}])))"


def quantiles(metric: str) -> tuple[Query, Query]:
    """Return the p50 and the p95 of a histogram."""
    return (quantile(0.5, metric), "p50"), (quantile(0.95, metric), "p95")


def rate(metric: str, by: str = "") -> str:
    """Return the rate per second of a counter, over all servers."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}[{RATE}]))"


def share(numerator: str, denominator: str, by: str) -> str:
    """Return the ratio of two rates; 0 if only the denominator has samples."""
    total = rate(denominator, by)
    return f"({rate(numerator, by)} or 0 * {total}) / {total}"


def cost() -> Dashboard:
    """Build the dashboard of cost per answer and of spend."""
    return (
        _dashboard("proctor-cost", "Proctor: cost")
        .with_row(Row("Cost per answer"))
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
                "Answers with feedback: their total cost divided by the number of correct ones.",
                "short",
                f"""
                SELECT tier, currency, count(*) AS graded, avg(score) AS "share correct",
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
                "Answers with feedback, by day in UTC.",
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
        .with_row(Row("Spend"))
        .with_panel(
            number(
                "Total spend",
                "In the selected time range.",
                "short",
                f"sum(increase({COST}[$__range]))",
            )
        )
        .with_panel(
            number(
                "Share of thinking",
                "Cost of thinking, as a share of the total spend.",
                "percentunit",
                f'sum(increase({COST}{{part="thinking"}}[$__range])) '
                f"/ sum(increase({COST}[$__range]))",
            )
        )
        .with_panel(
            series(
                "Spend per hour, by part",
                "Includes aborted requests.",
                "short",
                (f"3600 * {rate(COST, 'part')}", "{{part}}"),
            )
        )
        .with_panel(
            series(
                "Spend per hour, by tier",
                "Includes aborted requests.",
                "short",
                (f"3600 * {rate(COST, 'tier')}", "{{tier}}"),
            )
        )
        .with_panel(
            series(
                "Spend per hour, by key",
                "Includes aborted requests; requests without a key have no name.",
                "short",
                (f"3600 * {rate(COST, 'key')}", "{{key}}"),
            )
        )
        .with_panel(
            sql_table(
                "Spend, by key and part",
                "From the ledger, in descending order.",
                "short",
                f"""
                SELECT coalesce(key, 'no key') AS key, currency, count(*) AS requests,
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
    """Build the dashboard of the amount of thinking and of its ends."""
    cap = "max by (tier) (proctor_tier_max_thinking_tokens < +Inf)"
    tokens = "proctor_thinking_tokens"
    generated = f"({rate(f'{tokens}_sum')} + {rate('proctor_answer_tokens_sum')})"
    return (
        _dashboard("proctor-thinking", "Proctor: thinking")
        .with_row(Row("Amount of thinking"))
        .with_panel(
            series(
                "Thinking tokens, p95, and caps",
                "Per choice. Tiers without a cap have no cap line.",
                "short",
                (quantile(0.95, tokens, "tier"), "{{tier}}"),
                (cap, "{{tier}}, cap"),
            )
        )
        .with_panel(
            series(
                "Mean thinking, as a share of the cap",
                "Near 1: the cap usually ends the thinking. Near 0: the cap is rarely reached.",
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
                "Per choice, all tiers.",
                "short",
                f"sum by (le) (increase({tokens}_bucket[{RATE}]))",
            )
        )
        .with_panel(
            series(
                "Answer tokens, p50",
                "Per choice.",
                "short",
                (quantile(0.5, "proctor_answer_tokens", "tier"), "{{tier}}"),
            )
        )
        .with_row(Row("End of the thinking"))
        .with_panel(
            series(
                "End reasons",
                "Choices per second.",
                "cps",
                (rate(CHOICES, "end_reason"), "{{end_reason}}"),
            )
        )
        .with_panel(
            series(
                "Cap hits, by tier",
                "Share of choices with thinking that the cap ended.",
                "percentunit",
                (
                    share(
                        f'{CHOICES}{{end_reason="max"}}',
                        f'{CHOICES}{{end_reason!="disabled"}}',
                        "tier",
                    ),
                    "{{tier}}",
                ),
            )
        )
        .with_panel(
            series(
                "Loops",
                "Loops detected per second, by action.",
                "cps",
                (rate("proctor_loops_total", "action"), "{{action}}"),
            )
        )
        .with_panel(
            series(
                "Continuations per choice",
                "Suppressed ends of thinking, per choice.",
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
                "Tokens chosen by the server, per generated token of thinking and answer.",
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
                "Clamped budgets",
                "Share of admitted requests.",
                "percentunit",
                (
                    f"{rate('proctor_budget_clamped_total')} / {rate('proctor_routed_total')}",
                    "clamped",
                ),
            )
        )
        .with_row(Row("Budget decisions"))
        .with_panel(
            series(
                "Router decisions",
                "Requests per second, by tier.",
                "reqps",
                (rate('proctor_routed_total{source="router"}', "tier"), "{{tier}}"),
            )
        )
        .with_panel(
            series(
                "Budget sources",
                "Requests per second, by the source of the budget.",
                "reqps",
                (rate("proctor_routed_total", "source"), "{{source}}"),
            )
        )
        .with_row(Row("Sessions"))
        .with_panel(
            series(
                "Session limits",
                "Requests per second that a limit of their session reduced or refused.",
                "reqps",
                (rate("proctor_session_reduced_total", "limit"), "{{limit}}, reduced"),
                (rate("proctor_session_refused_total", "limit"), "{{limit}}, refused"),
            )
        )
        .with_panel(
            series(
                "Active sessions",
                "Sessions with running requests.",
                "short",
                ("sum(proctor_active_sessions)", "sessions"),
            )
        )
        .with_panel(
            sql_table(
                "Sessions with the most thinking",
                "From the ledger.",
                "short",
                f"""
                SELECT session, coalesce(key, 'no key') AS key, count(*) AS requests,
                  sum(thinking_tokens) AS "thinking tokens",
                  sum(prompt_tokens + completion_tokens) AS tokens,
                  sum({TOTAL}) AS cost, max(time) AS "last request"
                FROM requests WHERE $__timeFilter(time) AND session IS NOT NULL
                GROUP BY 1, 2 ORDER BY 4 DESC LIMIT 50
                """,
                width=24,
            )
        )
    )


def serving() -> Dashboard:
    """Build the dashboard of latency, errors, queue, ledger and engine."""
    return (
        _dashboard("proctor-serving", "Proctor: serving")
        .with_row(Row("Traffic"))
        .with_panel(
            series(
                "Requests",
                "Per second, by status; 499: the client disconnected.",
                "reqps",
                (rate("proctor_requests_total", "status"), "{{status}}"),
            )
        )
        .with_panel(
            series(
                "Failed requests",
                "Share with a status of 500 or higher; the objective is at most 0.5% per month.",
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
                "From the request; includes the thinking.",
                "s",
                *quantiles("proctor_time_to_first_answer_seconds"),
            )
        )
        .with_panel(
            series(
                "Request time, p95",
                "From the request to the last byte.",
                "s",
                (quantile(0.95, "proctor_request_seconds", "tier"), "{{tier}}"),
            )
        )
        .with_panel(
            series(
                "Rejected requests",
                "Per second, by reason.",
                "reqps",
                (rate("proctor_rejected_total", "reason"), "{{reason}}"),
            )
        )
        .with_row(Row("Queue and ledger"))
        .with_panel(
            series(
                "Load",
                "Requests in the gateway and in its queue, choices in the engine.",
                "short",
                ("sum(proctor_in_flight)", "requests in flight"),
                ("sum(proctor_waiting)", "requests in the queue"),
                ("sum(proctor_running)", "choices in the engine"),
            )
        )
        .with_panel(
            series("Time in the queue", "Per request.", "s", *quantiles("proctor_queue_seconds"))
        )
        .with_panel(
            series(
                "Ledger rows",
                "Per second, by outcome; all but written ones are lost.",
                "cps",
                (rate("proctor_ledger_rows_total", "fate"), "{{fate}}"),
            )
        )
        .with_panel(
            series(
                "Waiting ledger rows",
                "Rows that wait to be written to the database.",
                "short",
                ("sum(proctor_ledger_waiting)", "rows"),
            )
        )
        .with_row(Row("Engine"))
        .with_panel(
            series(
                "Engine up",
                "1: the engine is ready.",
                "short",
                ("min by (job, instance) (proctor_engine_up)", "{{instance}}"),
                ("sum by (instance) (proctor_engine_starts_total)", "{{instance}}, starts"),
            )
        )
        .with_panel(
            series(
                "Memory of the gateway process",
                "Without the processes of the engine.",
                "bytes",
                ('process_resident_memory_bytes{job="proctor"}', "{{instance}}"),
            )
        )
        .with_panel(
            series(
                "Requests in vLLM",
                "Requests should wait in the gateway's queue, not in vLLM; see limits.max_running.",
                "short",
                ("sum(vllm:num_requests_running)", "running"),
                ("sum(vllm:num_requests_waiting)", "waiting"),
            )
        )
        .with_panel(
            series(
                "Tokens",
                "Per second.",
                "short",
                (rate("vllm:prompt_tokens_total"), "prompt"),
                (rate("vllm:generation_tokens_total"), "generated"),
            )
        )
        .with_panel(
            series(
                "KV cache",
                "Usage, and the hit rate of prompts.",
                "percentunit",
                ("max(vllm:kv_cache_usage_perc)", "usage"),
                (
                    f"{rate('vllm:prefix_cache_hits_total')} "
                    f"/ {rate('vllm:prefix_cache_queries_total')}",
                    "hit rate",
                ),
            )
        )
        .with_panel(
            series(
                "Preemptions",
                "Per second. If frequent, the KV cache is too small for max_num_seqs.",
                "cps",
                (rate("vllm:num_preemptions_total"), "preemptions"),
            )
        )
        .with_panel(
            series(
                "Inter-token latency",
                "Per choice, in vLLM.",
                "s",
                *quantiles("vllm:inter_token_latency_seconds"),
            )
        )
    )


def files() -> dict[str, str]:
    """Return the content of each dashboard's file, by name."""
    dashboards = [build().build() for build in (cost, thinking, serving)]
    for dashboard in dashboards:
        for panel_id, panel in enumerate(dashboard.panels or [], 1):
            panel.id_val = panel_id
    return {
        f"{dashboard.uid}.json": JSONEncoder(sort_keys=True, indent=2).encode(dashboard) + "\n"
        for dashboard in dashboards
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
