"""Panels in the few kinds that the dashboards are made of.

A panel that reads Prometheus is given PromQL, one that reads the ledger SQL.
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
"""Rows of Grafana's grid."""

Query = tuple[str, str]
"""PromQL, and the name of each series in terms of its labels."""


class Sql(Dataquery, Builder[Dataquery]):
    """A query of the ledger; the library has none for PostgreSQL."""

    def __init__(self, text: str, form: str) -> None:
        """Make one.

        Args:
            text: with Grafana's macros.
            form: `table` or `time_series`.
        """
        self._text = " ".join(text.split())
        self._form = form

    def build(self) -> Dataquery:
        """See `Builder`."""
        return self

    def dataquery_type(self) -> str:
        """See `Dataquery`."""
        return str(LEDGER.type_val)

    def to_json(self) -> dict[str, Any]:
        """As Grafana stores it."""
        return {
            "refId": "A",
            "datasource": LEDGER,
            "editorMode": "code",
            "format": self._form,
            "rawQuery": True,
            "rawSql": self._text,
        }


def series(title: str, about: str, unit: str, *queries: Query, width: int = 12) -> Timeseries:
    """Lines over time."""
    panel = _lines(title, about, unit, width).datasource(PROMETHEUS)
    for target in _targets(queries):
        panel.with_target(target)
    return panel


def sql_series(title: str, about: str, unit: str, sql: str, width: int = 12) -> Timeseries:
    """Lines over time, out of the ledger."""
    panel = _lines(title, about, unit, width).datasource(LEDGER)
    return panel.with_target(Sql(sql, "time_series"))


def sql_table(title: str, about: str, unit: str, sql: str, width: int = 12) -> Table:
    """A table out of the ledger."""
    panel = Table().title(title).description(about).unit(unit).span(width).height(HEIGHT)
    return panel.datasource(LEDGER).with_target(Sql(sql, "table"))


def number(title: str, about: str, unit: str, query: str, width: int = 6) -> Stat:
    """One number for the whole range."""
    target = PromQuery().expr(query).instant().ref_id("A").datasource(PROMETHEUS)
    panel = Stat().title(title).description(about).unit(unit).span(width).height(HEIGHT)
    last = ReduceDataOptions().calcs(["lastNotNull"])
    return panel.datasource(PROMETHEUS).reduce_options(last).with_target(target)


def heat(title: str, about: str, unit: str, query: str, width: int = 12) -> Heatmap:
    """A histogram over time."""
    target = PromQuery().expr(query).legend_format("{{le}}").format(PromQueryFormat.HEATMAP)
    panel = Heatmap().title(title).description(about).unit(unit).span(width).height(HEIGHT)
    target.ref_id("A").range().datasource(PROMETHEUS)
    return panel.datasource(PROMETHEUS).with_target(target)


def _lines(title: str, about: str, unit: str, width: int) -> Timeseries:
    panel = Timeseries().title(title).description(about).unit(unit).span(width).height(HEIGHT)
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
