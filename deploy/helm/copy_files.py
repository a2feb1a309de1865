"""Copy the dashboards and the alerts into the chart: `python -m deploy.helm.copy_files`.

Helm packages no files outside the chart's folder.
"""

from pathlib import Path

DEPLOY = Path(__file__).resolve().parents[1]
FILES = DEPLOY / "helm" / "proctor" / "files"


def copies() -> dict[Path, Path]:
    """Return the files of the chart, and what each is a copy of."""
    dashboards = (DEPLOY / "grafana" / "dashboards").glob("*.json")
    return {
        FILES / "rules.yml": DEPLOY / "prometheus" / "rules" / "proctor.yml",
        **{FILES / "dashboards" / path.name: path for path in dashboards},
    }


def main() -> None:
    """Replace the copies."""
    for copy, original in copies().items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(original.read_bytes())


if __name__ == "__main__":
    main()
