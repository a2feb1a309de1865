"""`docker-compose.yml`, as far as it can be tested without a container engine."""

import asyncio
import json
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from proctor.server.config.settings import Settings
from proctor.server.engines.fake import FakeEngine
from tests.deploy.monitoring import DEPLOY
from tests.server.harness import running_server

ROOT = DEPLOY.parent
FILE = ROOT / "docker-compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
GATEWAYS = [name for name in SERVICES if name.startswith("proctor-")]
EXAMPLE = (ROOT / ".env.example").read_text()
PASSWORDS = ("POSTGRES_PASSWORD", "GRAFANA_DATABASE_PASSWORD", "GRAFANA_ADMIN_PASSWORD")


def test_it_follows_the_compose_specification() -> None:
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]

    done = subprocess.run([*checker, str(FILE)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


def test_no_secret_is_in_the_files() -> None:
    text = FILE.read_text()
    for name in PASSWORDS:
        assert f"${{{name}:?set it in .env}}" in text
        assert re.search(f"^{name}=$", EXAMPLE, re.MULTILINE)
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if "PASSWORD" in name or "TOKEN" in name:
                assert value is None or value.startswith("${"), name


def test_every_variable_is_in_the_env_example() -> None:
    variables = {*re.findall(r"\$\{(\w+)", FILE.read_text()), "COMPOSE_PROFILES"}
    for service in SERVICES.values():
        variables |= {
            name for name, value in service.get("environment", {}).items() if value is None
        }

    assert variables == {*re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=", EXAMPLE, re.MULTILINE)}


@pytest.mark.parametrize("name", GATEWAYS)
def test_environment_variables_of_gateways_are_settings(name: str) -> None:
    schema = Settings.model_json_schema()
    for variable in SERVICES[name]["environment"]:
        if variable.startswith("PROCTOR_"):
            table = schema
            for part in variable.removeprefix("PROCTOR_").lower().split("__"):
                assert part in table["properties"], variable
                section = re.search(r"#/\$defs/(\w+)", json.dumps(table["properties"][part]))
                table = schema["$defs"][section[1]] if section else {}


def test_each_profile_has_one_gateway_and_all_share_a_network_alias() -> None:
    profiles = [SERVICES[name]["profiles"] for name in GATEWAYS]

    assert profiles == [["cpu"], ["gpu"]]
    for name in GATEWAYS:
        assert SERVICES[name]["networks"]["default"]["aliases"] == ["proctor"]
        assert SERVICES[name]["environment"]["PROCTOR_AUTH__ADMIN_PORT"] == "9100"
    (scraped,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())[
        "scrape_configs"
    ]
    assert scraped["static_configs"] == [{"targets": ["proctor:9100"]}]


def test_data_sources_are_services() -> None:
    file = DEPLOY / "grafana" / "provisioning" / "datasources" / "proctor.yml"
    for source in yaml.safe_load(file.read_text())["datasources"]:
        host = source["url"].removeprefix("http://").partition(":")[0]
        assert host in SERVICES


@pytest.mark.parametrize("name", SERVICES)
def test_services_have_health_checks_pinned_images_and_local_ports(name: str) -> None:
    service = SERVICES[name]

    assert service["healthcheck"]["test"][0] == "CMD"
    assert re.fullmatch(r"[\w./-]+:(?!latest)[\w.-]+", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    for volume in service.get("volumes", ()):
        source = volume.partition(":")[0]
        if source.startswith("."):
            assert (ROOT / source).exists()
            assert volume.endswith(":ro")
        else:
            assert source in COMPOSE["volumes"]
    for other in service.get("depends_on", {}):
        assert "healthcheck" in SERVICES[other]
    if "build" in service:
        assert f" AS {service['build']['target']}\n" in (ROOT / "Dockerfile").read_text()


def _health_checks() -> list[Any]:
    """Return the health check commands of the gateways and of the images."""
    checks = [(name, SERVICES[name]["healthcheck"]["test"][1:]) for name in GATEWAYS]
    images = re.findall(r"^ +CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    checks += [(f"image {index}", yaml.safe_load(command)) for index, command in enumerate(images)]
    assert len(checks) == 4
    return [pytest.param(command, id=name) for name, command in checks]


async def _run_check(command: list[str], url: str) -> int:
    port = url.rpartition(":")[2]
    script = command[-1].replace("8000", port)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait()


@pytest.mark.parametrize("command", _health_checks())
async def test_a_health_check_works(command: list[str]) -> None:
    assert command[0].startswith("python")
    assert command[1] == "-c"
    async with running_server(FakeEngine()) as url:
        assert await _run_check(command, url) == 0

    assert await _run_check(command, url) != 0


@pytest.mark.parametrize("name", GATEWAYS)
async def test_a_gateway_without_its_engine_is_unhealthy(name: str) -> None:
    engine = FakeEngine()
    async with running_server(engine) as url:
        await engine.aclose()
        assert await _run_check(SERVICES[name]["healthcheck"]["test"][1:], url) != 0


def test_the_env_file_is_ignored_by_git_and_docker() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
    assert (ROOT / ".dockerignore").read_text().startswith("*\n")
