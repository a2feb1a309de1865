"""Values that the chart refuses, with messages that name them, and its description of values."""

import json
import re
from typing import Any

import pytest
import yaml

from deploy.helm.copy_files import copies
from tests.deploy.helm.cases import BASE, Values
from tests.deploy.helm.chart import CHART, refusal
from tests.deploy.monitoring import RULES

DEFAULTS: Values = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gateway": {"replicas": "two"}}, "at '/gateway/replicas': got string, want integer"),
        ({"gateway": {"replicas": -1}}, "at '/gateway/replicas': minimum: got -1, want 0"),
        ({"gatway": {}}, "additional properties 'gatway' not allowed"),
        (
            {"engine": {"autoscalling": {}}},
            "at '/engine': additional properties 'autoscalling' not allowed",
        ),
        ({"model": {"name": ""}}, "at '/model/name': minLength"),
        ({"engine": {"tensorParallelSize": 0}}, "at '/engine/tensorParallelSize': minimum"),
        (
            {"engine": {"gpu": {"count": 0.5}}},
            "at '/engine/gpu/count': got number, want null or integer",
        ),
        ({"engine": {"cache": {"size": "big"}}}, "at '/engine/cache/size': 'big' does not match"),
        (
            {"engine": {"cache": {"accessModes": ["rwx"]}}},
            "at '/engine/cache/accessModes/0': value must be one of",
        ),
        ({"engine": {"args": {"--max-model-len": 1}}}, "'--max-model-len' does not match pattern"),
        ({"engine": {"urls": ["a:8000"]}}, "at '/engine/urls/0': 'a:8000' does not match pattern"),
        (
            {"engine": {"urls": ["http://a/v1"]}},
            "at '/engine/urls/0': 'http://a/v1' does not match",
        ),
        ({"engine": {"autoscaling": {"minReplicas": 0}}}, "minReplicas': minimum: got 0, want 1"),
        ({"ledger": {"url": "mysql://a"}}, "at '/ledger/url': 'mysql://a' does not match"),
        (
            {"gateway": {"podDisruptionBudget": {"maxUnavailable": "half"}}},
            "at '/gateway/podDisruptionBudget/maxUnavailable': 'half' does not match",
        ),
        (
            {"gateway": {"service": {"type": "External"}}},
            "at '/gateway/service/type': value must be one of",
        ),
        ({"gateway": {"env": {"A": "b"}}}, "at '/gateway/env': got object, want array"),
        (
            {"monitoring": {"monitors": {"interval": "often"}}},
            "at '/monitoring/monitors/interval': 'often' does not match",
        ),
    ],
    ids=str,
)
def test_the_schema_refuses(values: Values, message: str) -> None:
    assert message in refusal({**BASE, **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ledger": {}}, "set ledger.existingSecret to a Secret with the URL"),
        ({"gateway": {"settings": {"model": "x"}}}, "gateway.settings.model is set by the chart"),
        ({"gateway": {"settings": {"engine": {}}}}, "use engine.urls and engine.apiKey"),
        ({"engine": {"enabled": False}}, "engine.urls is empty"),
        ({"engine": {"args": {"port": 1}}}, "engine.args.port is set by the chart: leave it out"),
        (
            {"engine": {"args": {"shutdown-timeout": 1}}},
            "engine.args.shutdown-timeout is set by the chart",
        ),
        (
            {"engine": {"autoscaling": {"enabled": True}}},
            "engine.autoscaling.prometheusAddress is empty",
        ),
        ({"ingress": {"enabled": True}}, "ingress.hosts is empty"),
        ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs is empty"),
        (
            {"ledger": {"existingSecret": "a", "migration": {"enabled": True}}},
            "ledger.migration.existingSecret is empty",
        ),
    ],
    ids=str,
)
def test_values_that_contradict_each_other_are_refused(values: Values, message: str) -> None:
    assert message in refusal({**BASE, **values})


def test_the_schema_knows_all_values_and_no_others() -> None:
    def check(schema: dict[str, Any], values: Values, path: str) -> None:
        if schema.get("additionalProperties") is not False:
            return
        assert {*schema["properties"]} - {"global"} == {*values}, path
        for name, value in values.items():
            part = schema["properties"][name]
            if "$ref" in part:
                part = SCHEMA["definitions"][part["$ref"].rpartition("/")[2]]
            if isinstance(value, dict):
                check(part, value, f"{path}.{name}")

    check(SCHEMA, DEFAULTS, "values")


def test_dashboards_and_alerts_are_those_of_the_repository() -> None:
    """After a change of them, run `python -m deploy.helm.copy_files`."""
    for copy, original in copies().items():
        assert copy.read_bytes() == original.read_bytes(), copy
    shipped = {path for path in (CHART / "files").rglob("*") if path.is_file()}
    assert shipped == {*copies(), CHART / "files" / "drain.py"}


def test_alerts_are_about_the_job_that_the_monitors_set() -> None:
    jobs = {*re.findall(r'job="([^"]*)"', RULES.read_text())}

    assert jobs == {"proctor"}
    monitors = (CHART / "templates" / "monitoring" / "monitors.yaml").read_text()
    assert "replacement: proctor\n" in monitors


def test_the_version_of_the_chart_is_that_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (CHART.parents[2] / "pyproject.toml").read_text()

    assert f'\nversion = "{chart["appVersion"]}"\n' in project


def test_the_readme_names_every_top_level_value() -> None:
    readme = (CHART / "README.md").read_text()

    for name in DEFAULTS:
        assert re.search(rf"`{name}[`.]", readme), name
