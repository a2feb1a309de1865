"""The kinds of panels in the dashboards.

Panels on Prometheus take PromQL, panels on the ledger take SQL.
"""

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders.common import ReduceDataOptions, VizLegendOptions
from grafana_foundation_sdk.builders.heatmap import Panel as Heatmap
from grafana_foundation_sdk.builders.prometheus import Dataquery as PromQuery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as Timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS = DataSourceRef(type_val="prometheus", uid="prometheus")
LEDGER = DataSourceRef(type_val="grafana-postgresql-datasource", uid="ledger")
HEIGHT = 8
"""Height of all panels, in rows of Grafana's grid."""

Query = tuple[str, str]
"""PromQL, and the legend as a template of the labels."""


class Sql(Dataquery, Builder[Dataquery]):
    """A query on the ledger; the SDK has no type for PostgreSQL."""

    def __init__(self, text: str, result_format: str) -> None:
        """Create a query.

        Args:
            text: SQL, which may use Grafana's macros.
            result_format: `table` or `time_series`.
        """
        self._text = " ".join(text.split())
        self._result_format = result_format

    def build(self) -> Dataquery:
        return self

    def dataquery_type(self) -> str:
        return str(LEDGER.type_val)

    def to_json(self) -> dict[str, Any]:
        """Return the query in Grafana's format."""
        return {
            "refId": "A",
            "datasource": LEDGER,
            "editorMode": "code",
            "format": self._result_format,
            "rawQuery": True,
            "rawSql": self._text,
        }


def series(title: str, description: str, unit: str, *queries: Query, width: int = 12) -> Timeseries:
    """Return a time series panel on Prometheus."""
    panel = _lines(title, description, unit, width).datasource(PROMETHEUS)
    for target in _targets(queries):
        panel.with_target(target)
    return panel


def sql_series(title: str, description: str, unit: str, sql: str, width: int = 12) -> Timeseries:
    """Return a time series panel on the ledger."""
    panel = _lines(title, description, unit, width).datasource(LEDGER)
    return panel.with_target(Sql(sql, "time_series"))


def sql_table(title: str, description: str, unit: str, sql: str, width: int = 12) -> Table:
    """Return a table panel on the ledger."""
    panel = Table().title(title).description(description).unit(unit).span(width).height(HEIGHT)
    return panel.datasource(LEDGER).with_target(Sql(sql, "table"))


def number(title: str, description: str, unit: str, query: str, width: int = 6) -> Stat:
    """Return a panel with one number for the selected time range."""
    target = PromQuery().expr(query).instant().ref_id("A").datasource(PROMETHEUS)
    panel = Stat().title(title).description(description).unit(unit).span(width).height(HEIGHT)
    last = ReduceDataOptions().calcs(["lastNotNull"])
    return panel.datasource(PROMETHEUS).reduce_options(last).with_target(target)


def heat(title: str, description: str, unit: str, query: str, width: int = 12) -> Heatmap:
    """Return a heatmap of a histogram over time."""
    target = PromQuery().expr(query).legend_format("{{le}}").format(PromQueryFormat.HEATMAP)
    panel = Heatmap().title(title).description(description).unit(unit).span(width).height(HEIGHT)
    target.ref_id("A").range().datasource(PROMETHEUS)
    return panel.datasource(PROMETHEUS).with_target(target)


def _lines(title: str, description: str, unit: str, width: int) -> Timeseries:
    panel = Timeseries().title(title).description(description).unit(unit).span(width).height(HEIGHT)
    legend = VizLegendOptions().display_mode(LegendDisplayMode.LIST)
    legend.placement(LegendPlacement.BOTTOM).show_legend(True)
    return panel.min(0).fill_opacity(8).legend(legend)


def _targets(queries: Sequence[Query]) -> list[PromQuery]:
    return [
        PromQuery()
        .expr(query)
        .legend_format(legend)
        .ref_id(chr(ord("A") + index))
        .range()
        .exemplar("_bucket" in query)
        .datasource(PROMETHEUS)
        for index, (query, legend) in enumerate(queries)
    ]
