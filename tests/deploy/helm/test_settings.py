"""The settings that the chart writes, as a gateway loads them."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proctor.server.config.engine import ReplicaSettings
from proctor.server.config.settings import Settings, load_settings
from tests.deploy.helm.cases import BASE, CASES, Values
from tests.deploy.helm.chart import NAME, container_of, find, render

SECRETS = {
    "PROCTOR_LEDGER__URL": "postgresql://proctor@db/proctor",
    "PROCTOR_ENGINE__API_KEY": "key of the replicas",
    "PROCTOR_ENGINE__CACHE_SALT": "salt",
}


def load(values: Values, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return the settings of the gateway's container."""
    objects = render(values)
    file = folder / "proctor.toml"
    file.write_text(find(objects, "ConfigMap")["data"]["proctor.toml"])
    container = container_of(find(objects, "Deployment"))
    (mount,) = (item for item in container["volumeMounts"] if item["name"] == "settings")
    for variable in container["env"]:
        name = variable["name"]
        if name == "PROCTOR_CONFIG":
            assert variable["value"] == f"{mount['mountPath']}/{file.name}"
        elif name.startswith("PROCTOR_"):
            monkeypatch.setenv(name, variable.get("value", SECRETS.get(name)))
    return load_settings({}, file)


NAMED = {name: values for name, values in CASES.items() if "names" not in name}


@pytest.mark.parametrize("values", NAMED.values(), ids=NAMED)
def test_a_gateway_accepts_its_settings(
    values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(values, tmp_path, monkeypatch)

    model = values.get("model", {})
    assert loaded.model == model.get("name", "Qwen/Qwen3-8B")
    assert loaded.model_name == model.get("servedName", loaded.model)
    assert not loaded.binds_to_loopback
    container = container_of(find(render(values), "Deployment"))
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": loaded.port, "metrics": loaded.auth.admin_port}
    assert loaded.auth.admin_host == loaded.host


def test_a_gateway_knows_its_replicas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replicas = load(BASE, tmp_path, monkeypatch).remote_engine

    assert isinstance(replicas, ReplicaSettings)
    service = find(render(BASE), "Service", f"{NAME}-engine")
    (port,) = service["spec"]["ports"]
    host = f"{service['metadata']['name']}.models.svc"
    assert replicas.urls == [f"http://{host}:{port['port']}"]
    assert replicas.api_key.get_secret_value() == SECRETS["PROCTOR_ENGINE__API_KEY"]
    assert replicas.cache_salt.get_secret_value() == SECRETS["PROCTOR_ENGINE__CACHE_SALT"]


def test_a_gateway_knows_replicas_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replicas = load(CASES["open replicas elsewhere"], tmp_path, monkeypatch).remote_engine

    assert replicas == ReplicaSettings(kind="vllm", urls=["http://a:8000"])


def test_a_router_can_stand_before_the_replicas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replicas = load(CASES["router"], tmp_path, monkeypatch).remote_engine

    assert isinstance(replicas, ReplicaSettings)
    assert replicas.urls == ["http://router-epp.models.svc:8081"]
    assert replicas.api_key.get_secret_value() == SECRETS["PROCTOR_ENGINE__API_KEY"]


def test_the_ledger_is_in_the_database_or_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = load(BASE, tmp_path, monkeypatch).ledger.url.get_secret_value()
    assert url == SECRETS["PROCTOR_LEDGER__URL"]

    assert not load(CASES["no keys"], tmp_path, monkeypatch).ledger.url.get_secret_value()


def test_settings_of_the_values_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {
        "default_tier": "custom",
        "budget": {"max_tokens": 20_000_000, "continuation_text": ['Wait, "really"?\n', "Hmm"]},
        "limits": {"shutdown_grace_seconds": 7, "max_body_bytes": 33_554_432},
        "auth": {"admin_host": "::"},
        "prices": {"prompt": 0.1, "thinking": 1.25, "answer": 3},
        "tiers": [
            {"name": name, "max_tokens": 4096, "session": {"max_requests": 10}}
            for name in ("none", "low", "medium", "high", "max")
        ],
    }

    loaded = load({**BASE, "gateway": {"settings": chosen}}, tmp_path, monkeypatch)

    assert loaded.default_tier == "custom"
    assert loaded.budget.max_tokens == 20_000_000
    assert loaded.budget.continuation_text == ('Wait, "really"?\n', "Hmm")
    assert loaded.limits.shutdown_grace_seconds == 7
    assert loaded.limits.max_body_bytes == 33_554_432
    assert (loaded.auth.admin_host, loaded.auth.admin_port) == ("::", 9100)
    assert loaded.prices is not None
    assert [str(loaded.prices.thinking), str(loaded.prices.answer)] == ["1.25", "3"]
    assert loaded.tiers[0].session.max_requests == 10


keys = st.text('ab-_."é ', min_size=1, max_size=4)
scalars = (
    st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(-1e6, 1e6).filter(lambda number: number == 0 or abs(number) > 1e-6)
    | st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=8)
)
tables = st.recursive(
    st.dictionaries(keys, scalars | st.lists(scalars, max_size=3), max_size=4),
    lambda inner: st.dictionaries(
        keys, inner | st.lists(inner, min_size=1, max_size=2) | scalars, max_size=4
    ),
    max_leaves=8,
)


@given(tables)
@settings(max_examples=25)
def test_settings_survive_the_way_through_toml(table: dict[str, Any]) -> None:
    objects = render({**BASE, "gateway": {"settings": {"zz": table}}})

    written = tomllib.loads(find(objects, "ConfigMap")["data"]["proctor.toml"])
    assert written.get("zz") == table
