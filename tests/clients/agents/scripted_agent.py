"""A scripted engine that uses the tools of coding agents: it follows a fixed plan to the end.

The plan is the same for all clients; only the names and the parameters of their tools differ.
"""

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from proctor.server.engines.base import Job
from proctor.server.engines.fake import TURN, FakeEngine, Script
from tests.clients.scripted_servers import EmptyVocabulary

CONTEXT = 2**20
"""Room for the prompts of agents: a token is a byte, and their instructions have 100,000."""

THOUGHT = "The next step of the plan is to work on the numbers."
"""What the model thinks before each step, unless its budget is smaller."""

TASK = "Follow the plan: write numbers, sum them up, and report the total."
DONE = "The total is 42."
FAILED = "A tool failed: "


class Write(NamedTuple):
    """A step that writes a file."""

    file: str
    text: str


class Read(NamedTuple):
    """A step that reads a file."""

    file: str


class Edit(NamedTuple):
    """A step that replaces a text in a file that was read or written before."""

    file: str
    old: str
    new: str


class Shell(NamedTuple):
    """A step that runs a command."""

    command: str


Step = Write | Read | Edit | Shell
Call = tuple[str, dict[str, Any]]
Toolbox = Callable[[Step, str], Call]
"""Returns the name and the arguments of the tool for a step, given the working directory."""

PLAN: Sequence[Step] = (
    Shell("ls"),
    Write("one.txt", "19\n"),
    Write("two.txt", "22\n"),
    Read("one.txt"),
    Read("two.txt"),
    Write("sum.sh", "echo $(( $(cat one.txt) + $(cat two.txt) ))\n"),
    Shell("sh sum.sh"),
    Edit("one.txt", "19", "20"),
    Read("one.txt"),
    Shell("sh sum.sh > total.txt"),
    Read("total.txt"),
    Shell("cat total.txt"),
)
"""The steps: each is one tool call."""


def claude_code(step: Step, folder: str) -> Call:
    """Return a call of a tool of Claude Code."""
    match step:
        case Write(file, text):
            return "Write", {"file_path": f"{folder}/{file}", "content": text}
        case Read(file):
            return "Read", {"file_path": f"{folder}/{file}"}
        case Edit(file, old, new):
            edit = {"old_string": old, "new_string": new}
            return "Edit", {"file_path": f"{folder}/{file}", **edit}
        case Shell(command):
            return "Bash", {"command": command, "description": "Run a step of the plan"}


def codex(step: Step, folder: str) -> Call:
    """Return a call of the only tool of Codex for files and commands, its shell."""
    match step:
        case Write(file, text):
            command = f"printf %s {shlex.quote(text)} > {file}"
        case Read(file):
            command = f"cat {file}"
        case Edit(file, old, new):
            command = f"sed -i s/{old}/{new}/ {file}"
        case Shell(command):
            pass
    return "exec_command", {"cmd": command, "workdir": folder}


def opencode(step: Step, folder: str) -> Call:
    """Return a call of a tool of opencode."""
    match step:
        case Write(file, text):
            return "write", {"filePath": f"{folder}/{file}", "content": text}
        case Read(file):
            return "read", {"filePath": f"{folder}/{file}"}
        case Edit(file, old, new):
            edit = {"oldString": old, "newString": new}
            return "edit", {"filePath": f"{folder}/{file}", **edit}
        case Shell(command):
            return "bash", {"command": command, "description": "Run a step of the plan"}


TOOLBOXES: Mapping[str, Toolbox] = {
    "Write": claude_code,
    "exec_command": codex,
    "write": opencode,
}
"""The toolboxes by the name of a tool that only their client has."""

FAILURE = re.compile(r"^Error|Process exited with code [1-9]")
"""What the results of failed tools have."""


def scripted_agent(folder: str) -> FakeEngine:
    """Return an engine that follows the plan in a folder, one tool call per response."""
    from proctor.server.engines.vllm.tools import VllmTools

    return FakeEngine(
        lambda job: script(job, folder),
        name="scripted",
        context_length=CONTEXT,
        tools=VllmTools("hermes", EmptyVocabulary()),
    )


def script(job: Job, folder: str) -> Script:
    """Return the call of the next step, or the report if all are done or one has failed.

    Requests without the tools of an agent, such as those for the title of a session, get the
    report too.
    """
    prompt = read_prompt(job.prompt_ids)
    toolbox = next((box for tool, box in TOOLBOXES.items() if tool in prompt.tools), None)
    failed = [result for result in prompt.results if FAILURE.search(result)]
    if failed:
        return Script((THOUGHT,), FAILED + failed[0])
    if toolbox is None or len(prompt.results) == len(PLAN):
        return Script((THOUGHT,), DONE)
    name, arguments = toolbox(PLAN[len(prompt.results)], folder)
    call = json.dumps({"name": name, "arguments": arguments})
    return Script((THOUGHT,), f"<tool_call>\n{call}\n</tool_call>")


class AgentPrompt(NamedTuple):
    """What the script reads in a prompt.

    Attributes:
        tools: the names of the tools.
        results: the results of the tool calls since the user's last message.
    """

    tools: frozenset[str]
    results: tuple[str, ...]


def read_prompt(ids: Sequence[int]) -> AgentPrompt:
    """Return the tools and results in a prompt of the byte tokenizer."""
    tools: frozenset[str] = frozenset()
    results: list[str] = []
    for index, (role, text) in enumerate(_messages(ids)):
        if role == "system" and index == 0 and text.startswith("[{"):
            tools = frozenset(tool["function"]["name"] for tool in json.loads(text))
        elif role == "user":
            results = []
        elif role == "tool":
            results.append(text)
    return AgentPrompt(tools, tuple(results))


def _messages(ids: Sequence[int]) -> list[tuple[str, str]]:
    """Return the role and the text of each message."""
    messages: list[bytearray] = []
    for token in ids:
        if token == TURN:
            messages.append(bytearray())
        elif token < 256:
            messages[-1].append(token)
    texts = [message.decode(errors="replace") for message in messages]
    return [(role, text) for role, _, text in (each.partition("\n") for each in texts)]
