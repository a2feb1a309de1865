"""What is shipped: the queries of the dashboards' panels, and the rules."""

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
"""In the place of Grafana's intervals."""
COMPARISON = re.compile(r" (==|!=|>=|<=|>|<) ")
LABEL = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Attributes:
        panel: its name.
        kind: the data source's type.
        text: what it asks, with Grafana's variables filled in.
        labels: those that the series' names are made of.
    """

    panel: str
    kind: str
    text: str
    labels: frozenset[str]

    @property
    def of_vllm(self) -> bool:
        return "vllm:" in self.text


def queries() -> list[Query]:
    """Those of every panel of every dashboard."""
    return [
        _query(file.stem, panel, target)
        for file in DASHBOARDS
        for panel in json.loads(file.read_text())["panels"]
        for target in panel.get("targets", ())
    ]


def rules() -> list[dict[str, Any]]:
    """Every rule."""
    return [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def always(expression: str) -> str:
    """An alert's expression that gives 0 where it gives nothing, as it compares."""
    return COMPARISON.sub(r" \1 bool ", expression)


def _query(dashboard: str, panel: dict[str, Any], target: dict[str, Any]) -> Query:
    kind, name = target["datasource"]["type"], f"{dashboard}: {panel['title']}"
    if kind != "prometheus":
        return Query(name, kind, _sql(target["rawSql"]), frozenset())
    text = re.sub(r"\$__(rate_interval|range)", WINDOW, target["expr"])
    labels = frozenset(LABEL.findall(target.get("legendFormat", "")))
    return Query(name, kind, text.replace("${currency}", "usd"), labels)


def _sql(text: str) -> str:
    """The macros as Grafana's PostgreSQL data source expands them."""
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
