"""The steps of the Dockerfile after the engine's, run in a clean folder with the copied files."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.monitoring import DEPLOY

ROOT = DEPLOY.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
STAGES = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.M | re.S))


def _copied(stage: str) -> list[str]:
    """Return the paths that a stage copies from the repository."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", STAGES[stage], re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def _run(*command: str, cwd: Path, packages: Path | None = None) -> str:
    env = {**os.environ, "PIP_NO_INDEX": "1", "PYTHONWARNINGS": "ignore"}
    env.pop("PYTHONPATH", None)
    if packages is not None:
        env["PYTHONPATH"] = str(packages)
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("stage", ["cpu-build", "cuda"])
def test_copied_files_are_not_ignored_by_docker(stage: str) -> None:
    allowed = (ROOT / ".dockerignore").read_text().split()

    for source in _copied(stage):
        assert f"!{source.partition('/')[0]}" in allowed


@pytest.mark.parametrize("stage", ["cpu-build", "cuda"])
def test_copied_files_suffice_to_install_and_run(stage: str, tmp_path: Path) -> None:
    source, target = tmp_path / "src", tmp_path / "packages"
    for name in _copied(stage):
        copy = source / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(ROOT / name, copy, ignore=ignored, symlinks=True)
        else:
            shutil.copy(ROOT / name, copy)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]

    _run(*pip, "--target", str(target), ".", cwd=source)

    names = {path.name.partition("-")[0] for path in target.iterdir()}
    assert names == {"bin", "proctor"}

    clean = tmp_path / "home"
    clean.mkdir()
    call = (
        "import proctor.server; from proctor.server.cli.main import main; "
        "print(proctor.server.__file__); main()"
    )
    proctor = [sys.executable, "-P", "-c", call]
    question = "Prove that there are infinitely many primes."
    output = _run(*proctor, "route", question, cwd=clean, packages=target)
    assert output.startswith(str(target))
    assert "tier" in output
    migrate = ["ledger", "migrate", "--url", f"sqlite:///{clean / 'ledger.db'}"]
    _run(*proctor, *migrate, cwd=clean, packages=target)
    assert (clean / "ledger.db").exists()
    for needed in ("demo/model/model.safetensors", "server/static/index.html", "demo/proctor.toml"):
        assert (target / "proctor" / needed).exists()


@pytest.mark.parametrize("stage", ["cpu", "cuda"])
def test_an_image_runs_as_an_unprivileged_user(stage: str) -> None:
    users = re.findall(r"^USER (\S+)$", STAGES[stage], re.MULTILINE)

    assert users == ["10001"]
    assert 'ENTRYPOINT ["proctor"]' in STAGES[stage]


def test_base_images_are_pinned() -> None:
    bases = re.findall(r"^FROM (\S+) AS", DOCKERFILE, re.MULTILINE)

    assert all(re.fullmatch(r"[\w/-]+:v?\d+\.\d+\.\d+[\w.-]*", base) for base in bases)
