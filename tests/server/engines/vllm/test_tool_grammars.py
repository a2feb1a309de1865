"""The grammars that constrain answers to tool calls, in each format that has one."""

from typing import Any

import pytest

from proctor.server.engines.tool_calls import Kind, ToolChoice
from tests.server.engines.vllm.tool_formats import FORMATS, TOOLS, FormatTokenizer

tools_module = pytest.importorskip(
    "proctor.server.engines.vllm.tools",
    reason="the CPU engine, whose tool parsers these are, is missing",
)
xgrammar = pytest.importorskip("xgrammar")

BOUND = {
    *("deepseek_v3", "deepseek_v31", "glm45", "hermes", "kimi_k2", "llama3_json", "llama4_json"),
    *("longcat", "minimax_m2", "qwen3_coder", "qwen3_xml"),
}
ELSEWHERE = {"llama4_json": "<|python_tag|>", "minimax_m2": "\n"}
"""The prefix that a forced call lacks in these formats, or starts with."""


def grammar(name: str, mode: str, function: str | None = None) -> Any:
    choice = ToolChoice(TOOLS, mode, function, True, None)
    constraint = tools_module.VllmTools(name, FormatTokenizer()).bind(choice).constraint
    if constraint is None or constraint.kind is not Kind.STRUCTURAL_TAG:
        return None
    vocabulary = [bytes([byte]) for byte in range(256)]
    info = xgrammar.TokenizerInfo([*vocabulary, b"<end>"], stop_token_ids=[256])
    return xgrammar.GrammarCompiler(info, max_threads=1).compile_structural_tag(constraint.value)


def accepts(compiled: Any, text: str) -> bool:
    matcher = xgrammar.GrammarMatcher(compiled)
    return bool(matcher.accept_string(text) and matcher.is_completed())


def forced(name: str) -> str:
    written, odd = FORMATS[name], ELSEWHERE.get(name, "")
    return written.removeprefix(odd) if odd.strip() else odd + written


@pytest.mark.parametrize("name", FORMATS)
def test_an_optional_call_must_name_an_existing_function(name: str) -> None:
    compiled = grammar(name, "auto")

    assert (compiled is not None) == (name in BOUND)
    if compiled is not None:
        assert accepts(compiled, f"Text.\n{FORMATS[name]}") or name == "llama3_json"
        assert accepts(compiled, FORMATS[name])
        assert not accepts(compiled, FORMATS[name].replace("add", "other"))


@pytest.mark.parametrize("name", sorted(BOUND))
@pytest.mark.parametrize(("mode", "function"), [("required", None), ("named", "add")])
def test_a_forced_call_must_match_its_schema(name: str, mode: str, function: str | None) -> None:
    compiled = grammar(name, mode, function)

    assert accepts(compiled, forced(name))
    assert not accepts(compiled, forced(name).replace("1", "[]"))
    assert not accepts(compiled, forced(name).replace("add", "other"))
    assert not accepts(compiled, "Text.")
