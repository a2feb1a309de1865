"""`proctor launch` in a separate process, with a stand-in for the agent."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[4]

AGENT = """#!{python}
import json, os, signal, sys, urllib.request

environment = dict(os.environ)
if "AGENT_WAITS" in environment:
    signal.signal(signal.SIGINT, lambda *_: sys.exit(42))
    print("waiting", flush=True)
    while True:
        signal.pause()
url = environment.get("ANTHROPIC_BASE_URL")
status = None
if url is not None:
    headers = dict(
        line.split(": ") for line in environment["ANTHROPIC_CUSTOM_HEADERS"].splitlines()
    )
    body = {{
        "model": environment["ANTHROPIC_MODEL"],
        "max_tokens": 100,
        "thinking": {{"type": "adaptive"}},
        "output_config": {{"effort": "low"}},
        "messages": [{{"role": "user", "content": "hi"}}],
    }}
    content = json.dumps(body).encode()
    request = urllib.request.Request(url + "/v1/messages", content, headers)
    for _ in range(2):
        status = urllib.request.urlopen(request).status
found = {{"arguments": sys.argv[1:], "environment": environment, "status": status}}
print(json.dumps(found), flush=True)
sys.exit(int(environment.get("AGENT_STATUS", "0")))
"""
"""An agent that makes two requests, as Claude Code would, and prints what it was given."""

LAUNCH = """
import sys
from proctor.server.cli.launch import server
from proctor.server.cli.main import main
server.SERVE = [sys.executable, "-c", {serve!r}]
raise SystemExit(main(["launch", *sys.argv[1:]]))
"""
SERVE = """
import sys
import proctor.server.cli.serve
from proctor.server.cli.main import main
from proctor.server.engines.fake import FakeEngine
proctor.server.cli.serve.load_engine = lambda settings: {engine}
raise SystemExit(main(["serve", "--model", "fake", *sys.argv[1:]]))
"""


class Launched(NamedTuple):
    """What a launch has done.

    Attributes:
        status: its exit status.
        out: its standard output.
        complaints: its standard error.
    """

    status: int
    out: str
    complaints: str

    @property
    def found(self) -> Any:
        """What the agent was given."""
        return json.loads(self.out.splitlines()[-1])


def install_agent(folder: Path, name: str) -> Path:
    """Install the stand-in under an agent's name, and return the folder of the program."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(AGENT.format(python=sys.executable))
    program.chmod(0o755)
    return folder


def launch(*arguments: str, programs: Path, state: Path, **environment: str) -> Launched:
    """Launch an agent, and wait until it has ended.

    Args:
        arguments: those of `proctor launch`.
        programs: the folder of the agent.
        state: the folder of the server's files.
        environment: additional environment variables.
    """
    with launching(*arguments, programs=programs, state=state, **environment) as process:
        out, complaints = process.communicate(timeout=PATIENCE)
    return Launched(process.returncode, out, complaints)


@contextmanager
def launching(
    *arguments: str,
    programs: Path,
    state: Path,
    engine: str = "FakeEngine()",
    **environment: str,
) -> Iterator["subprocess.Popen[str]"]:
    """Launch an agent in a process group of its own; end the group at the end.

    See `launch`. `engine` is a Python expression for the engine of a server that is started.
    """
    script = LAUNCH.format(serve=SERVE.format(engine=engine))
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=programs,
        env=_environment(programs, state, environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _environment(programs: Path, state: Path, additions: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "PROCTOR_API_KEY"}
    return {
        **inherited,
        "PATH": f"{programs}:{os.defpath}",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}",
        "STATE_DIRECTORY": str(state),
        **additions,
    }
