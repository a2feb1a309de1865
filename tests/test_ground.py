"""The README, the lists of packages and the container files are consistent."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
FORBIDDEN = {"torchvision", "torchaudio", "torchcodec"}
LOCKS = sorted(f"requirements/{path.name}" for path in (ROOT / "requirements").glob("*.txt"))


def read(name: str) -> str:
    return (ROOT / name).read_text()


def locked(name: str) -> dict[str, list[str]]:
    """Return the hashes of each requirement in a file."""
    lines = read(name).replace("\\\n", "").splitlines()
    listed = [line.split(" --hash=") for line in lines if line and not line.startswith("#")]
    return {pin.strip(): [each.strip() for each in hashes] for pin, *hashes in listed}


def pins(name: str) -> dict[str, Requirement]:
    return {canonicalize_name(found.name): found for found in map(Requirement, locked(name))}


@pytest.fixture
def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(read("pyproject.toml"))["project"]
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_and_none_breaks_the_engine(name: str) -> None:
    listed = pins(name)
    assert not FORBIDDEN & set(listed)
    assert "torch" not in listed, "torch is installed separately, as its CPU build"
    for requirement in listed.values():
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_has_hashes_and_none_is_installed_without(name: str) -> None:
    for pin, hashes in locked(name).items():
        assert hashes, pin
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), pin
    commands = (read("Makefile") + read("Dockerfile")).replace("\\\n", "").splitlines()
    installing = [line for line in commands if f"--requirement {name}" in line]
    assert installing
    assert all("--require-hashes" in line for line in installing), installing


@pytest.mark.parametrize("folder", ["clients/agents", "clients/js", "deploy/crds"])
def test_every_npm_package_has_a_hash(folder: str) -> None:
    packages = json.loads(read(f"tests/{folder}/package-lock.json"))["packages"]
    assert all("integrity" in package for name, package in packages.items() if name)


def test_pins_fit_the_ranges_of_the_project(project: dict[str, Any]) -> None:
    engine = pins("requirements/engine-cpu.txt")
    everything = engine | pins("requirements/dev.txt")
    extras = project["optional-dependencies"]
    groups = tomllib.loads(read("pyproject.toml"))["dependency-groups"]
    for texts, listed in [
        (project["dependencies"] + extras["engine-cpu"], engine),
        (extras["dev"], everything),
        (extras["train"], everything | pins("requirements/train.txt")),
        (groups["clients"], pins("requirements/clients.txt")),
        (groups["agents-sdk"], pins("requirements/agents-sdk.txt")),
        (groups["interpreter"], pins("requirements/interpreter.txt")),
        (groups["real-model"], pins("requirements/real-model.txt")),
        (groups["charts"], pins("requirements/charts.txt")),
    ]:
        for requirement in map(Requirement, texts):
            (pin,) = listed[canonicalize_name(requirement.name)].specifier
            assert requirement.specifier.contains(pin.version), requirement


def test_the_docs_name_the_tested_versions_of_the_clients() -> None:
    clients = pins("requirements/clients.txt")
    named = ("langchain-deepseek", "langchain-openai", "litellm", "lm-eval", "schemathesis")
    engine = pins("requirements/engine-cpu.txt")
    tested = [clients[name] for name in named] + [engine["anthropic"], engine["openai"]]
    tested += [pins("requirements/agents-sdk.txt")["openai-agents"]]
    versions = [str(requirement.specifier).removeprefix("==") for requirement in tested]
    for folder, untested in (("agents", set()), ("js", {"zod"})):
        manifest = json.loads(read(f"tests/clients/{folder}/package.json"))
        packages = manifest["dependencies"] | manifest.get("optionalDependencies", {})
        versions += [version for name, version in packages.items() if name not in untested]
    section, _ = read("docs/reference/compatibility.md").split("## Fields")
    assert not [version for version in versions if version not in section]


def test_torch_is_the_same_everywhere() -> None:
    found = set(re.findall(r"(?:TORCH := |torch==)(\d[\d.]*\d)", read("Makefile")))
    found |= set(re.findall(r"torch==(\d[\d.]*\d)", read("Dockerfile")))
    assert len(found) == 1, found


def test_vllm_is_the_same_everywhere(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    found = {text.partition("==")[2] for text in extras["engine-cpu"]}
    found |= set(re.findall(r"vllm/vllm-openai:v([\d.]+)", read("Dockerfile")))
    assert len(found) == 1, found
    (gpu,) = map(Requirement, extras["engine-gpu"])
    assert found <= {*gpu.specifier.filter(found)}


def test_readme_commands_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    text = read("README.md") + read("CONTRIBUTING.md")
    used = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
    assert {"serve", "test"} <= used <= targets


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_images_run_without_root_and_have_a_health_check(target: str) -> None:
    (stage,) = re.findall(
        rf"^FROM \S+ AS {target}\n(.*?)(?=^FROM |\Z)", read("Dockerfile"), re.DOTALL | re.MULTILINE
    )
    assert "USER 10001" in stage
    assert "HEALTHCHECK" in stage
    assert "PROCTOR_HOST=0.0.0.0" in stage


def test_folders_of_the_distribution_are_in_the_images() -> None:
    folders = [link.name for link in (ROOT / "src" / "proctor").iterdir()]
    assert len(folders) == 8
    for folder in [*folders, "src"]:
        assert read("Dockerfile").count(f"COPY {folder} {folder}\n") == 2
        assert f"!{folder}\n" in read(".dockerignore")
