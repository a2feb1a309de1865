"""The command that starts a replica."""

import json

import pytest

pytest.importorskip("vllm", reason="the CPU engine is not installed")

from proctor.budget.processors.integration.arguments import PROCESSORS, WORKER_EXTENSION
from proctor.budget.processors.params import KEY
from proctor.budget.processors.tokenizer.marker_discovery import MarkerSource
from proctor.replica.command import ReplicaCommand, parse_arguments, replica_command
from proctor.server.cli.main import main
from proctor.server.config.settings import DEMO

MODEL = str(DEMO / "model")


def command(*flags: str, markers: MarkerSource | None = None) -> ReplicaCommand:
    return replica_command(MODEL, flags, markers or MarkerSource())


def test_vllm_gets_what_budgets_need_beside_its_own_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", "mine,proctor")
    made = command("--port=9000", "--max-model-len", "512")
    options = parse_arguments(made.arguments)
    assert (options.model, options.port, options.max_model_len) == (MODEL, 9000, 512)
    assert options.logits_processors == [PROCESSORS[False]]
    assert options.worker_extension_cls == WORKER_EXTENSION
    assert options.enable_scale_out
    assert options.enable_prompt_tokens_details
    assert options.additional_config[KEY]["start"]
    assert options.shutdown_timeout > 0
    assert made.environment == {"VLLM_PLUGINS": "proctor,mine"}


def test_what_the_operator_sets_is_kept() -> None:
    given = ("--shutdown-timeout=5", "--max-logprobs=-1", '--additional-config={"mine": 1}')
    options = parse_arguments(command(*given).arguments)
    assert (options.shutdown_timeout, options.max_logprobs) == (5, -1)
    assert options.additional_config.keys() == {"mine", KEY}


def test_other_markers() -> None:
    made = command(markers=MarkerSource(start="<a>", end="</a>"))
    config = json.loads(made.arguments[made.arguments.index("--additional-config") + 1])
    assert bytes(config[KEY]["start_symbols"]) == b"<a>"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--logits-processors=mine:Class",), "--logits-processors"),
        (("--worker-extension-cls=mine.Class",), "--worker-extension-cls"),
    ],
)
def test_flags_that_it_sets_itself_are_refused(flags: tuple[str, ...], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        command(*flags)


def test_print_prints_a_command_for_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replica", "--print", MODEL, "--port", "9000"]) == 0
    printed = capsys.readouterr().out
    assert f"vllm serve {MODEL} --port 9000 " in printed
    assert printed.startswith("VLLM_PLUGINS=proctor")


def test_an_unknown_parser_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replica", MODEL, "--reasoning-parser", "none-such"]) == 2
    assert "reasoning_parser" in capsys.readouterr().err
