"""Lets requests come as far as the engine.

Any name for the model becomes that of the served one (that another name is a 404 is left to
`GET /v1/models/{name}`), and no request asks for less time than an answer takes, which is a 504.

What the description says in words alone, for no schema can, is kept to by requests that are to be
accepted: fields that say the same are not to contradict each other, and numbers have to fit into
the context and into each other.
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
DEMANDS = BUDGETS[BUDGETS.index("min_thinking_tokens") :]
"""Those that can demand thinking, for which a raw prompt has to open a block."""

LAYOUTS = ("reasoning_format", "include_reasoning", "separate_reasoning")
LENGTHS = ("max_tokens", "max_completion_tokens")
BINDING = ("response_format", "structured_outputs", "tools")
"""Those that can say where an answer ends, beside which none has a least length."""

BESIDE_NO_TOOLS = ("grammar", "structural_tag")
"""Languages of their own, which are read at once where calls are to be bound beside them."""

ALONE = ("return_token_ids", "continue_final_message", "add_generation_prompt", "echo")
FITS = 8
"""Tokens, or characters of a text, that fit into any budget."""

SMALL = 1500
"""Characters of JSON of which several fit into the context."""

VOCABULARY = 256


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, **_: object) -> None:
    if case.headers:
        case.headers.pop("x-request-timeout", None)
    body = case.body
    if not isinstance(body, dict):
        return
    if isinstance(body.get("model"), str) and body["model"]:
        body["model"] = "scripted"
    if case.meta is not None and case.meta.generation.mode.is_positive:
        _agree(body)


def _agree(body: dict) -> None:
    _keep_one(body, BUDGETS)
    _keep_one(body, LENGTHS)
    for name in LENGTHS:
        if body.get(name) is not None:
            body[name] = 8 * FITS
    if body.get("min_thinking_tokens") is not None:
        body["min_thinking_tokens"] = FITS
    for name in ("thinking", "reasoning", "chat_template_kwargs"):
        if isinstance(body.get(name), dict):
            _agree_within(body[name])
    if (body.get("reasoning") or {}).get("exclude") is None:
        _keep_one(body, LAYOUTS)
    else:
        for name in LAYOUTS:
            body.pop(name, None)
    if isinstance(body.get("tools"), list):
        _name_tools(body)
        if any((body.get("structured_outputs") or {}).get(name) for name in BESIDE_NO_TOOLS):
            del body["structured_outputs"]
    if (body.get("structured_outputs") or {}).get("structural_tag"):
        body["structured_outputs"]["structural_tag"] = "{}"  # any JSON, which no schema says
    for name in ("response_format", "structured_outputs"):
        if not _is_small(body.get(name)):
            del body[name]
    if not _is_small(body.get("messages")):
        body["messages"] = [{"role": "user", "content": "x"}]
    if "prompt" in body and "max_thinking_tokens" not in body:
        for name in DEMANDS:
            body.pop(name, None)
    if body.get("min_tokens") is not None:
        body["min_tokens"] = FITS
    for name in BINDING:
        if body.get(name) is not None:
            body.pop("min_tokens", None)
            body.pop("ignore_eos", None)
    if body.get("stream"):
        body.pop("prompt_logprobs", None)
    for name in ALONE:  # of a hidden thinking, or a message that must be unfinished
        if "messages" in body:
            body.pop(name, None)
    if "prompt" in body:
        body["prompt"] = _prompt(body["prompt"])
        if isinstance(body["prompt"], list) and not isinstance(body["prompt"][0], int):
            body["prompt"] = body["prompt"][:1]


def _agree_within(fields: dict) -> None:
    _keep_one(
        fields,
        (
            *("type", "budget_tokens", "min_tokens", "continuations"),
            *("effort", "max_tokens", "enabled", "enable_thinking", "thinking"),
        ),
    )
    if fields.get("min_tokens") is not None:
        fields["min_tokens"] = FITS
    if isinstance(fields.get("wrap_up_text"), str):
        fields["wrap_up_text"] = fields["wrap_up_text"][:FITS]
    texts = fields.get("continuation_text")
    if isinstance(texts, str):
        fields["continuation_text"] = texts[:FITS]
    elif isinstance(texts, list):
        fields["continuation_text"] = [text[:FITS] for text in texts]


def _keep_one(fields: dict, names: tuple[str, ...]) -> None:
    for name in [name for name in names if fields.get(name) is not None][1:]:
        del fields[name]


def _is_small(value: object) -> bool:
    """Whether it fits into the context, and its integers into 64 bits."""
    told = json.dumps(value)
    return len(told) < SMALL and re.search(r"\d{17}", told) is None


def _name_tools(body: dict) -> None:
    if not _is_small(body["tools"]):
        body["tools"] = [{"type": "function", "function": {"name": "f"}}]
    for at, tool in enumerate(body["tools"]):
        tool["function"]["name"] = f"f{at}"
    if isinstance(body.get("tool_choice"), dict):
        body["tool_choice"]["function"]["name"] = "f0"


def _prompt(prompt: object) -> object:
    """One that is not empty, of tokens that the model has."""
    if isinstance(prompt, int | float):
        return prompt % VOCABULARY
    if isinstance(prompt, list):
        return [_prompt(part) for part in prompt] or [0]
    return prompt or "x"
