"""The first mistakes at the command line: one line that names what is wrong, and no traceback."""

import argparse
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from proctor.evaluation import client as evaluation_client
from proctor.server.cli import entry
from proctor.server.cli.main import _parser, main
from tests.server.harness import listening_socket
from tests.server.serve_process import serve_process
from tests.waiting import PATIENCE

MISTAKES: list[tuple[str, int, str]] = [
    # a missing file
    ("serve --config nowhere.toml", 2, "nowhere.toml: No such file or directory"),
    ("check-config --config nowhere.toml", 2, "nowhere.toml: No such file or directory"),
    ("route --config nowhere.toml hi", 2, "nowhere.toml: No such file or directory"),
    ("keys list --config nowhere.toml", 2, "nowhere.toml: No such file or directory"),
    ("router train nowhere.jsonl", 2, "nowhere.jsonl: No such file or directory"),
    ("router evaluate nowhere.jsonl", 2, "nowhere.jsonl: No such file or directory"),
    ("router calibrate --ledger nowhere.jsonl", 2, "nowhere.jsonl: No such file or directory"),
    ("eval report nowhere.jsonl", 1, "nowhere.jsonl cannot be read: No such file"),
    ("eval run nowhere.jsonl --budgets 0", 1, "there is no file and no task 'nowhere.jsonl'"),
    ("audit nowhere.jsonl", 1, "nowhere.jsonl does not exist"),
    ("curate run nowhere.toml", 1, "nowhere.toml cannot be read: No such file or directory"),
    ("train run nowhere.jsonl", 2, "the following arguments are required: --model"),
    ("ledger report --url sqlite:///nowhere.db", 1, "There is no ledger at nowhere.db"),
    ("sessions list --url sqlite:///nowhere.db", 1, "There is no ledger at nowhere.db"),
    # an empty file, and a folder in place of one
    ("router train empty.jsonl", 2, "empty.jsonl is empty"),
    ("router evaluate empty.jsonl", 2, "empty.jsonl is empty"),
    ("router calibrate --ledger empty.jsonl", 2, "empty.jsonl has no rows"),
    ("eval report empty.jsonl", 1, "empty.jsonl is empty: pass a file that"),
    ("eval run empty.jsonl --budgets 0", 1, "empty.jsonl: it has no questions"),
    ("eval run folder --budgets 0", 1, "Is a directory: 'folder'"),
    ("eval report folder", 1, "folder cannot be read: Is a directory"),
    ("serve --config folder", 2, "folder: Is a directory"),
    ("audit empty.jsonl", 1, "empty.jsonl has no rows"),
    ("audit folder", 1, "folder has no files that end in .jsonl"),
    ("curate run empty.jsonl", 1, "empty.jsonl: inputs: Field required"),
    ("curate measure folder", 1, "folder cannot be read: Is a directory"),
    ("train run nowhere.jsonl --model gpt", 1, "nowhere.jsonl does not exist"),
    ("train run empty.jsonl --model ./gpt", 1, "--model: there is no folder ./gpt"),
    ("train check ./gpt", 1, "gpt is no folder"),
    # values that cannot be meant
    ("ledger report --since yesterday", 2, "'yesterday' is not a day, like 2026-01-31"),
    ("ledger report --until 2026-02-30", 2, "'2026-02-30' is not a day"),
    ("ledger report --by month", 2, "'month' is not a comma-separated list of day, key, tier"),
    ("sessions list --count few", 2, "'few' is not a positive integer"),
    ("sessions list --count -3", 2, "'-3' is not a positive integer"),
    ("keys create one --tier bogus", 1, "Unknown tier 'bogus'"),
    ("eval run chains", 1, "pass --budgets, --continuations, --tiers or --efforts"),
    ("serve --engine foo", 2, "'foo' is not KEY=VALUE"),
    ("serve --port x", 2, "port: "),
    ("serve --model ./nowhere", 2, "model: There is no file or folder ./nowhere"),
    ("check-config --model /nowhere/at/all", 2, "model: There is no file or folder /nowhere"),
    ("serve --host localhost.invalid", 2, "host: The public address localhost.invalid requires"),
    # commands that do not exist
    ("sirve", 2, "invalid choice: 'sirve'"),
    ("ledger rapport", 2, "invalid choice: 'rapport'"),
]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROCTOR_LEDGER__URL", "sqlite:///ledger.db")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "folder").mkdir()
    # A starting server replaces them, and they must not outlast the test.
    monkeypatch.setattr("proctor.server.cli.terminal.signal.signal", lambda *_: None)
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")


def status_of(command: str) -> int:
    try:
        return main(command.split())
    except SystemExit as ended:  # argparse
        return int(str(ended.code))


