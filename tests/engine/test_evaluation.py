"""`proctor eval` on the demo model: killed on the way, gone on with, and reported."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from proctor.evaluation.conditions import Kind
from proctor.evaluation.report.findings import Findings
from proctor.evaluation.store import read_store
from proctor.server.cli.main import main
from tests.engine.served import Served
from tests.waiting import PATIENCE

pytestmark = pytest.mark.engine

QUESTIONS, SAMPLES, VOTES = 24, 2, 2
CAPS = (0, 16, 128)
ANSWERS = QUESTIONS * SAMPLES * (len(CAPS) + 2 * VOTES + 2)
"""Two of the caps can be shared; then there are one number of continuations and one tier."""


def command(served: Served, out: Path) -> list[str]:
    return [
        *("eval", "run", "chains", "--base-url", f"{served.url}/v1", "--out", str(out)),
        *("--model", served.engine.model.name, "--count", str(QUESTIONS)),
        *("--samples", str(SAMPLES), "--budgets", ",".join(map(str, CAPS))),
        *("--continuations", "1", "--tiers", "auto", "--votes", str(VOTES)),
    ]


def lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


async def test_does_thinking_pay(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    begun = set(served.engine.recordings)
    script = "import sys; from proctor.server.cli.main import main; sys.exit(main())"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *command(served, out), stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(PATIENCE):
        while lines(out) < ANSWERS // 4:
            assert process.returncode is None, "it ended too early"
            await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert lines(out) < ANSWERS

    assert await asyncio.to_thread(main, command(served, out)) == 0

    kept = read_store(out)
    assert len(kept.rows) == len({row.key for row in kept.rows}) == ANSWERS
    for row in kept.rows:
        # Cut out of the engine's own tokens, where the run counted those that it was sent.
        thought = served.engine.thinking_ids(f"{row.response['id']}-0")
        assert row.tokens == len(thought)
    asked = set(served.engine.recordings) - begun
    assert len(asked) - ANSWERS <= 16  # what was on its way at the kill

    findings = Findings.of(kept.rows)
    capped = {each.setting.value: each for each in findings.of_kind(Kind.CAP)}
    assert set(capped) == set(CAPS)
    assert all(each.within == 1 for each in capped.values())
    assert capped[128].run.accuracy > 0.5 > capped[16].run.accuracy
    assert all(row.confidence is not None for row in kept.rows)

    capsys.readouterr()
    assert main(["eval", "report", str(out), "--folder", str(tmp_path / "report")]) == 0
    told = capsys.readouterr().out
    assert "Surely better than 'at most 0': 'at most 128', to begin with." in told
    assert (tmp_path / "report" / "rows.html").stat().st_size > 10_000
