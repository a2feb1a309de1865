"""Validates Kubernetes' objects and custom resources against their published schemas."""

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.clients.client_process import BIN
from tests.deploy.helm.chart import CHARTS, Object
from tests.requirements import require

SCHEMAS = CHARTS / "package" / "kubernetes_validate" / "kubernetes-json-schema"
CRDS = Path(__file__).parents[1] / "crds"
CUSTOM_GROUPS = ("gateway.networking.k8s.io", "keda.sh", "monitoring.coreos.com")


def problems(objects: list[Object], version: str) -> list[str]:
    """Return what the schemas of a version of Kubernetes, and those of CRDs, find wrong."""
    custom = [item for item in objects if item["apiVersion"].startswith(CUSTOM_GROUPS)]
    own = [item for item in objects if item not in custom]
    found = [problem for item in own for problem in _own_problems(item, version)]
    return found + (_custom_problems(custom) if custom else [])


def _own_problems(item: Object, version: str) -> list[str]:
    group, _, api = item["apiVersion"].rpartition("/")
    name = "-".join([item["kind"].lower(), *([group.partition(".")[0]] if group else []), api])
    validator = _validator(f"v{version}-local-strict", name)
    return [f"{item['kind']}{error.json_path}: {error.message}" for error in validator(item)]


@cache
def _validator(folder: str, name: str) -> Any:
    schema = json.loads((SCHEMAS / folder / f"{name}.json").read_text())
    registry: Registry[Any] = _definitions(folder).with_resource("", Resource.from_contents(schema))
    return Draft202012Validator(schema, registry=registry).iter_errors


@cache
def _definitions(folder: str) -> "Registry[Any]":
    definitions = json.loads((SCHEMAS / folder / "_definitions.json").read_text())
    return Resource.from_contents(definitions) @ Registry()


def _custom_problems(objects: list[Object]) -> list[str]:
    ready = (BIN / "node").exists() and (CRDS / "node_modules").exists()
    require(ready, "the schemas of custom resources (`make test` installs them)")
    done = subprocess.run(
        [BIN / "node", CRDS / "validate.js"],
        input=json.dumps(objects),
        capture_output=True,
        text=True,
        check=True,
    )
    return [
        f"{item['kind']}: {problem}"
        for item, found in zip(objects, json.loads(done.stdout), strict=True)
        for problem in found
    ]
