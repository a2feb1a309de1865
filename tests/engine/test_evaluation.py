"""`proctor eval` on the demo model: killed, resumed and reported."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from proctor.evaluation.conditions import Kind
from proctor.evaluation.report.findings import Findings
from proctor.evaluation.store import read_store
from proctor.server.cli.main import main
from tests.engine.gateway import Gateway
from tests.waiting import PATIENCE

pytestmark = pytest.mark.engine

QUESTIONS, SAMPLES, VOTES = 24, 2, 2
CAPS = (0, 16, 128)
ANSWERS = QUESTIONS * SAMPLES * (len(CAPS) + 2 * VOTES + 2)
"""For two of the maximums the votes share the tokens; one number of continuations, one tier."""


def command(gateway: Gateway, out: Path) -> list[str]:
    return [
        *("eval", "run", "chains", "--base-url", f"{gateway.url}/v1", "--out", str(out)),
        *("--model", gateway.engine.model.name, "--count", str(QUESTIONS)),
        *("--samples", str(SAMPLES), "--budgets", ",".join(map(str, CAPS))),
        *("--continuations", "1", "--tiers", "auto", "--votes", str(VOTES)),
    ]


def count_lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


async def test_a_killed_run_is_resumed_and_reported(
    vllm_gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    earlier = set(vllm_gateway.engine.recordings)
    script = "import sys; from proctor.server.cli.main import main; sys.exit(main())"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *command(vllm_gateway, out), stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(PATIENCE):
        while count_lines(out) < ANSWERS // 4:
            assert process.returncode is None, "the run ended before it was killed"
            await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert count_lines(out) < ANSWERS

    assert await asyncio.to_thread(main, command(vllm_gateway, out)) == 0

    store = read_store(out)
    assert len(store.rows) == len({row.key for row in store.rows}) == ANSWERS
    for row in store.rows:
        # Counted in the tokens of the engine; the run counted those that it received.
        thinking_ids = vllm_gateway.engine.thinking_ids(f"{row.response['id']}-0")
        assert row.tokens == len(thinking_ids)
    jobs = set(vllm_gateway.engine.recordings) - earlier
    assert len(jobs) - ANSWERS <= 16  # in flight at the kill

    findings = Findings.of(store.rows)
    by_maximum = {each.condition.value: each for each in findings.of_kind(Kind.CAP)}
    assert set(by_maximum) == set(CAPS)
    assert all(each.within == 1 for each in by_maximum.values())
    assert by_maximum[128].run.accuracy > 0.5 > by_maximum[16].run.accuracy
    assert all(row.confidence is not None for row in store.rows)

    capsys.readouterr()
    assert main(["eval", "report", str(out), "--folder", str(tmp_path / "report")]) == 0
    output = capsys.readouterr().out
    assert "First condition significantly better than 'at most 0': 'at most 128'." in output
    assert (tmp_path / "report" / "rows.html").stat().st_size > 10_000
