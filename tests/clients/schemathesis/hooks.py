"""Changes generated requests so that they reach the engine.

The model's name becomes that of the served model (`GET /v1/models/{name}` covers the 404 for other
names). Timeouts are dropped, because one shorter than an answer takes is a 504, and limits of
sessions, which need a ledger.

Requests that must be accepted are also made to comply with rules that the document describes in
words, because no schema can express them: synonymous fields must not contradict each other, and
numbers must fit into the context and into each other.
"""

import json
import re

import schemathesis

BUDGETS = (
    "max_thinking_tokens",
    "thinking_token_budget",
    "thinking_budget",
    "reasoning_budget_tokens",
    "thinking_budget_tokens",
    "reasoning_max_tokens",
    "nvext",
    "min_thinking_tokens",
    "budget_tier",
    "reasoning_effort",
    "think",
    "enable_thinking",
    "chat_template_kwargs",
    "thinking",
    "reasoning",
)
THINKING_FIELDS = BUDGETS[BUDGETS.index("min_thinking_tokens") :]
"""The fields that can require thinking, for which a raw prompt must open a block."""

LAYOUTS = ("reasoning_format", "include_reasoning", "separate_reasoning")
LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
CONSTRAINING = ("response_format", "structured_outputs", "tools")
"""The fields that can determine where an answer ends, so that no minimum length is allowed."""

NOT_WITH_TOOLS = ("grammar", "structural_tag")
"""Constraints with their own language, which is parsed at once if calls are constrained too."""

WITH_CONDITIONS = ("return_token_ids", "continue_final_message", "add_generation_prompt", "echo")
SMALL_NUMBER = 8
"""A number of tokens, or characters of a text, that fits into any budget."""

MAX_CHARACTERS = 1500
"""The maximum length of a JSON value, so that several fit into the context."""

VOCABULARY = 256


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, **_: object) -> None:
    for name in [*(case.headers or ())]:
        if name.lower() == "x-request-timeout" or name.lower().startswith("x-session-max-"):
            del case.headers[name]
    body = case.body
    if not isinstance(body, dict):
        return
    body.pop("session", None)
    if isinstance(body.get("model"), str) and body["model"]:
        body["model"] = "scripted"
    if case.meta is not None and case.meta.generation.mode.is_positive:
        if case.operation.path.startswith("/v1/messages"):
            _make_message_valid(body)
        _make_valid(body)


def _make_valid(body: dict) -> None:
    _keep_one(body, BUDGETS)
    _keep_one(body, LENGTHS)
    for name in LENGTHS:
        if body.get(name) is not None:
            body[name] = 8 * SMALL_NUMBER
    if body.get("min_thinking_tokens") is not None:
        body["min_thinking_tokens"] = SMALL_NUMBER
    for name in ("thinking", "reasoning", "chat_template_kwargs"):
        if isinstance(body.get(name), dict):
            _make_section_valid(body[name])
    if (body.get("reasoning") or {}).get("exclude") is None:
        _keep_one(body, LAYOUTS)
    else:
        for name in LAYOUTS:
            body.pop(name, None)
    if "input" in body:
        _make_response_valid(body)
    elif isinstance(body.get("tools"), list):
        _name_tools(body)
        if any((body.get("structured_outputs") or {}).get(name) for name in NOT_WITH_TOOLS):
            del body["structured_outputs"]
    if (body.get("structured_outputs") or {}).get("structural_tag"):
        body["structured_outputs"]["structural_tag"] = (
            "{}"  # must be JSON, which the schema cannot express
        )
    for name in ("response_format", "structured_outputs"):
        if not _is_small(body.get(name)):
            del body[name]
    if not _is_small(body.get("messages")):
        body["messages"] = [{"role": "user", "content": "x"}]
    if "prompt" in body and "max_thinking_tokens" not in body:
        for name in THINKING_FIELDS:
            body.pop(name, None)
    if body.get("min_tokens") is not None:
        body["min_tokens"] = SMALL_NUMBER
    for name in CONSTRAINING:
        if body.get(name) is not None:
            body.pop("min_tokens", None)
            body.pop("ignore_eos", None)
    if body.get("stream"):
        body.pop("prompt_logprobs", None)
    for (
        name
    ) in WITH_CONDITIONS:  # invalid with hidden thinking, or unless the last message is unfinished
        if "messages" in body:
            body.pop(name, None)
    if "prompt" in body:
        body["prompt"] = _valid_prompt(body["prompt"])
        if isinstance(body["prompt"], list) and not isinstance(body["prompt"][0], int):
            body["prompt"] = body["prompt"][:1]