@pytest.mark.parametrize(("command", "status", "named"), MISTAKES, ids=[row[0] for row in MISTAKES])
def test_a_mistake_is_told_in_one_line(
    command: str, status: int, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(command) == status
    complaint = capsys.readouterr().err
    assert named in complaint
    assert "Traceback" not in complaint
    # argparse shows the usage before its line.
    assert len(complaint.splitlines()) == 1 or complaint.startswith("usage: ")


def test_every_command_is_in_the_table() -> None:
    told = {command.split()[0] for command, _, _ in MISTAKES}
    own = {"replica", "launch", "records"}  # of vLLM's flags, of a running server, without values
    assert {name for name, _ in commands(_parser()) if " " not in name} - own <= told


def test_an_unreachable_server_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluation_client, "MAX_ATTEMPTS", 1)
    with listening_socket() as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/v1"
    assert main(["eval", "run", "chains", "--budgets", "0", "--base-url", url]) == 1
    complaint = capsys.readouterr().err
    assert f"the server at {url}/ cannot be reached" in complaint
    assert "pass its URL as --base-url" in complaint
    assert main(["eval", "run", "chains", "--budgets", "0", "--base-url", "127.0.0.1"]) == 1
    assert "missing an 'http://'" in capsys.readouterr().err


@pytest.mark.parametrize("options", ["", "--workers 2 --engine kind=vllm --engine urls=[]"])
def test_a_port_in_use_is_told_before_anything_is_loaded(
    options: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with listening_socket() as bound:
        port = bound.getsockname()[1]
        command = f"serve --model fake --port {port} {options}"
        if options:
            command = command.replace("[]", '["http://127.0.0.1:1"]')
        assert status_of(command) == 2
    assert capsys.readouterr().err == (
        f"proctor: port: 127.0.0.1:{port} is in use by another process: stop it, or choose another "
        "port\n"
    )


def test_an_admin_port_in_use_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening_socket() as bound:
        port = bound.getsockname()[1]
        monkeypatch.setenv("PROCTOR_AUTH__ADMIN_PORT", str(port))
        assert status_of("serve --model fake --port 0") == 2
    assert f"auth.admin_port: 127.0.0.1:{port} is in use" in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_told_without_a_traceback() -> None:
    with serve_process("(_ for _ in ()).throw(TypeError('no\\nsuch weights'))") as process:
        _, complaints = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "TypeError: no such weights" in complaints
    assert "check --model and --engine" in complaints
    assert "Traceback" not in complaints


def test_an_unexpected_error_is_one_line_and_a_traceback_with_debug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> int:
        raise KeyError("lost")

    monkeypatch.setattr("proctor.server.cli.ledger.run", fail)
    assert main(["ledger", "report"]) == 1
    assert capsys.readouterr().err == (
        "proctor: KeyError: 'lost'; `proctor --debug …` shows the traceback\n"
    )
    monkeypatch.setattr("proctor.server.cli.main.is_debugging", lambda: True)
    with pytest.raises(KeyError):
        main(["ledger", "report"])


def test_control_c_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("proctor.server.cli.ledger.run", interrupt)
    monkeypatch.setattr("sys.argv", ["proctor", "ledger", "report"])
    assert entry.main() == 130
    assert capsys.readouterr().err == ""


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("--version") == 0
    assert capsys.readouterr().out == f"proctor {version('proctor')}\n"


def test_valid_settings_are_confirmed(capsys: pytest.CaptureFixture[str]) -> None:
    Path("proctor.toml").write_text('served_model_name = "mine"\nport = 8123\n')
    assert main(["check-config"]) == 0
    assert capsys.readouterr().out == "The settings are valid: mine at http://127.0.0.1:8123.\n"
    Path("proctor.toml").write_text("prot = 1\nworker = 2\n")
    assert main(["check-config"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "proctor: prot: Unknown setting 'prot': did you mean 'port'?",
        "proctor: worker: Unknown setting 'worker': did you mean 'workers'?",
    ]


def commands(
    parser: argparse.ArgumentParser, name: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield all commands with their parsers."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner, each in action.choices.items():
                whole = f"{name} {inner}".strip()
                yield whole, each
                yield from commands(each, whole)


@pytest.mark.parametrize("name", [name for name, _ in commands(_parser())])
def test_every_help_has_the_defaults(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = dict(commands(_parser()))[name]
    for action in parser._actions:
        if action.option_strings and action.nargs != 0 and not action.required:
            assert "default" in (action.help or ""), action.option_strings
    parser.print_help()
    assert re.search("usage: proctor", capsys.readouterr().out)
