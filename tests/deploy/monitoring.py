"""The queries of the shipped dashboards, and the shipped Prometheus rules."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
RULES = DEPLOY / "prometheus" / "rules" / "proctor.yml"
WINDOW = "10m"
"""Replaces Grafana's interval variables."""
COMPARISON = re.compile(r" (==|!=|>=|<=|>|<) ")
LABEL = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Attributes:
        panel: the names of the dashboard and of the panel.
        kind: the type of the data source.
        text: the expression or SQL, with Grafana's variables replaced.
        labels: the labels that the legend uses.
    """

    panel: str
    kind: str
    text: str
    labels: frozenset[str]

    @property
    def of_vllm(self) -> bool:
        return "vllm:" in self.text


def queries() -> list[Query]:
    """Return the queries of every panel of every dashboard."""
    return [
        _query(file.stem, panel, target)
        for file in DASHBOARDS
        for panel in json.loads(file.read_text())["panels"]
        for target in panel.get("targets", ())
    ]


def rules() -> list[dict[str, Any]]:
    """Return all recording and alerting rules."""
    return [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def with_bool_modifier(expression: str) -> str:
    """Return an alert's expression whose comparisons give 0 or 1 instead of filtering."""
    return COMPARISON.sub(r" \1 bool ", expression)


def _query(dashboard: str, panel: dict[str, Any], target: dict[str, Any]) -> Query:
    kind, name = target["datasource"]["type"], f"{dashboard}: {panel['title']}"
    if kind != "prometheus":
        return Query(name, kind, _sql(target["rawSql"]), frozenset())
    text = re.sub(r"\$__(rate_interval|range)", WINDOW, target["expr"])
    labels = frozenset(LABEL.findall(target.get("legendFormat", "")))
    return Query(name, kind, text.replace("${currency}", "usd"), labels)


def _sql(text: str) -> str:
    """Expand macros as Grafana's PostgreSQL data source does."""
    text = text.replace("$__interval", "1h")
    text = text.replace(
        "$__timeFilter(time)", "time BETWEEN now() - interval '1 day' AND now() + interval '1 day'"
    )
    seconds = {"1h": 3600, "24h": 86400}
    return re.sub(
        r"\$__timeGroupAlias\(time, '?(\w+)'?\)",
        lambda found: _group(seconds[found[1]]),
        text,
    )


def _group(seconds: int) -> str:
    return f'floor(extract(epoch from time)/{seconds})*{seconds} AS "time"'
