"""The versions of everything that a run's result can depend on."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from proctor.curation.storage import digest_of, digest_of_file

PACKAGES = (
    "proctor",
    "datasketch",
    "ftfy",
    "math-verify",
    "numpy",
    "pyarrow",
    "scikit-learn",
    "transformers",
)


@cache
def versions() -> dict[str, str]:
    """Return the versions of packages, Python and its Unicode data, and a digest of this package.

    The digest changes with the code between releases, so that results of older code are not
    taken for those of the present one.
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    folder = Path(__file__).parent.parent
    sources = sorted(folder.rglob("*.py"))
    code = digest_of((str(path.relative_to(folder)), digest_of_file(path)) for path in sources)
    return {**found, "code": code}
