"""The shipped files of Prometheus and Grafana."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.grafana.make import FOLDER, files
from tests.deploy.monitoring import DEPLOY, RULES, alerts
from tests.deploy.prometheus import CONFIG, find_program

RULE_TESTS = DEPLOY / "prometheus" / "tests" / "proctor.yml"


@pytest.mark.parametrize(
    "command",
    [
        ("check", "config", CONFIG),
        ("check", "rules", "--lint=all", "--lint-fatal", RULES),
        ("test", "rules", RULE_TESTS),
    ],
    ids=["config", "rules", "tests of the rules"],
)
def test_promtool_accepts_the_configuration_and_the_rules(command: tuple[str | Path, ...]) -> None:
    done = subprocess.run(
        [find_program("promtool"), *map(str, command)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    tests = yaml.safe_load(RULE_TESTS.read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]

    assert {case["alertname"] for case in cases if case["exp_alerts"]} == {
        rule["alert"] for rule in alerts()
    }


def test_dashboards_are_up_to_date_with_their_script() -> None:
    """After a change of the script, run `python -m deploy.grafana.make`."""
    shipped = {file.name: file.read_text() for file in FOLDER.iterdir()}

    assert shipped == files()


def test_dashboards_name_data_sources_that_are_provisioned() -> None:
    file = DEPLOY / "grafana" / "provisioning" / "datasources" / "proctor.yml"
    known = {
        (source["type"], source["uid"])
        for source in yaml.safe_load(file.read_text())["datasources"]
    }

    panels = [panel for text in files().values() for panel in json.loads(text)["panels"]]
    for panel in panels:
        targets = panel.get("targets", [])
        named = {(target["datasource"]["type"], target["datasource"]["uid"]) for target in targets}
        assert named <= known
        assert len({target["refId"] for target in targets}) == len(targets)


def test_every_panel_has_a_unique_title_and_a_description() -> None:
    panels = [panel for text in files().values() for panel in json.loads(text)["panels"]]
    for panel in panels:
        assert panel["title"]
        assert panel["type"] == "row" or panel["description"]
    titles = [panel["title"] for panel in panels]
    assert len({*titles}) == len(titles)