def _make_section_valid(fields: dict) -> None:
    _keep_one(
        fields,
        (
            *("type", "budget_tokens", "min_tokens", "continuations"),
            *("effort", "max_tokens", "enabled", "enable_thinking", "thinking"),
        ),
    )
    if fields.get("min_tokens") is not None:
        fields["min_tokens"] = SMALL_NUMBER
    if isinstance(fields.get("early_exit"), dict):
        fields["early_exit"] |= {"method": "entropy", "patience": 2}
    if isinstance(fields.get("parallel"), dict):  # several chains exclude other fields
        fields["parallel"] |= {"chains": 1, "method": "vote"}
    if isinstance(fields.get("wrap_up_text"), str):
        fields["wrap_up_text"] = fields["wrap_up_text"][:SMALL_NUMBER]
    texts = fields.get("continuation_text")
    if isinstance(texts, str):
        fields["continuation_text"] = texts[:SMALL_NUMBER]
    elif isinstance(texts, list):
        fields["continuation_text"] = [text[:SMALL_NUMBER] for text in texts]


def _make_message_valid(body: dict) -> None:
    """Make the fields of the Messages API valid, apart from those that chats have too."""
    for name in ("system", "tools", "output_config"):
        if not _is_small(body.get(name)):
            del body[name]
    tools = body.pop("tools", None) or []
    if tools:
        body["tools"] = [{**tool, "name": f"f{number}"} for number, tool in enumerate(tools)]
    body.pop("tool_choice", None)
    messages = body["messages"]
    if not _is_small(messages) or messages[-1]["role"] == "assistant":
        body["messages"] = [{"role": "user", "content": "x"}]


def _make_response_valid(body: dict) -> None:
    """Make the fields of the Responses API valid; nothing is stored on this server."""
    for name in ("background", "previous_response_id", "tool_choice"):
        body.pop(name, None)
    for name in ("tools", "text"):
        if not _is_small(body.get(name)):
            del body[name]
    if isinstance(body.get("tools"), list):
        body["tools"] = [
            {**tool, "name": f"f{number}"} for number, tool in enumerate(body["tools"])
        ]
    if not _is_small(body["input"]) or not _is_seen(body["input"]):
        body["input"] = "x"


def _is_seen(items: object) -> bool:
    """Return whether the model sees any of the items."""
    seen = ("message", "reasoning", "function_call", "custom_tool_call", "local_shell_call")
    if not isinstance(items, list):
        return True
    types = [item.get("type", "message") for item in items]
    return "item_reference" not in types and any(each in seen for each in types)


def _keep_one(fields: dict, names: tuple[str, ...]) -> None:
    for name in [name for name in names if fields.get(name) is not None][1:]:
        del fields[name]


def _is_small(value: object) -> bool:
    """Return whether a value fits into the context, and its integers into 64 bits."""
    text = json.dumps(value)
    return len(text) < MAX_CHARACTERS and re.search(r"\d{17}", text) is None


def _name_tools(body: dict) -> None:
    if not _is_small(body["tools"]):
        body["tools"] = [{"type": "function", "function": {"name": "f"}}]
    for number, tool in enumerate(body["tools"]):
        if "function" in tool:
            tool["function"]["name"] = f"f{number}"
    if isinstance(body.get("tool_choice"), dict):
        body["tool_choice"]["function"]["name"] = "f0"


def _valid_prompt(prompt: object) -> object:
    """Return a non-empty prompt of token ids in the vocabulary."""
    if isinstance(prompt, int | float):
        return prompt % VOCABULARY
    if isinstance(prompt, list):
        return [_valid_prompt(part) for part in prompt] or [0]
    return prompt or "x"
