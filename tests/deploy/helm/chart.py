"""Renders the chart with Helm."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.requirements import require

CHART = Path(__file__).parents[3] / "deploy" / "helm" / "proctor"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
CHARTS = Path(sys.prefix) / "charts"
"""Made by `make .venv/charts/.made`."""

RELEASE = "prod"
NAMESPACE = "models"
NAME = "prod-proctor"

Object = dict[str, Any]


class UniqueKeyLoader(yaml.SafeLoader):  # type: ignore[misc]
    """Rejects mappings in which a key occurs twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len({*keys}) == len(keys), f"duplicate key in {keys}{node.start_mark}"
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def helm(*arguments: str, values: Mapping[str, Any]) -> "subprocess.CompletedProcess[str]":
    """Run a command of Helm on the chart; skip the test if Helm is not installed."""
    program = CHARTS / "helm"
    require(program.exists(), "Helm (`make .venv/charts/.made` installs it)")
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "values.json"
        file.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
        return subprocess.run(
            [program, *arguments, "--namespace", NAMESPACE, "--values", file],
            env={"PATH": os.defpath, "HOME": home},
            capture_output=True,
            text=True,
            check=False,
        )


@cache
def _render(values: str, version: str) -> str:
    template = ["template", RELEASE, str(CHART), "--kube-version", version]
    done = helm(*template, values=json.loads(values))
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(values: Mapping[str, Any], version: str = "1.34.0") -> list[Object]:
    """Return the manifests for values, on a version of Kubernetes."""
    text = _render(json.dumps(values), version)
    return [document for document in yaml.load_all(text, UniqueKeyLoader) if document]


def refusal(values: Mapping[str, Any]) -> str:
    """Return why Helm does not render the chart."""
    done = helm("template", RELEASE, str(CHART), values=values)
    assert done.returncode != 0
    return done.stderr


def find(objects: list[Object], kind: str, name: str = NAME) -> Object:
    """Return the only object of a kind with a name."""
    (found,) = (item for item in objects if _is(item, kind, name))
    return found


def has(objects: list[Object], kind: str, name: str = NAME) -> bool:
    """Return whether there is an object of a kind with a name."""
    return any(_is(item, kind, name) for item in objects)


def container_of(workload: Object) -> Object:
    """Return the only container of a Deployment or Job."""
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    found: Object = container
    return found


def _is(item: Object, kind: str, name: str) -> bool:
    return bool(item["kind"] == kind and item["metadata"]["name"] == name)
