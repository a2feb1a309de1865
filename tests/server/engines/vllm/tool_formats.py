"""A call of `add` with `{"a": 1}` in the formats of vLLM's tool parsers."""

import re
from collections.abc import Sequence
from types import SimpleNamespace

PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOLS = tuple(
    {"type": "function", "function": {"name": name, "parameters": PARAMETERS}}
    for name in ("add", "multiply")
)

BAR = "\N{FULLWIDTH VERTICAL LINE}"
CALLS, CALL, SEPARATOR, CALL_ENDS, CALLS_END = (
    f"<{BAR}tool▁{name}{BAR}>"
    for name in ("calls▁begin", "call▁begin", "sep", "call▁end", "calls▁end")
)
"""The special tokens of DeepSeek."""

SPECIAL_TOKENS = [
    *("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>", "<|tool_call|>"),
    *(CALLS, CALL, SEPARATOR, CALL_ENDS, CALLS_END, "<tool_call>", "</tool_call>"),
    *("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>"),
    *("<|tool_call_end|>", "<|tool_call_argument_begin|>", "<tool_calls>", "</tool_calls>"),
    *("<|tool_call_start|>", "<|action_start|>", "<|plugin|>", "<|action_end|>", "<arg_key>"),
    *("</arg_key>", "<arg_value>", "</arg_value>", "<minimax:tool_call>", "</minimax:tool_call>"),
    *("<seed:tool_call>", "</seed:tool_call>", "<longcat_tool_call>", "</longcat_tool_call>"),
]
PARTS = re.compile("(" + "|".join(map(re.escape, SPECIAL_TOKENS)) + ")")


class FormatTokenizer:
    """A tokenizer of characters and the special tokens of all formats."""

    def __init__(self) -> None:
        self.added = dict(enumerate(SPECIAL_TOKENS, 0x110000))
        self.added_tokens_decoder = {
            token: SimpleNamespace(content=text, special=True) for token, text in self.added.items()
        }

    def get_vocab(self) -> dict[str, int]:
        return {text: token for token, text in self.added.items()}

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        vocab = self.get_vocab()
        return [
            token
            for part in PARTS.split(text)
            for token in ([vocab[part]] if part in vocab else map(ord, part))
        ]

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        return "".join(self.added.get(token) or chr(token) for token in token_ids)


JSON = '{"name": "add", "arguments": {"a": 1}}'
FORMATS = {
    "hermes": f"<tool_call>\n{JSON}\n</tool_call>",
    "longcat": f"<longcat_tool_call>{JSON}</longcat_tool_call>",
    "mistral": '[TOOL_CALLS]add[ARGS]{"a": 1}',
    "llama3_json": '{"name": "add", "parameters": {"a": 1}}',
    "llama4_json": '<|python_tag|>{"name": "add", "parameters": {"a": 1}}',
    "qwen3_coder": "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n</function>\n"
    "</tool_call>",
    "qwen3_xml": "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n</function>\n"
    "</tool_call>",
    "deepseek_v3": f"{CALLS}{CALL}function{SEPARATOR}add\n```json\n"
    f'{{"a": 1}}\n```{CALL_ENDS}{CALLS_END}',
    "deepseek_v31": f'{CALLS}{CALL}add{SEPARATOR}{{"a": 1}}{CALL_ENDS}{CALLS_END}',
    "pythonic": "[add(a=1)]",
    "llama4_pythonic": "[add(a=1)]",
    "kimi_k2": "<|tool_calls_section_begin|><|tool_call_begin|>functions.add:0"
    '<|tool_call_argument_begin|>{"a": 1}<|tool_call_end|><|tool_calls_section_end|>',
    "granite": f"<|tool_call|>[{JSON}]",
    "granite4": f"<tool_call>{JSON}</tool_call>",
    "glm45": "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
    "minimax_m2": '<minimax:tool_call>\n<invoke name="add">\n<parameter name="a">1</parameter>\n'
    "</invoke>\n</minimax:tool_call>",
    "internlm": '<|action_start|><|plugin|>{"name": "add", "parameters": {"a": 1}}<|action_end|>',
    "phi4_mini_json": f"functools[{JSON}]",
    "xlam": f"[{JSON}]",
    "jamba": f"<tool_calls>[{JSON}]</tool_calls>",
    "hunyuan_a13b": f"<tool_calls>[{JSON}]</tool_calls>",
    "lfm2": "<|tool_call_start|>[add(a=1)]<|tool_call_end|>",
    "seed_oss": "<seed:tool_call><function=add><parameter=a>1</parameter></function>"
    "</seed:tool_call>",
}
