"""`proctor router learn`."""

import json
from pathlib import Path

import numpy as np
import pytest

from proctor.router.outcomes.model import OutcomeModel
from proctor.server.cli.main import main
from tests.server.accounting.ledger.records import make_record
from tests.server.cli.test_ledger import fill

CONFIG = """
[router]
classifier = "rules"
error_cost = 300
"""


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a settings file, and make its folder the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "proctor.toml").write_text(CONFIG)
    return tmp_path / "proctor.toml"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Write a run over two kinds of questions: proofs need `high`, greetings need nothing."""
    generator = np.random.default_rng(0)
    questions: list[dict[str, str]] = []
    lines: list[dict[str, object]] = [{"protocol": {"template": "{question}"}}]
    for number in range(120):
        hard = number % 2 == 1
        text = f"Prove that {number} divides n! for n > {number}." if hard else f"hello {number}"
        questions.append({"id": str(number), "question": text})
        for tier, tokens in (("none", 0), ("low", 50), ("medium", 100), ("high", 200)):
            right = (tier == "high") if hard else True
            thinking = {"tier": tier, "tokens": tokens, "end_reason": "natural"}
            response = {
                "created": 1_700_000_000 + number,
                "choices": [{"finish_reason": "stop", "thinking": thinking}],
            }
            score = float(right ^ (generator.random() < 0.05))
            setting = {"kind": "tier", "value": tier}
            lines.append(
                {
                    "setting": setting,
                    "question": str(number),
                    "score": score,
                    "response": response,
                }
            )
    for name, rows in (("run.jsonl", lines), ("questions.jsonl", questions)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "run.jsonl", "questions.jsonl"


def test_a_model_and_its_report_are_written(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["router", "learn", "--eval", *files, "--out", "learned.npz"]) == 0
    report = capsys.readouterr().out
    assert "**To be used**" in report
    assert "| **routed** |" in report
    assert "| high | 120 | 120 |" in report
    assert Path("learned.md").read_text() == report
    assert OutcomeModel.load(Path("learned.npz")).rows.tolist() == [120] * 4
    assert sorted(path.name for path in Path().glob("*learned*")) == ["learned.md", "learned.npz"]


def test_a_learned_model_routes(
    files: tuple[str, str], config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(CONFIG + 'model = "learned.npz"\n')
    assert main(["router", "learn", "--eval", *files]) == 0
    capsys.readouterr()
    assert main(["route", "Prove that 7 divides n! for n > 6."]) == 0
    hard = capsys.readouterr().out
    assert main(["route", "hello 7"]) == 0
    easy = capsys.readouterr().out
    assert hard.startswith("tier      high (decided by the router)")
    assert easy.startswith("tier      none (decided by the router)")
    assert "rule      error_cost, a wrong answer costs 300 tokens" in easy
    assert "% right, 200 thinking tokens, cost 2" in hard


def test_a_model_below_the_floor_is_not_written_unless_forced(
    files: tuple[str, str], config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(CONFIG + "min_accuracy = 0.999\n")
    arguments = ["router", "learn", "--eval", *files, "--out", "learned.npz"]
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert "learned.npz was not written: its accuracy" in captured.err
    assert "**Not to be used**" in captured.out
    assert Path("learned.md").exists()
    assert not Path("learned.npz").exists()

    assert main([*arguments, "--force"]) == 0
    assert Path("learned.npz").exists()


def test_a_ledger_without_texts_has_nothing_to_learn_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    fill(url, [make_record(1, score=1.0)])
    assert main(["router", "learn", "--ledger", url]) == 2
    assert "There are no answers" in capsys.readouterr().err
    assert main(["router", "learn", "--ledger", f"sqlite:///{tmp_path / 'nowhere.db'}"]) == 2
    assert "There is no ledger" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "arguments", "reason"),
    [
        ("[router]\nclassifier = 'rules'\n", ["--ledger", "sqlite:///x.db"], "Set error_cost"),
        (CONFIG, [], "ledger.url: Must be set, or --ledger or --eval given"),
        ("[router]\nclassifier = 'x'\nerror_cost = 1\n", ["--ledger", "sqlite:///x.db"], "'x'"),
    ],
)
def test_settings_without_an_aim_or_a_source_are_refused(
    settings: str,
    arguments: list[str],
    reason: str,
    config: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config.write_text(settings)
    assert main(["router", "learn", *arguments]) == 2
    assert reason in capsys.readouterr().err
